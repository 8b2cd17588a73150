import io
import os
import struct
import zipfile

import numpy as np
import pytest
from builders.bounds import quick_and_small

from vj2_ddim_plugin import arrays
from vj2_ddim_plugin.arrays import npy_array, npz_arrays
from vj2_ddim_plugin.errors import ContextError, DataError

VALUES = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


@pytest.fixture(autouse=True)
def _quick_and_small():
    with quick_and_small(seconds=2):
        yield


def npy(header, data=b"", version=(1, 0)):
    size = struct.pack("<H" if version == (1, 0) else "<I", len(header))
    return b"\x93NUMPY" + bytes(version) + size + header.encode("latin1") + data


def says(shape="(2,)", descr="'<f4'", order="False"):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}\n"


def deflated(content, name="a.npy", method=zipfile.ZIP_DEFLATED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr(name, content)
    return bytearray(stream.getvalue())


def claiming(content, size):
    """An archive whose directory says that its array is of another size."""
    archive = deflated(content)
    central = archive.rindex(b"PK\x01\x02")
    archive[central + 24 : central + 28] = struct.pack("<I", size)
    return archive


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    "values", [VALUES, VALUES.astype(">f8"), VALUES[:0], VALUES[:, :0], VALUES[0, 0, 0]], ids=str
)
def test_what_numpy_writes_is_read(tmp_path, save, order, values):
    values = np.asarray(values, order=order)
    save(tmp_path / "x.npz", a=values, b=VALUES)
    np.save(tmp_path / "x.npy", values)
    found = npz_arrays(tmp_path / "x.npz", DataError)
    assert list(found) == ["a", "b"]
    assert list(npz_arrays(tmp_path / "x.npz", DataError, ["b"])) == ["b"]
    for array in (found["a"], npy_array(tmp_path / "x.npy", DataError)):
        assert (array.shape, array.dtype, array.nbytes) == (
            values.shape,
            values.dtype,
            values.nbytes,
        )
        opened = array.open()
        np.testing.assert_array_equal(opened, values)
        assert opened.flags.f_contiguous == values.flags.f_contiguous
        for axes in range(min(3, values.ndim + 1)):
            items = list(array.items(axes))
            expected = [values[index] for index in np.ndindex(values.shape[:axes])]
            assert len(items) == len(expected)
            for item, other in zip(items, expected, strict=True):
                np.testing.assert_array_equal(item, other)


def test_only_compressed_arrays_are_loaded(tmp_path):
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", a=VALUES)
        mapped = isinstance(npz_arrays(tmp_path / "x.npz", DataError)["a"].open(), np.memmap)
        assert mapped is (save is np.savez)


HEADERS = {
    "745 GB": (says("(1000000, 1024, 195)"), "not the file's length"),
    "overflow": (says("(4611686018427387904, 4611686018427387904)"), "not the file's length"),
    "negative": (says("(-2,)"), "a shape of"),
    "booleans": (says("(True, 2)"), "a shape of"),
    "many axes": (says("(" + "1," * 60 + ")"), "a shape of"),
    "a list": (says("[2]"), "shape is not valid"),
    "objects": (says("(1,)", "'|O'"), "Python objects"),
    "no type": (says("(1,)", "'banana'"), "not a valid dtype"),
    "wide type": (says("(2,)", "[('a', '<f4', (9999, 9999))]"), "not the file's length"),
    "nothing much": (says("(1000000000000,)", "'V0'"), "not the file's length"),
    "bracket": (says("(2,"), "is not a readable"),
    "quotes": (says("(2,)", "'''<f4"), "is not a readable"),
    "tabs": ("\t{\n  \t1:\n 2}" + says(), "is not a readable"),
    "call": (says("__import__('os').system('false')"), "is not a readable"),
    "deep": (says("(" * 500 + ")" * 500), "is not a readable"),
    "minus": (says("-" * 8000 + "1"), "is not a readable"),
    "sum": (says("1" + "+1" * 4000), "is not a readable"),
    "digits": (says("(" + "9" * 5000 + ",)"), "is not a readable"),
    "escapes": (says("(2,)", r"'\d\q'"), "not a valid dtype"),
    "null": ("\0" * 100, "is not a readable"),
    "empty": ("", "is not a readable"),
    "other keys": ("{'a': 1}", "is not a readable"),
}


