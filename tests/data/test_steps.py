"""Every type and layout of a file gives the numbers that its library reads, and holds nothing."""

from pathlib import Path

import h5py
import ml_dtypes
import numpy as np
import pytest
import torch
from builders.training import any_press

from vj2_ddim_plugin.errors import DataError
from vj2_ddim_training.data.convert import convert_trajectories
from vj2_ddim_training.data.gesture_files import read_flat_actions
from vj2_ddim_training.data.hdf5 import Hdf5Array, hdf5_type
from vj2_ddim_training.data.trajectories import open_trajectories

SPEC = any_press(5)
RNG = np.random.default_rng(0)
EMBEDDINGS = RNG.standard_normal((5, 4, 3, 8)).astype(np.float32)
ACTIONS = RNG.random((5, 3, 5, 3)).astype(np.float32)
HALVES = EMBEDDINGS.astype(ml_dtypes.bfloat16)
BITS = HALVES.view(np.uint16)


def h5(embeddings, attribute=None, file_settings=None, **layout):
    def write(folder):
        with h5py.File(folder / "a.h5", "w", **(file_settings or {})) as file:
            data = file.create_dataset("embeddings", data=embeddings, **layout)
            if attribute:
                data.attrs["dtype"] = attribute
            file["actions"] = ACTIONS

    return write


def h5_float_of_16_bits(folder):
    marked = Hdf5Array(Path(), "", (), np.dtype("f4"), True, None, False)
    with h5py.File(folder / "a.h5", "w") as file:
        data = file.create_dataset("embeddings", HALVES.shape, hdf5_type(marked))
        data[...] = HALVES.astype(np.float32)
        assert data.id.get_storage_size() == 2 * HALVES.size
        file["actions"] = ACTIONS


def h5_float_of_16_bits_compressed(folder):
    marked = Hdf5Array(Path(), "", (), np.dtype("f4"), True, None, False)
    with h5py.File(folder / "a.h5", "w") as file:
        how = {"chunks": (2, 2, 3, 8), "compression": "gzip"}
        file.create_dataset("embeddings", HALVES.shape, hdf5_type(marked), **how)
        file["embeddings"][...] = HALVES.astype(np.float32)
        file["actions"] = ACTIONS


def npz(save, embeddings):
    return lambda folder: save(folder / "a.npz", embeddings=embeddings, actions=ACTIONS)


def pairs(embeddings):
    def write(folder):
        for i, (emb, act) in enumerate(zip(embeddings, ACTIONS, strict=True)):
            np.save(folder / f"r_traj_{i:05d}_emb.npy", emb)
            np.save(folder / f"r_traj_{i:05d}_act.npy", act)

    return write


FLOAT16 = EMBEDDINGS.astype(np.float16)
FILES = {
    "float16 pairs": (pairs(FLOAT16), FLOAT16),
    "big-endian float16 pairs": (pairs(FLOAT16.astype(">f2")), FLOAT16),
    "bfloat16 pairs": (pairs(HALVES), HALVES),
    "fortran pairs": (pairs([np.asfortranarray(each) for each in EMBEDDINGS]), EMBEDDINGS),
    "float64 npz": (npz(np.savez, EMBEDDINGS.astype(np.float64)), EMBEDDINGS),
    "bfloat16 npz": (npz(np.savez, HALVES), HALVES),
    "bfloat16 compressed npz": (npz(np.savez_compressed, HALVES), HALVES),
    "h5": (h5(EMBEDDINGS), EMBEDDINGS),
    "h5, big-endian": (h5(EMBEDDINGS.astype(">f4")), EMBEDDINGS),
    "h5, steps": (h5(FLOAT16, chunks=(1, 1, 3, 8)), FLOAT16),
    "h5, trajectories": (h5(EMBEDDINGS, chunks=(1, 4, 3, 8)), EMBEDDINGS),
    "h5, uneven chunks": (h5(FLOAT16, chunks=(2, 3, 3, 8)), FLOAT16),
    "h5, torn tokens": (h5(EMBEDDINGS, chunks=(1, 2, 2, 8)), EMBEDDINGS),
    "h5, gzip": (h5(EMBEDDINGS, chunks=(1, 4, 3, 8), compression="gzip"), EMBEDDINGS),
    "h5, user block": (h5(EMBEDDINGS, file_settings={"userblock_size": 512}), EMBEDDINGS),
    "h5, bfloat16 of HDF5": (h5_float_of_16_bits, HALVES),
    "h5, the same, gzip": (h5_float_of_16_bits_compressed, HALVES),
    "h5, opaque": (h5(BITS.view("V2"), "bfloat16"), HALVES),
    "h5, integers": (h5(BITS, "bfloat16", chunks=(1, 4, 3, 8)), HALVES),
    "h5, integers, gzip": (h5(BITS, "bfloat16", compression="gzip"), HALVES),
}


