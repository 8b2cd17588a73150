"""Splits by the recording, what is left out as broken, and how both reach a run."""

import json
import os

import numpy as np
import pytest
import torch
from builders.training import any_press, make_gestures, vj2_ddim

from vj2_ddim_plugin.errors import ConfigError, DataError
from vj2_ddim_training.data import gesture_files
from vj2_ddim_training.data.convert import convert_trajectories
from vj2_ddim_training.data.gesture_files import fingerprint_files, read_flat_actions
from vj2_ddim_training.data.settings import ReadingSettings, SplitSettings
from vj2_ddim_training.data.split import split_data
from vj2_ddim_training.data.trajectories import open_trajectories
from vj2_ddim_training.examples import open_examples, require_same_norm

SPEC = any_press(20)
SKIP = ReadingSettings(skip_broken=True)
EMBEDDINGS = np.random.default_rng(0).standard_normal((40, 4, 4, 5)).astype(np.float32)
ACTIONS = make_gestures(120).reshape(40, 3, 20, 3)


def write_npz(folder, sizes):
    folder.mkdir(parents=True, exist_ok=True)
    for i, size in enumerate(sizes):
        np.savez(folder / f"{i:02d}.npz", embeddings=EMBEDDINGS[:size], actions=ACTIONS[:size])
    return folder


def write_pairs(folder, stems):
    folder.mkdir()
    for number, stem in enumerate(stems):
        np.save(folder / f"{stem}_traj_{number:05d}_emb.npy", EMBEDDINGS[number])
        np.save(folder / f"{stem}_traj_{number:05d}_act.npy", ACTIONS[number])
    return folder


def splits_of(folder, **settings):
    path, _ = split_data(folder, SplitSettings(**settings), overwrite=True)
    return json.loads(path.read_text())["splits"]


def test_shares_of_files_of_any_size(tmp_path):
    folder = write_npz(tmp_path / "d", [1, 30, 2, 5, 7, 11, 3, 1, 2, 25])
    before = splits_of(folder)
    assert splits_of(folder) == before != splits_of(folder, seed=1)
    names = [name for of in before.values() for name in of]
    assert sorted(names) == sorted(set(names)) == [f"{i:02d}.npz" for i in range(10)]
    size = {f.name: f.stat().st_size for f in folder.glob("*.npz")}
    shares = {s: sum(size[n] for n in of) / sum(size.values()) for s, of in before.items()}
    assert shares == pytest.approx({"train": 0.8, "validation": 0.1, "test": 0.1}, abs=0.05)
    counts = splits_of(folder, train=5.0, validation=2.0, test=1.0)
    assert [len(of) for of in counts.values()] == [5, 2, 1]
    assert splits_of(folder, train=0.5, validation=0.0, test=0.5)["validation"] == []


def test_a_recording_stays_in_one_split(tmp_path):
    folder = write_pairs(tmp_path / "d", ["a", "b", "c", "d", "e"] * 4)
    splits = splits_of(folder, train=0.6, validation=0.2, test=0.2)
    stems = {split: {name[0] for name in of} for split, of in splits.items()}
    assert sum(map(len, stems.values())) == 5
    assert sum(map(len, splits.values())) == 20
    one = write_pairs(tmp_path / "one", ["a"] * 10)
    with pytest.raises(DataError, match=r"found 1 recordings, expected at least 3 for test, train"):
        splits_of(one)
    assert [len(of) for of in splits_of(one, together="file").values()] == [8, 1, 1]
    assert len(open_trajectories(one, SPEC, "test")) == 3


def test_a_file_under_two_names_is_taken_once(tmp_path):
    folder = write_npz(tmp_path / "d", [3, 3, 3, 3])
    os.link(folder / "00.npz", folder / "hard.npz")
    (folder / "soft.npz").symlink_to("01.npz")
    names = [
        name
        for of in splits_of(folder, train=2.0, validation=1.0, test=1.0).values()
        for name in of
    ]
    assert len(names) == 4
    for split in ("train", "validation", "test"):
        open_trajectories(folder, SPEC, split)