@pytest.mark.parametrize(("header", "message"), HEADERS.values(), ids=HEADERS)
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_headers_that_are_none(tmp_path, header, message, version):
    content = npy(header, b"\0" * 4, version)
    for name, read, written in (
        ("x.npy", npy_array, content),
        ("stored.npz", npz_arrays, deflated(content, method=zipfile.ZIP_STORED)),
        ("deflated.npz", npz_arrays, deflated(content)),
    ):
        (tmp_path / name).write_bytes(written)
        with pytest.raises(
            ContextError, match=message.replace("the file's length", "the")
        ) as caught:
            read(tmp_path / name, ContextError)
        assert f"{tmp_path / name} is not a readable .np" in str(caught.value)
        assert len(str(caught.value)) < len(str(tmp_path)) + 400


WHOLE = npy(says("(6,)"), b"\0" * 24)
FILES = {
    "none.npy": (b"", "magic"),
    "archive.npy": (deflated(WHOLE), "it is an .npz archive"),
    "magic.npy": (b"\x93NUMPY\x09\x00", "is not a readable"),
    "short.npy": (WHOLE[:-1], "is not the file's length"),
    "long.npy": (WHOLE + b"\0", "is not the file's length"),
    "claim.npy": (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{", "is not a readable"),
    "text.npy": (b"hello\n" * 99, "magic"),
    "none.npz": (b"", "not a zip file"),
    "array.npz": (WHOLE, "not a zip file"),
    "short.npz": (deflated(WHOLE)[:-9], "not a zip file"),
    "bzip2.npz": (deflated(WHOLE, method=zipfile.ZIP_BZIP2), "a way that numpy does not write"),
    "cut.npz": (deflated(WHOLE[:-4], method=zipfile.ZIP_STORED), "is not the length of a.npy"),
    "spare.npz": (deflated(WHOLE + b"\0"), "is not the length of a.npy"),
    "claim.npz": (claiming(npy(says("(250000000,)")), 10**9 + 71), "is not the length of a.npy"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_not_what_they_say(tmp_path, name):
    content, message = FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        (npy_array if name.endswith("npy") else npz_arrays)(tmp_path / name, DataError)
    assert f"{tmp_path / name} is not a readable .np" in str(caught.value)


def test_arrays_that_are_missing_or_there_twice(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        for name in ("a.npy", "b.npy", "readme.txt"):
            archive.writestr(name, WHOLE)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.npy", WHOLE)
    with pytest.raises(DataError, match="'c' is missing, found a, b"):
        npz_arrays(tmp_path / "x.npz", DataError, ["b", "c"])
    with pytest.raises(DataError, match="'a' stands twice"):
        npz_arrays(tmp_path / "x.npz", DataError)
    assert list(npz_arrays(tmp_path / "x.npz", DataError, ["b"])) == ["b"]


def test_a_flipped_bit_is_found_by_the_check_sum(tmp_path):
    for save in (np.savez, np.savez_compressed):
        file = tmp_path / f"{save.__name__}.npz"
        save(file, a=VALUES)
        content = bytearray(file.read_bytes())
        content[content.index(b"PK\x01\x02") - 9] ^= 1
        file.write_bytes(content)
        with pytest.raises(DataError, match="is not a readable"):
            npz_arrays(file, DataError)["a"].open()


def test_a_bomb_is_not_set_off(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "MAX_LOADED_BYTES", 2**20)
    np.savez_compressed(tmp_path / "x.npz", a=np.zeros((64, 2**15), np.float32))
    array = npz_arrays(tmp_path / "x.npz", DataError)["a"]
    with pytest.raises(DataError, match=r"takes 8,388,608 bytes.*`vj2-ddim data convert`"):
        array.open()
    assert sum(item.size for item in array.items()) == array.nbytes // 4
    with pytest.raises(DataError, match="takes 8,388,608"):
        next(array.items(0))


def test_a_file_that_changes_is_not_read_with_the_old_header(tmp_path):
    for name, save in (
        ("x.npy", np.save),
        ("x.npz", lambda file, a: np.savez_compressed(file, a=a)),
    ):
        file = tmp_path / name
        save(file, VALUES)
        array = npy_array(file, DataError) if name == "x.npy" else npz_arrays(file, DataError)["a"]
        save(file, VALUES[1:])
        for read in (array.open, lambda array=array: next(array.items())):
            with pytest.raises(DataError, match="has changed"):
                read()
        os.unlink(file)
        with pytest.raises(DataError, match="is not a readable"):
            array.open()
