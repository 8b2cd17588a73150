"""What is no data: named, quickly, and nothing of it is opened, waited for or believed."""

import json
import os
import tracemalloc
import zipfile

import h5py
import numpy as np
import pytest
from builders.bounds import quick_and_small
from builders.training import any_press

from vj2_ddim_plugin.errors import DataError
from vj2_ddim_training.data.gesture_files import read_flat_actions
from vj2_ddim_training.data.trajectories import open_trajectories

SPEC = any_press(5)
EMBEDDINGS = np.random.default_rng(0).random((3, 4, 3, 2), dtype=np.float32)
ACTIONS = np.zeros((3, 3, 5, 3), np.float32)


@pytest.fixture(autouse=True)
def _quick_and_small():
    with quick_and_small(seconds=4):
        yield


def device(path):
    try:
        os.mknod(path, 0o20666, os.makedev(1, 5))
    except PermissionError:
        os.mkfifo(path)


THINGS = {
    "folder": (os.mkdir, "found a folder"),
    "pipe": (os.mkfifo, "found a named pipe"),
    "device": (device, "found a (device|named pipe)"),
    "dangling": (lambda path: os.symlink("gone", path), "found a link to gone that leads nowhere"),
    "looping": (lambda path: os.symlink(path, path), "that leads nowhere"),
    "to a pipe": (lambda path: (os.mkfifo(f"{path}.p"), os.symlink(f"{path}.p", path)), "pipe"),
    "empty": (lambda path: path.touch(), "is not a readable"),
    "noise": (lambda path: path.write_bytes(bytes(range(256)) * 9), "is not a readable"),
}
NAMES = {  # a file of each format, and the folder's other files
    "x_actions.npy": (),
    "x_traj_00000_emb.npy": ("x_traj_00000_act.npy",),
    "x_traj_00000_act.npy": ("x_traj_00000_emb.npy",),
    "x.npz": (),
    "x.h5": (),
    "manifest.json": ("x.npz",),
}


def write(path):
    array = EMBEDDINGS[0] if "_emb" in path.name else ACTIONS[0]
    if path.suffix == ".npz":
        np.savez(path, embeddings=EMBEDDINGS, actions=ACTIONS)
    else:
        np.save(path, array)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("make", "message"), THINGS.values(), ids=THINGS)
def test_things_that_are_no_files(tmp_path, name, make, message):
    make(tmp_path / name)
    for other in NAMES[name]:
        write(tmp_path / other)
    read = read_flat_actions if name == "x_actions.npy" else open_trajectories
    if name == "manifest.json":
        message = message.replace("is not a readable", "cannot be read as JSON")
    with pytest.raises(DataError, match=f"{name}.*{message}"):
        read(tmp_path, SPEC)


def sparse(file):
    file.create_dataset("embeddings", (10**6, 8, 4, 8), "f4", chunks=(1, 1, 4, 8))
    file.create_dataset("actions", (10**6, 7, 5, 3), "f4", chunks=(1, 1, 5, 3))


def late(file):
    file.create_dataset("embeddings", (10**6, 8, 256, 1024), "f4")
    file["actions"] = ACTIONS


def one_chunk(file):
    sparse(file)
    file["embeddings"][0, 0] = 1.0


def both(embeddings=EMBEDDINGS, actions=ACTIONS, **more):
    def make(file):
        file.create_dataset("embeddings", data=embeddings, **more)
        file.create_dataset("actions", data=actions)

    return make


def linked(link):
    def make(file):
        both()(h5py.File(file.filename.replace("x.h5", "other.hdf"), "w"))
        file["embeddings"], file["actions"] = link, ACTIONS

    return make


def outside(file):
    np.save(os.path.dirname(file.filename) + "/raw.bin", np.zeros(10**4))
    raw = [(os.path.dirname(file.filename) + "/raw.bin", 0, EMBEDDINGS.nbytes)]
    file.create_dataset("embeddings", EMBEDDINGS.shape, "f4", external=raw)
    file["actions"] = ACTIONS


def virtual(file):
    layout = h5py.VirtualLayout(EMBEDDINGS.shape, "f4")
    layout[...] = h5py.VirtualSource("other.hdf", "embeddings", EMBEDDINGS.shape)
    file.create_virtual_dataset("embeddings", layout)
    file["actions"] = ACTIONS


def groups(file):
    file.create_group("embeddings")
    file["actions"] = ACTIONS