@pytest.mark.parametrize(("write", "stored"), FILES.values(), ids=FILES)
def test_every_type_and_layout(tmp_path, write, stored):
    write(tmp_path)
    expected = np.stack([np.asarray(each) for each in stored]).astype(np.float32)
    data = open_trajectories(tmp_path, any_press(5, horizon=2))
    order = RNG.permutation(len(data))
    z_t, z_goal, actions = data.gather(order)
    np.testing.assert_array_equal(z_t, expected[:, :2].reshape(-1, 3, 8)[order])
    np.testing.assert_array_equal(z_goal, expected[:, 2:].reshape(-1, 3, 8)[order])
    i, t = np.divmod(order, 2)
    both = np.concatenate([ACTIONS[i, t], ACTIONS[i, t + 1]], axis=1)
    np.testing.assert_array_equal(actions, both)
    np.testing.assert_array_equal(data.gather_actions(order), both)
    whole = np.concatenate([part for _, part in data.parts("embeddings")])
    np.testing.assert_array_equal(whole.reshape(expected.shape), expected)
    for to in ("pairs", "npz", "h5"):
        convert_trajectories(tmp_path, tmp_path / to / "out", to)
        again = open_trajectories(tmp_path / to / "out", any_press(5, horizon=2))
        np.testing.assert_array_equal(again.gather(order)[0], z_t)
        both = data.files[0].embeddings, again.files[0].embeddings
        assert len({array.bfloat16 for array in both}) == 1


def test_two_bytes_that_do_not_say_what_they_are(tmp_path):
    for write in (pairs(BITS.view("V2")), h5(BITS.view("V2")), h5(BITS)):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        write(folder)
        with pytest.raises(DataError, match="two bytes count as bfloat16 only where the file says"):
            open_trajectories(folder, SPEC)


def test_gestures_in_bfloat16(tmp_path):
    np.save(tmp_path / "a_actions.npy", ACTIONS.reshape(-1, 3).astype(ml_dtypes.bfloat16))
    expected = ACTIONS.astype(ml_dtypes.bfloat16).astype(np.float32).reshape(-1, 5, 3)
    np.testing.assert_array_equal(read_flat_actions(tmp_path, SPEC).actions, expected)


def test_evenly_spread_parts(tmp_path):
    pairs(EMBEDDINGS)(tmp_path)
    data = open_trajectories(tmp_path, SPEC)
    for most, step in ((100, 1), (20, 1), (19, 2), (7, 3), (1, 20)):
        found = np.concatenate([part for _, part in data.parts("embeddings", most)])
        np.testing.assert_array_equal(found, EMBEDDINGS.reshape(-1, 3, 8)[::step])


@pytest.mark.parametrize(
    ("how", "name"), [("fork", "float16 pairs"), ("fork", "h5, gzip"), ("spawn", "h5, gzip")]
)
def test_the_workers_of_a_loader_read_the_same(tmp_path, how, name):
    FILES[name][0](tmp_path)
    data = open_trajectories(tmp_path, SPEC)
    expected = data.gather(range(len(data)))  # its files are open when it is forked
    loader = torch.utils.data.DataLoader(
        Rows(data), num_workers=2 if how == "fork" else 1, multiprocessing_context=how
    )
    for row, found in enumerate(loader):
        for array, of in zip(expected, found, strict=True):
            np.testing.assert_array_equal(of[0], array[row])


class Rows:
    """A data set for torch."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, row):
        return [array[0] for array in self.data.gather([row])]


@pytest.mark.parametrize("kind", ["pairs", "h5"])
def test_what_was_read_does_not_stay_in_memory(tmp_path, kind):
    """64 MiB of numbers: none of it is mapped, and of what is allocated a batch is the most."""
    embeddings, actions = np.zeros((16, 16, 64, 1024), np.float32), np.zeros((16, 15, 5, 3), "f4")
    if kind == "h5":
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file.create_dataset("embeddings", data=embeddings, chunks=(1, 1, 64, 1024))
            file["actions"] = actions
    else:
        for i in range(16):
            np.save(tmp_path / f"r_traj_{i:05d}_emb.npy", embeddings[i])
            np.save(tmp_path / f"r_traj_{i:05d}_act.npy", actions[i])
    del embeddings
    data = open_trajectories(tmp_path, SPEC)
    data.gather(range(8))
    before = resident()
    for first in range(0, len(data), 8):
        data.gather(range(first, first + 8))
    assert resident() - before < 20 * 2**20


def resident():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return 4096 * pages
