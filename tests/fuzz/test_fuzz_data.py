"""Data files of all formats and manifests, changed at will: read and valid, or refused by name."""

import io
import json
import struct
import tempfile
import tracemalloc
import zipfile
from pathlib import Path

import h5py
import numpy as np
from builders.fuzz import fuzzed
from builders.training import any_press
from hypothesis import event, given
from hypothesis import strategies as st

from vj2_ddim_plugin.errors import DataError
from vj2_ddim_training.data.gesture_files import read_flat_actions
from vj2_ddim_training.data.inspect import describe_data
from vj2_ddim_training.data.trajectories import open_trajectories

SPEC = any_press(5)
EMBEDDINGS = np.random.default_rng(0).random((2, 4, 3, 2), dtype=np.float32)
ACTIONS = np.random.default_rng(1).random((2, 3, 5, 3), dtype=np.float32)
MOST_BYTES = 2**26
NAMES = {
    "actions": "a_actions.npy",
    "pairs": "a_traj_00000_emb.npy",
    "npz": "a.npz",
    "deflated": "a.npz",
    "h5": "a.h5",
    "gzip": "a.h5",
}


def written(kind):
    """The bytes of a small file of a kind."""
    stream = io.BytesIO()
    if kind in ("h5", "gzip"):
        with h5py.File(stream, "w") as file:
            for name, array in (("embeddings", EMBEDDINGS), ("actions", ACTIONS)):
                settings = {"chunks": (1, 1, *array.shape[2:]), "compression": "gzip"}
                file.create_dataset(name, data=array, **settings if kind == "gzip" else {})
    elif kind in ("npz", "deflated"):
        save = np.savez if kind == "npz" else np.savez_compressed
        save(stream, embeddings=EMBEDDINGS, actions=ACTIONS)
    else:
        arrays = {"actions": ACTIONS.reshape(-1, 3), "pairs": EMBEDDINGS[0]}
        np.save(stream, arrays.get(kind, ACTIONS))
    return stream.getvalue()


ACTIONS_NPY = written("all actions")
ORIGINALS = {kind: written(kind) for kind in NAMES}


def require_named(error, name):
    assert name in str(error)
    assert len(str(error)) < 1000
    str(error).encode()