HDF5 = {
    "sparse": (sparse, "'embeddings' was not written whole: 0 of the 8,000,000 chunks"),
    "never written": (late, "'embeddings' was not written whole: 0 of the 8,388,608,000,000 bytes"),
    "one chunk": (one_chunk, "1 of the 8,000,000 chunks"),
    "no trajectory": (both(EMBEDDINGS[:0], ACTIONS[:0]), r"\(0, 4, 3, 2\).*at least one of each"),
    "no token": (both(EMBEDDINGS[:, :, :0]), r"\(3, 4, 0, 2\).*at least one of each"),
    "no width": (both(EMBEDDINGS[..., :0]), r"\(3, 4, 3, 0\).*at least one of each"),
    "no step": (both(EMBEDDINGS[:, :0], ACTIONS), r"\(3, 0, 3, 2\).*at least one of each"),
    "one step": (both(EMBEDDINGS[:, :1], ACTIONS[:, :0]), "1 steps are too few"),
    "scalar": (both(np.float32(1)), r"embeddings have shape \(\)"),
    "null": (both(h5py.Empty("f4")), r"embeddings have shape \(\)"),
    "integers": (both(EMBEDDINGS.astype(int)), "embeddings have dtype int64"),
    "strings": (both(np.array([b"a"] * 3, object)), "embeddings have dtype object"),
    "a compound": (both(np.zeros((3, 4), [("a", "f4")])), "embeddings have dtype"),
    "a group": (groups, "'embeddings' is no data set but a group"),
    "nothing": (lambda file: None, "'embeddings' is missing, found nothing"),
    "other names": (lambda file: file.create_group("e"), "'embeddings' is missing, found e"),
    "link outside": (
        linked(h5py.ExternalLink("other.hdf", "embeddings")),
        "'embeddings' is a link",
    ),
    "link inside": (linked(h5py.SoftLink("/nowhere")), "'embeddings' is a link"),
    "raw file": (outside, "'embeddings' lies in other files"),
    "virtual": (virtual, "'embeddings' lies in other files"),
}


@pytest.mark.parametrize(("make", "message"), HDF5.values(), ids=HDF5)
def test_odd_hdf5_files(tmp_path, make, message):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        make(file)
    for split in ("train", None):
        with pytest.raises(DataError, match=message) as caught:
            open_trajectories(tmp_path, SPEC, split)
        assert str(tmp_path / "x.h5") in str(caught.value)


def test_a_large_chunk_is_not_decompressed(tmp_path, monkeypatch):
    monkeypatch.setattr("vj2_ddim_training.data.hdf5.MAX_LOADED_BYTES", 100)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        both(chunks=EMBEDDINGS.shape, compression="gzip")(file)
    with pytest.raises(DataError, match="'embeddings' has chunks of 288 bytes"):
        open_trajectories(tmp_path, SPEC)


def test_a_trajectory_of_very_many_steps_costs_no_memory_to_number(tmp_path):
    steps = 200_000
    embeddings, actions = np.zeros((steps, 1, 1), "f2"), np.zeros((steps - 1, 1, 3), "f2")
    np.savez_compressed(tmp_path / "x.npz", embeddings=embeddings, actions=actions)
    data = open_trajectories(
        tmp_path, any_press(1, representation="raw", min_press_steps=1), longest_goal=1000
    )
    assert len(data) > 10**8
    data.gather([0, len(data) - 1])
    with pytest.raises(DataError, match="does not exist"):
        data.gather([len(data)])


ODD_ARRAYS = {
    "objects": (np.array([{}, None], object), "Python objects"),
    "strings": (np.array(["a", "b"]), "dtype <U1"),
    "complex": (EMBEDDINGS.astype(complex), "dtype complex128"),
    "records": (np.zeros(3, [("a", "f4")]), "embeddings have dtype"),
    "no transition": (EMBEDDINGS[:, :1], "1 steps are too few"),
    "nothing": (EMBEDDINGS[:0], "at least one of each"),
    "a number": (np.float32(1), "embeddings have shape ()"),
}


@pytest.mark.parametrize(("array", "message"), ODD_ARRAYS.values(), ids=ODD_ARRAYS)
@pytest.mark.parametrize("kind", ["pairs", "npz", "compressed"])
def test_odd_arrays(tmp_path, array, message, kind):
    if kind == "pairs":
        one = array[0] if array.ndim == 4 and len(array) else array
        np.save(tmp_path / "x_traj_00000_emb.npy", one, allow_pickle=True)
        np.save(tmp_path / "x_traj_00000_act.npy", ACTIONS[0])
    else:
        save = np.savez if kind == "npz" else np.savez_compressed
        save(tmp_path / "x.npz", embeddings=array, actions=ACTIONS)
    with pytest.raises(DataError, match=message.replace("()", "(.*)")) as caught:
        open_trajectories(tmp_path, SPEC)
    assert "/x" in str(caught.value)


def files(folder):
    for name in ("a.npz", "b.npz", "c.npz"):
        write(folder / name)
    os.symlink("b.npz", folder / "link.npz")
    os.link(folder / "b.npz", folder / "hard.npz")
    (folder / "notes.txt").touch()


def splits(**names):
    return json.dumps({"splits": names})