def test_a_manifest_is_not_replaced_unasked_and_keeps_what_it_says_of_layer_norm(tmp_path, capsys):
    folder = write_npz(tmp_path / "d", [2] * 5)
    assert vj2_ddim("data", "split", folder, "--layer-normed") == 0
    assert vj2_ddim("data", "split", folder) == 1
    assert "is there already; pass --overwrite" in capsys.readouterr().err
    assert vj2_ddim("data", "split", folder, "--overwrite", "--seed", 3) == 0
    assert open_trajectories(folder, SPEC).layer_normed is True
    other = tmp_path / "other.json"
    assert vj2_ddim("data", "split", folder, "--manifest", other, "--not-layer-normed") == 0
    assert (
        open_trajectories(folder, SPEC, "test", ReadingSettings(manifest=other)).layer_normed
        is False
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": 0.9, "validation": 0.2}, "at most 1; found 1.2"),
        ({"train": 0.0, "validation": 0.0, "test": 0.0}, "more than 0"),
        ({"train": 3.0, "validation": 0.5}, "all be counts; found 3, 0.5, 0.1"),
    ],
)
def test_shares_that_make_no_sense(settings, message):
    with pytest.raises(ConfigError, match=message):
        SplitSettings(**settings)


def test_gesture_files_have_splits_too(tmp_path):
    for i in range(4):
        np.save(tmp_path / f"{i}_actions.npy", make_gestures(3, seed=i).reshape(-1, 3))
    splits = splits_of(tmp_path, train=2.0, validation=1.0, test=1.0)
    (name,) = splits["validation"]
    held_out = open_examples(tmp_path, SPEC, "none", "validation")
    np.testing.assert_array_equal(held_out.actions, make_gestures(3, seed=int(name[0])))
    assert len(read_flat_actions(tmp_path, SPEC).actions) == 12
    with pytest.raises(DataError, match="no such file"):
        open_examples(tmp_path, SPEC, "none", reading=ReadingSettings(manifest=tmp_path / "gone"))


def break_some(folder):
    """Three of twenty: cut short, of another shape, NaN in the last state."""
    content = (folder / "03.npz").read_bytes()
    (folder / "03.npz").write_bytes(content[:-100])
    np.savez(folder / "07.npz", embeddings=EMBEDDINGS[:1, :, :2], actions=ACTIONS[:1])
    bad = EMBEDDINGS[:1].copy()
    bad[0, -1, -1, -1] = np.nan
    np.savez(folder / "11.npz", embeddings=bad, actions=ACTIONS[:1])
    return folder


def test_broken_files_are_named_and_left_out_only_if_asked(tmp_path, caplog):
    folder = break_some(write_npz(tmp_path / "d", [1] * 20))
    with pytest.raises(DataError, match=r"03.npz is not.*left out with skip_broken=True, and `vj2"):
        open_examples(folder, SPEC, "latents", reading=ReadingSettings())
    examples = open_examples(folder, SPEC, "latents", reading=SKIP)
    assert len(examples) == 17 * 3
    assert set(examples.skipped) == {"03.npz", "07.npz", "11.npz"}
    for name, why in (("03", "not a readable"), ("07", "(N, D)"), ("11", "NaN")):
        assert why in examples.skipped[f"{name}.npz"]
    assert "THIS IS MUCH OF THE DATA: 3 of 20 files are broken" in caplog.text
    examples.batch(np.arange(51))
    assert convert_trajectories(folder, tmp_path / "out", "h5", reading=SKIP) == 18  # of any shape
    for i in range(12, 20):
        (folder / f"{i}.npz").write_bytes(b"")
    with pytest.raises(DataError, match="11 of 20 files are broken, more than half"):
        open_trajectories(folder, SPEC, None, SKIP)


