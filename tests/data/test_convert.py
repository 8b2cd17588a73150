import json
import logging
import os

import h5py
import numpy as np
import pytest
from builders.training import any_press, vj2_ddim

from vj2_ddim_plugin import files
from vj2_ddim_plugin.errors import ConfigError, DataError
from vj2_ddim_training.data import hdf5, trajectories
from vj2_ddim_training.data.convert import convert_trajectories
from vj2_ddim_training.data.trajectories import open_trajectories, write_trajectories_h5

SPEC = any_press(5)
RNG = np.random.default_rng(0)
EMBEDDINGS = RNG.standard_normal((7, 4, 3, 2)).astype(np.float16)
ACTIONS = RNG.random((7, 3, 15)).astype(np.float32)
SPLITS = {"train": [4, 0, 2], "validation": [1, 6], "test": []}


def write(folder, kind):
    """The same trajectories with the same splits, where the format has them, and their order."""
    if kind == "h5":
        write_trajectories_h5(
            folder, EMBEDDINGS, ACTIONS, SPLITS, layer_normed=True, trajectories_per_file=2
        )
        return folder
    folder.mkdir()
    names = {split: [f"{split}.npz"] for split, members in SPLITS.items() if members}
    for split, members in SPLITS.items():
        arrays = {"embeddings": EMBEDDINGS[members], "actions": ACTIONS[members]}
        if kind == "pairs" and members:
            names[split] = [f"{split}_traj_{i:05d}_emb.npy" for i in range(len(members))]
            for i, member in enumerate(members):
                np.save(folder / names[split][i], EMBEDDINGS[member])
                np.save(folder / names[split][i].replace("emb", "act"), ACTIONS[member])
        elif members:
            save = np.savez if kind == "npz" else np.savez_compressed
            save(folder / f"{split}.npz", **arrays)
    (folder / "manifest.json").write_text(json.dumps({"splits": names, "layer_normed": True}))
    return folder


@pytest.mark.parametrize("kind", ["pairs", "npz", "compressed", "h5"])
@pytest.mark.parametrize("to", ["pairs", "npz", "h5"])
def test_nothing_changes_but_the_format(tmp_path, kind, to, capsys):
    source, out = write(tmp_path / "source", kind), tmp_path / "out"
    assert vj2_ddim("data", "convert", source, "--output-dir", out, "--to", to) == 0
    assert f"5 trajectories as {to}" in capsys.readouterr().out
    for split in ("train", "validation", None):
        before, after = (open_trajectories(folder, SPEC, split) for folder in (source, out))
        assert len(before) == len(after) == 3 * len(SPLITS.get(split, [0] * 5))
        assert after.layer_normed is True
        both = (data.gather(range(len(data))) for data in (before, after))
        for one, other in zip(*both, strict=True):
            np.testing.assert_array_equal(one, other)
    assert open_trajectories(out, SPEC, None).files[0].embeddings.dtype == np.float16


def test_a_folder_without_a_manifest_stays_one(tmp_path):
    source = write(tmp_path / "source", "compressed")
    (source / "manifest.json").unlink()
    np.savez(source / "one.npz", embeddings=EMBEDDINGS[0], actions=ACTIONS[0])
    assert convert_trajectories(source, tmp_path / "out", "h5") == 6
    assert len(open_trajectories(tmp_path / "out", SPEC, "validation")) == 18
    assert not (tmp_path / "out/manifest.json").exists()
    assert h5py.File(tmp_path / "out/one.h5")["embeddings"].chunks == (1, 1, 3, 2)