def check(kind, content):
    """Read it, as each command would: what is accepted is what its own bytes have room for."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / NAMES[kind]).write_bytes(content)
        if kind == "pairs":
            np.save(folder / "a_traj_00000_act.npy", ACTIONS[0])
        tracemalloc.start()
        try:
            if kind == "actions":
                describe_data(folder, SPEC)
                read = (read_flat_actions(folder, SPEC).actions,)
            else:
                data = open_trajectories(folder, SPEC)
                assert 0 < len(data) <= 2 * len(content)
                data.gather([len(data) - 1])
                read = data.gather(range(min(len(data), 50)))
                assert read[0].shape == read[1].shape
                assert read[0].shape[1:] == data.embedding_shape
        except DataError as error:
            event(f"{kind}: refused")
            require_named(error, name)
            return
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < MOST_BYTES
        event(f"{kind}: accepted")
        actions = read[-1]
        assert actions.shape[1:] == (5, 3)
        assert all(np.isfinite(array).all() and array.dtype == np.float32 for array in read)
        assert actions.min() >= -1e-6
        assert actions.max() <= 1 + 1e-6


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["byte", "bit", "cut", "drop", "add", "number"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=4,
)
SIZES = (0, 1, 2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)


@fuzzed
@given(kind=st.sampled_from(list(NAMES)), changes=CHANGES)
def test_bytes(kind, changes):
    content = bytearray(ORIGINALS[kind])
    for what, place, value in changes:
        at = int(place * len(content))
        if what == "cut":
            del content[at:]
        elif what == "drop":
            del content[at : at + value]
        elif what == "add":
            content[at:at] = bytes([value]) * (1 + value % 16)
        elif what == "number":
            content[at : at + 8] = struct.pack("<Q", SIZES[value % len(SIZES)])
        elif at < len(content):
            content[at] = value if what == "byte" else content[at] ^ (1 << value % 8)
    check(kind, bytes(content))


SHAPES = st.one_of(
    st.sampled_from(["(30, 3)", "(2, 4, 3, 2)", "(4, 3, 2)", "(10**9,)", "(True, 2)", "(-1, 3)"]),
    st.sampled_from(["(30, 3)", "(2, 4, 3, 2)", "(4, 3, 2)"]),
    st.lists(st.integers(-1, 2**70) | st.integers(0, 40), max_size=5).map(lambda x: str(tuple(x))),
    st.text("()[]{}'\",: \t\n0123456789-+*L", max_size=20),
)
TYPES = (
    st.just("'<f4'")
    | st.sampled_from(
        [
            "'<f4'",
            "'>f8'",
            "'<f2'",
            "'|O'",
            "'<U9'",
            "'V0'",
            "[('a', '<f4')]",
            "'<f4",
            "b'<f4'",
            "None",
        ]
    )
    | st.text(max_size=8).map(repr)
)


@fuzzed
@given(
    kind=st.sampled_from(["actions", "pairs", "npz", "deflated"]),
    shape=SHAPES,
    descr=TYPES,
    order=st.sampled_from(["False", "True", "1", "'C'"]),
    size=st.sampled_from([360, 192, 96]) | st.integers(0, 400),
    version=st.sampled_from([(1, 0), (2, 0), (3, 0), (9, 9)]),
)
def test_headers(kind, shape, descr, order, size, version):
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}\n".encode()
    length = struct.pack("<H" if version == (1, 0) else "<I", len(header))
    content = b"\x93NUMPY" + bytes(version) + length + header + bytes(size)
    if kind in ("npz", "deflated"):
        stream = io.BytesIO()
        method = zipfile.ZIP_STORED if kind == "npz" else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(stream, "w", method) as archive:
            archive.writestr("embeddings.npy", content)
            archive.writestr("actions.npy", ACTIONS_NPY)
        content = stream.getvalue()
    check(kind, content)


AXES = st.lists(st.sampled_from([0, 1, 2, 3, 4, 5, 15, 10**6, 2**40]), max_size=5)


@fuzzed
@given(
    shapes=st.tuples(AXES, AXES) | st.just(([2, 4, 3, 2], [2, 3, 5, 3])),
    dtype=st.sampled_from(["<f4", ">f8", "<f2", "<i4", "S3", "?", "c8", "O"]),
    kind=st.sampled_from(["plain", "chunks", "gzip", "group", "soft", "external", "virtual"]),
    values=st.sampled_from([0.0, 0.5, np.nan, np.inf, 1e3, None]),
)
def test_hdf5_described_at_will(shapes, dtype, kind, values):
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for name, shape in zip(("embeddings", "actions"), shapes, strict=True):
            size = np.prod([float(axis) for axis in shape])
            special = h5py.special_dtype(vlen=bytes) if dtype == "O" else dtype
            layout = {"chunks": True, "compression": "gzip"} if kind == "gzip" else {}
            layout |= (
                {"chunks": tuple(min(axis, 3) or 1 for axis in shape)} if kind == "chunks" else {}
            )
            if kind == "group":
                file.create_group(name)
            elif kind in ("soft", "external"):
                link = h5py.SoftLink("/gone"), h5py.ExternalLink("/etc/passwd", name)
                file[name] = link[kind == "external"]
            elif kind == "virtual" and shape and size:
                source = h5py.VirtualSource("gone.h5", name, tuple(shape))
                virtual = h5py.VirtualLayout(tuple(shape), "f4")
                if size < 1e6:
                    virtual[...] = source
                file.create_virtual_dataset(name, virtual)
            elif size < 2**60 and not (layout and (0 in shape or not shape)):
                array = file.create_dataset(name, shape, special, **layout)
                if values is not None and 0 < size < 10**5 and np.dtype(dtype).kind in "fc":
                    array[...] = values
    check("h5", stream.getvalue())


PLAIN = st.sampled_from(["a.npz", "b.npz", "link.npz", "notes.txt", "..", "/etc/passwd", "", "\0"])
SOME_NAME = PLAIN | st.text(max_size=5)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | SOME_NAME,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
SPLITS = st.dictionaries(
    st.sampled_from(["train", "validation", "test", "val"]),
    st.lists(st.sampled_from(["a.npz", "b.npz", "link.npz"]), max_size=2)
    | st.lists(PLAIN, max_size=3)
    | ANYTHING,
)


@fuzzed
@given(
    manifest=st.fixed_dictionaries({"splits": SPLITS}, optional={"layer_normed": ANYTHING})
    | ANYTHING,
    cut=st.none() | st.floats(0, 1),
    split=st.sampled_from(["train", "validation", None]),
)
def test_manifests(manifest, cut, split):
    text = json.dumps(manifest)
    text = text if cut is None else text[: int(cut * len(text))]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, file in enumerate(("a.npz", "b.npz")):
            np.savez(folder / file, embeddings=EMBEDDINGS + number, actions=ACTIONS)
        (folder / "link.npz").symlink_to("b.npz")
        (folder / "manifest.json").write_text(text)
        try:
            data = open_trajectories(folder, SPEC, split)
        except DataError as error:
            event("refused")
            require_named(error, f"{folder}/manifest.json")
            return
    event("accepted")
    listed = [file for files in manifest["splits"].values() for file in files]
    assert (
        len(listed)
        == len(set(listed))
        == len(set(listed) | {"a.npz", "b.npz", "link.npz"}) - (3 - len(listed))
    )
    assert not {"b.npz", "link.npz"} <= set(listed)
    chosen = listed if split is None else manifest["splits"][split]
    assert sorted(chosen) == [file.paths[0].name for file in data.files]
    assert data.layer_normed in (None, True, False)