MANIFESTS = {
    "twice": (splits(train=["a.npz", "a.npz"]), "'a.npz' of split 'train' is 'a.npz' of split 't"),
    "a leak": (splits(train=["a.npz"], validation=["a.npz"]), "'a.npz' of split 'validation' is"),
    "by a link": (splits(train=["b.npz"], test=["link.npz"]), "'link.npz' of split 'test' is 'b."),
    "by a hard link": (splits(train=["hard.npz"], val=["b.npz"]), "'b.npz' of split 'val' is 'h"),
    "link twice": (splits(train=["b.npz", "link.npz"]), "'link.npz' of split 'train' is 'b.npz'"),
    "no trajectory": (splits(train=["a.npz", "notes.txt"]), "'notes.txt', which is no data file"),
    "itself": (splits(train=["manifest.json"]), "'manifest.json', which is no data file"),
    "of another split": (splits(train=["a.npz"], test=["gone.npz"]), "'test' lists 'gone.npz'"),
    "outside": (splits(train=["../a.npz"]), "lists '../a.npz', which is no data file"),
    "absolute": (splits(train=["/etc/passwd"]), "lists '/etc/passwd', which is no data file"),
    "folder": (splits(train=["."]), "lists '.', which is no data file"),
    "null": (splits(train=["a\0.npz"]), r"lists 'a\\x00.npz', which is no data file"),
    "surrogate": (splits(train=["\udcff[/x]"]), r"lists '\\udcff\[/x\]', which is no data file"),
    "no name": (splits(train=[""]), "lists '', which is no data file"),
    "empty": (splits(train=[], test=["a.npz"]), "'train' lists no files; found test"),
    "missing": (splits(val=["a.npz"]), "'train' lists no files; found val"),
    "no splits": ("{}", "Add the splits"),
    "empty splits": ('{"splits": {}}', "'train' lists no files; found none"),
    "numbers": ('{"splits": {"train": [1]}}', "Add the splits"),
    "nested": ('{"splits": {"train": [["a.npz"]]}}', "Add the splits"),
    "layer_normed": ('{"splits": {"train": ["a.npz"]}, "layer_normed": 1}', "layer_normed is 1"),
    "two keys": ('{"splits": {"train": ["a.npz"], "train": []}}', "the key 'train' stands twice"),
    "deep": ('{"splits": ' + "[" * 1000 + "]" * 1000 + "}", "deep"),
    "digits": ('{"splits": {}, "n": ' + "1" * 5000 + "}", "an integer of 5000 digits"),
    "too large": ('{"splits": {}, "n": 1e400}', "not a finite number"),
    "latin": ('{"splits": {"train": ["\xff"]}}'.encode("latin1"), "utf-8"),
}


@pytest.mark.parametrize(("text", "message"), MANIFESTS.values(), ids=MANIFESTS)
def test_odd_manifests(tmp_path, text, message, capsys):
    files(tmp_path)
    (tmp_path / "manifest.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message) as caught:
        open_trajectories(tmp_path, SPEC)
    assert f"{tmp_path}/manifest.json: " in str(caught.value)
    str(caught.value).encode("utf-8")


def test_files_in_no_split_are_said_once(tmp_path, caplog):
    files(tmp_path)
    (tmp_path / "manifest.json").write_text(splits(train=["a.npz"], validation=["b.npz"]))
    for split in ("train", "validation", "train"):
        assert len(open_trajectories(tmp_path, SPEC, split)) == 9
    (said,) = caplog.messages
    assert "3 files are in no split and left out, 'c.npz' first" in said


def test_a_pair_may_be_listed_by_both_names_but_in_one_split(tmp_path):
    for i in range(2):
        np.save(tmp_path / f"x_traj_0000{i}_emb.npy", EMBEDDINGS[i])
        np.save(tmp_path / f"x_traj_0000{i}_act.npy", ACTIONS[i])
    first = ["x_traj_00000_emb.npy", "x_traj_00000_act.npy"]
    (tmp_path / "manifest.json").write_text(splits(train=first, test=["x_traj_00001_act.npy"]))
    assert len(open_trajectories(tmp_path, SPEC)) == 3
    assert len(open_trajectories(tmp_path, SPEC, "test")) == 3
    (tmp_path / "manifest.json").write_text(splits(train=first[:1], test=first[1:]))
    with pytest.raises(DataError, match="again"):
        open_trajectories(tmp_path, SPEC)


@pytest.mark.parametrize("kind", ["pairs", "npz", "h5"])
def test_reading_lazily_does_not_grow_with_the_data(tmp_path, kind):
    peaks = []
    for num in (4, 40):
        folder = tmp_path / str(num)
        folder.mkdir()
        for i in range(num):
            embeddings, actions = np.ones((8, 64, 64), "f4"), np.zeros((7, 5, 3), "f4")
            if kind == "pairs":
                np.save(folder / f"x_traj_{i:05d}_emb.npy", embeddings)
                np.save(folder / f"x_traj_{i:05d}_act.npy", actions)
            elif kind == "npz":
                np.savez(folder / f"{i}.npz", embeddings=embeddings, actions=actions)
            else:
                with h5py.File(folder / f"{i}.h5", "w") as file:
                    file["embeddings"], file["actions"] = embeddings[None], actions[None]
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        data = open_trajectories(folder, SPEC)
        for first in range(0, len(data), 4):
            data.gather(range(first, first + 4))
        peaks.append(tracemalloc.get_traced_memory()[1] - before)
    assert max(peaks) < 2**20  # of 5 MiB
    assert zipfile.is_zipfile(folder / "0.npz") == (kind == "npz")