def test_what_is_not_converted(tmp_path, monkeypatch):
    source = write(tmp_path / "source", "npz")
    with pytest.raises(ConfigError, match="'zarr' is unknown; use one of pairs, npz, h5"):
        convert_trajectories(source, tmp_path / "out", "zarr")
    with pytest.raises(ConfigError, match="is the source itself"):
        convert_trajectories(source, tmp_path / "out/../source", overwrite=True)
    with pytest.raises(DataError, match="no such folder"):
        convert_trajectories(tmp_path / "gone", tmp_path / "out")
    convert_trajectories(source, tmp_path / "out")
    with pytest.raises(ConfigError, match="not empty"):
        convert_trajectories(source, tmp_path / "out")
    before = sorted(path.name for path in (tmp_path / "out").iterdir())
    content = bytearray((source / "train.npz").read_bytes())
    content[300] ^= 255
    (source / "train.npz").write_bytes(content)
    with pytest.raises(DataError, match="is not a readable"):
        convert_trajectories(source, tmp_path / "out", "npz", overwrite=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_many_files_are_read_once_or_it_is_said(tmp_path, monkeypatch, caplog):
    opened = []
    real = trajectories.StoredArray.open
    monkeypatch.setattr(
        trajectories.StoredArray, "open", lambda self: opened.append(self.path) or real(self)
    )
    for kind in (np.savez, np.savez_compressed):
        folder = tmp_path / kind.__name__
        folder.mkdir()
        for i in range(100):
            kind(folder / f"{i:03d}.npz", embeddings=EMBEDDINGS[i % 7], actions=ACTIONS[i % 7])
    one = tmp_path / "savez_compressed"
    data = open_trajectories(one, SPEC)
    for _ in range(3):
        data.gather(range(0, len(data), 3))
    assert len(opened) == 200  # all are held, there is room for their bytes
    assert not caplog.messages
    held = EMBEDDINGS[0].nbytes + ACTIONS[0].nbytes
    monkeypatch.setattr(trajectories, "MAX_BYTES_HELD", 10 * held)
    data = open_trajectories(one, SPEC)
    with caplog.at_level(logging.WARNING):
        data.gather(range(0, len(data), 3))
        assert not caplog.messages
        assert len(data._open._open) == 10
        data.gather(range(0, len(data), 3))
    (said,) = caplog.messages
    assert "`vj2-ddim data convert`" in said
    assert "000.npz" in said
    caplog.clear()
    monkeypatch.setattr(trajectories, "MAX_BYTES_HELD", 2**30)
    convert_trajectories(one, tmp_path / "pairs")
    for folder in (tmp_path / "savez", tmp_path / "pairs"):  # mapped: no more is read than asked
        data = open_trajectories(folder, SPEC)
        for _ in range(3):
            data.gather(range(0, len(data), 3))
        assert len(data._open._open) <= 128
    assert not caplog.messages


def test_where_steps_lie_is_asked_once_while_a_file_stays_as_it_is(tmp_path, monkeypatch):
    how = {"layer_normed": True, "trajectories_per_file": 4}
    write_trajectories_h5(tmp_path / "h5", EMBEDDINGS, ACTIONS, {"train": range(7)}, **how)
    asked, real = [], hdf5.Hdf5Array.layout
    monkeypatch.setattr(
        hdf5.Hdf5Array, "layout", lambda self: asked.append(self.path.name) or real(self)
    )
    monkeypatch.setattr(trajectories, "MAX_OPEN_FILES", 1)
    data = open_trajectories(tmp_path / "h5", SPEC)
    expected = [np.copy(part) for part in data.gather(range(len(data)))]
    asked.clear()
    for row in (0, len(data) - 1, 0, len(data) - 1):
        for found, part in zip(data.gather([row]), expected, strict=True):
            np.testing.assert_array_equal(found[0], part[row])
    assert not asked
    first = data.files[0].paths[0]
    os.utime(first, ns=(0, 0))
    data.gather([0])
    assert asked == [first.name] * 2  # its embeddings and its actions


def test_large_compressed_chunks_are_said(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("vj2_ddim_training.data.hdf5.SLOW_CHUNK_BYTES", 100)
    for chunks, slow in (((7, 4, 3, 2), True), ((1, 1, 3, 2), False)):
        folder = tmp_path / str(slow)
        folder.mkdir()
        with h5py.File(folder / "a.h5", "w") as file:
            file.create_dataset("embeddings", data=EMBEDDINGS, chunks=chunks, compression="gzip")
            file["actions"] = ACTIONS
        open_trajectories(folder, SPEC).gather([0, 1])
        assert ("data convert" in caplog.text) is slow
        caplog.clear()


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(28, "No space left on device")

    source = write(tmp_path / "source", "npz")
    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        convert_trajectories(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