def test_the_way_out_is_named_to_those_alone_whom_it_helps(tmp_path):
    folder, told = write_npz(tmp_path / "d", [1] * 20), {"reading": ReadingSettings()}
    broken = break_some(write_npz(tmp_path / "broken", [1] * 20))
    (folder / "manifest.json").write_text('{"splits": {"train": ["00.npz"]}}')
    for where, how in (
        (tmp_path / "none", told),  # no file is broken
        (folder, {**told, "split": "test"}),
        (broken, {}),  # nobody was asked
        (tmp_path / "none", {"reading": SKIP}),  # it was taken already
    ):
        with pytest.raises(DataError) as caught:
            open_examples(where, SPEC, "latents", **how)
        assert "skip_broken" not in str(caught.value)


def test_broken_gesture_files(tmp_path, caplog):
    for i in range(30):
        np.save(tmp_path / f"{i:02d}_actions.npy", make_gestures(2, seed=i).reshape(-1, 3))
    np.save(tmp_path / "05_actions.npy", np.full((20, 3), np.nan, np.float32))
    with pytest.raises(DataError, match=r"05_actions.npy.*skip_broken=True"):
        open_examples(tmp_path, SPEC, "none", reading=ReadingSettings())
    examples = open_examples(tmp_path, SPEC, "none", reading=SKIP)
    assert (len(examples), list(examples.skipped)) == (58, ["05_actions.npy"])
    assert "1 of 30 files are broken and left out" in caplog.text
    assert "MUCH" not in caplog.text


def test_a_run_keeps_what_it_left_out_and_resumes_with_its_manifest(tmp_path):
    folder = break_some(write_npz(tmp_path / "d", [1] * 20))
    manifest, run = tmp_path / "my.json", tmp_path / "run"
    sound = [f"{i:02d}.npz" for i in range(20)]
    splits = {"train": sound[:14], "validation": sound[14:]}
    manifest.write_text(json.dumps({"splits": splits, "layer_normed": True}))
    told = ("--data-dir", folder, "--val-data-dir", folder, "--save-dir", run)
    told += ("--manifest", manifest, "--skip-broken", "--sequence-length", 20)
    small = ("--condition", "latents", "--d-model", 16, "--num-layers", 1, "--nhead", 2)
    small += ("--num-epochs", 1, "--num-validation", 2, "--wandb", "disabled")
    assert vj2_ddim("train", *told, *small) == 0
    expected = {"train": ["03.npz", "07.npz", "11.npz"], "validation": []}
    for kept in (
        json.loads((run / "run.json").read_text())["skipped_files"],
        torch.load(run / "checkpoint.pt")["training"]["skipped_files"],
    ):
        assert {split: sorted(of) for split, of in kept.items()} == expected
    assert json.loads((run / "run.json").read_text())["data"]["manifest"] == str(manifest)
    assert vj2_ddim("train", "--resume", "--save-dir", run, "--num-epochs", 2) == 0
    assert vj2_ddim("evaluate", run / "checkpoint.pt", folder, "--manifest", manifest) == 0
    manifest.write_text(json.dumps({"splits": splits, "layer_normed": False}))
    assert vj2_ddim("evaluate", run / "checkpoint.pt", folder, "--manifest", manifest) == 1


def test_latents_normed_otherwise_than_recorded_are_refused(tmp_path):
    folder = write_npz(tmp_path / "d", [2])
    examples = open_examples(folder, SPEC, "latents")
    require_same_norm(True, examples, "here")  # nobody recorded it
    examples.layer_normed = False
    require_same_norm(False, examples, "here")
    with pytest.raises(DataError, match="here: the manifest says layer_normed False, and of"):
        require_same_norm(True, examples, "here")


def test_the_fingerprint_of_large_files_sees_pieces_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr(gesture_files, "PIECE_BYTES", 4)
    file, content = tmp_path / "a", bytearray(range(256)) * 4
    file.write_bytes(content)
    first = fingerprint_files([file])
    pieces = [number * (len(content) - 4) // 63 for number in range(64)]
    for place in (0, 1023, pieces[20] + 2, pieces[40] + 6):  # the last is between two pieces
        changed = bytearray(content)
        changed[place] ^= 255
        file.write_bytes(changed)
        assert (fingerprint_files([file]) == first) == (place == pieces[40] + 6)
    file.write_bytes(content[:-1])
    assert fingerprint_files([file]) != first
