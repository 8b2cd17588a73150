import json
import pickle

import h5py
import numpy as np
import pytest

from vj2_ddim_plugin.errors import ConfigError, DataError
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.data.trajectories import open_trajectories, write_trajectories_h5

SPEC = ActionSpec(action_block=5, min_press_steps=2, max_press_steps=None)
NUM, STEPS, TOKENS, WIDTH = 6, 4, 3, 2


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((NUM, STEPS, TOKENS, WIDTH)).astype(np.float32)
    actions = rng.random((NUM, STEPS - 1, 5, 3), dtype=np.float32)
    return embeddings, actions


def write_pairs(folder, embeddings, actions):
    for i, (emb, act) in enumerate(zip(embeddings, actions, strict=True)):
        np.save(folder / f"phone_traj_{i:05d}_emb.npy", emb)
        np.save(folder / f"phone_traj_{i:05d}_act.npy", act)


def write_npz(folder, embeddings, actions):
    for i, (emb, act) in enumerate(zip(embeddings, actions, strict=True)):
        np.savez(folder / f"{i:03d}.npz", embeddings=emb, actions=act)


def write_stacked_npz(folder, embeddings, actions):
    np.savez_compressed(folder / "a.npz", embeddings=embeddings[:2], actions=actions[:2])
    np.savez_compressed(folder / "b.npz", embeddings=embeddings[2:], actions=actions[2:])


def write_h5(folder, embeddings, actions):
    write_trajectories_h5(
        folder,
        embeddings,
        actions,
        {"train": range(len(embeddings))},
        layer_normed=False,
        trajectories_per_file=4,
    )


WRITERS = [write_pairs, write_npz, write_stacked_npz, write_h5]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("flattened", [False, True])
def test_every_format_gives_the_same_transitions(tmp_path, arrays, write, flattened):
    embeddings, actions = arrays
    write(tmp_path, embeddings, actions.reshape(NUM, STEPS - 1, 15) if flattened else actions)
    data = open_trajectories(tmp_path, SPEC)
    assert len(data) == NUM * (STEPS - 1)
    assert data.embedding_shape == (TOKENS, WIDTH)
    order = np.random.default_rng(1).permutation(len(data))
    z_t, z_next, chosen = data.gather(order)
    np.testing.assert_array_equal(z_t, embeddings[:, :-1].reshape(-1, TOKENS, WIDTH)[order])
    np.testing.assert_array_equal(z_next, embeddings[:, 1:].reshape(-1, TOKENS, WIDTH)[order])
    np.testing.assert_array_equal(chosen, actions.reshape(-1, 5, 3)[order])
    assert {array.dtype for array in (z_t, z_next, chosen)} == {np.dtype(np.float32)}


def test_longer_horizons_take_later_goals_and_more_blocks(tmp_path, arrays):
    embeddings, actions = arrays
    write_h5(tmp_path, embeddings, actions)
    spec = ActionSpec(action_block=5, horizon=2, min_press_steps=2, max_press_steps=None)
    data = open_trajectories(tmp_path, spec)
    assert len(data) == NUM * (STEPS - 2)
    z_t, z_next, chosen = data.gather([3, 3])  # trajectory 1, from step 1
    np.testing.assert_array_equal(z_t, embeddings[[1, 1], 1])
    np.testing.assert_array_equal(z_next, embeddings[[1, 1], 3])
    np.testing.assert_array_equal(chosen[0], actions[1, 1:3].reshape(10, 3))
    long = ActionSpec(action_block=5, horizon=4, min_press_steps=2, max_press_steps=None)
    with pytest.raises(DataError, match="4 steps are too few for a horizon of 4"):
        open_trajectories(tmp_path, long)


def test_farther_goals_beside_the_nearest_ones(tmp_path, arrays, caplog):
    """Of 4 states: 3 nearest goals, listed twice since there are two distances, and 2 farther."""
    embeddings, actions = arrays
    write_h5(tmp_path, embeddings, actions)
    open_trajectories(tmp_path, SPEC, longest_goal=3)
    assert not caplog.records
    open_trajectories(tmp_path, SPEC, longest_goal=4)
    assert "longest_goal=4, but no trajectory has more than 3 later states" in caplog.text
    data = open_trajectories(tmp_path, SPEC, longest_goal=2)
    assert len(data) == NUM * 8
    z_t, z_goal, chosen = data.gather(np.arange(8, 16))  # all of trajectory 1
    pairs = [(0, 1), (0, 1), (0, 2), (1, 2), (1, 2), (1, 3), (2, 3), (2, 3)]
    for row, (start, goal) in enumerate(pairs):
        np.testing.assert_array_equal(z_t[row], embeddings[1, start])
        np.testing.assert_array_equal(z_goal[row], embeddings[1, goal])
        np.testing.assert_array_equal(chosen[row], actions[1, start])  # always the first action


def test_trajectories_of_different_lengths(tmp_path, arrays):
    embeddings, actions = arrays
    write_pairs(tmp_path, embeddings[:1], actions[:1])
    np.save(tmp_path / "phone_traj_00001_emb.npy", embeddings[1, :2])
    np.save(tmp_path / "phone_traj_00001_act.npy", actions[1, :1])
    data = open_trajectories(tmp_path, SPEC)
    assert len(data) == (STEPS - 1) + 1
    np.testing.assert_array_equal(data.gather([3])[1][0], embeddings[1, 1])


def test_half_precision_embeddings_become_float32(tmp_path, arrays):
    embeddings, actions = arrays
    write_h5(tmp_path, embeddings.astype(np.float16), actions)
    z_t, _, _ = open_trajectories(tmp_path, SPEC).gather([0])
    np.testing.assert_array_equal(z_t[0], embeddings[0, 0].astype(np.float16))
    assert z_t.dtype == np.float32


def test_splits_are_kept_apart(tmp_path, arrays):
    embeddings, actions = arrays
    splits = {"train": [5, 0, 2], "validation": [1], "test": []}
    write_trajectories_h5(tmp_path / "d", embeddings, actions, splits, layer_normed=True)
    data = open_trajectories(tmp_path / "d", SPEC, "train")
    np.testing.assert_array_equal(data.gather([0])[0][0], embeddings[5, 0])
    assert len(data) == 9
    validation = open_trajectories(tmp_path / "d", SPEC, "validation")
    np.testing.assert_array_equal(validation.gather([2])[1][0], embeddings[1, 3])
    assert data.layer_normed is True
    assert data.data_fingerprint != validation.data_fingerprint
    assert len(open_trajectories(tmp_path / "d", SPEC, None)) == 12
    with pytest.raises(DataError, match="'test' lists no files"):
        open_trajectories(tmp_path / "d", SPEC, "test")
    with pytest.raises(DataError, match="'val' lists no files; found train, validation"):
        open_trajectories(tmp_path / "d", SPEC, "val")


def test_a_manifest_can_split_pairs(tmp_path, arrays):
    write_pairs(tmp_path, *arrays)
    names = [f"phone_traj_{i:05d}_emb.npy" for i in range(NUM)]
    manifest = {"splits": {"train": names[:4], "test": names[4:]}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    data = open_trajectories(tmp_path, SPEC, "test")
    np.testing.assert_array_equal(data.gather([0])[0][0], arrays[0][4, 0])
    assert len(data) == 6
    assert data.layer_normed is None


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("split", ["train", "validation", "test", None])
def test_a_folder_without_a_manifest_is_whole_what_it_is_given_for(tmp_path, arrays, write, split):
    write(tmp_path, *arrays)
    (tmp_path / "manifest.json").unlink(missing_ok=True)
    assert len(open_trajectories(tmp_path, SPEC, split)) == 18


@pytest.mark.parametrize("write", WRITERS)
def test_pickling_keeps_the_data(tmp_path, arrays, write):
    write(tmp_path, *arrays)
    data = open_trajectories(tmp_path, SPEC)
    data.gather([0])
    again = pickle.loads(pickle.dumps(data))
    for one, other in zip(data.gather([4, 17]), again.gather([4, 17]), strict=True):
        np.testing.assert_array_equal(one, other)


def test_indices_out_of_range(tmp_path, arrays):
    write_npz(tmp_path, *arrays)
    data = open_trajectories(tmp_path, SPEC)
    for index in (-1, 18):
        with pytest.raises(DataError, match=f"transition {index} does not exist: there are 18"):
            data.gather([0, index])
    assert [len(array) for array in data.gather([])] == [0, 0, 0]


def test_empty_missing_and_mixed_folders(tmp_path, arrays):
    with pytest.raises(DataError, match="no such folder"):
        open_trajectories(tmp_path / "nowhere", SPEC)
    with pytest.raises(DataError, match="no trajectories"):
        open_trajectories(tmp_path, SPEC)
    write_npz(tmp_path, *arrays)
    write_pairs(tmp_path, *arrays)
    with pytest.raises(DataError, match="found pairs and npz"):
        open_trajectories(tmp_path, SPEC)


def test_embeddings_without_actions(tmp_path, arrays):
    write_pairs(tmp_path, *arrays)
    (tmp_path / "phone_traj_00003_act.npy").unlink()
    with pytest.raises(DataError, match=r"phone_traj_00003_act.npy: no such file"):
        open_trajectories(tmp_path, SPEC)


@pytest.mark.parametrize(
    ("embeddings", "actions", "message"),
    [
        (np.zeros((4, 3, 2)), np.zeros((4, 5, 3)), r"actions have shape \(1, 4, 5, 3\)"),
        (np.zeros((4, 3, 2)), np.zeros((3, 5, 2)), r"expected \(1, 3, 5, 3\)"),
        (np.zeros((4, 3, 2)), np.zeros((3, 14)), r"actions have shape \(1, 3, 14\)"),
        (np.zeros((4, 6)), np.zeros((3, 5, 3)), r"expected \[n, T, N, D\]"),
        (np.zeros((4, 3, 2), np.int32), np.zeros((3, 5, 3)), "embeddings have dtype int32"),
        (np.zeros((4, 3, 2)), np.zeros((3, 5, 3), bool), "actions have dtype bool"),
        (np.zeros((1, 3, 2)), np.zeros((0, 5, 3)), "1 steps are too few"),
        (np.zeros((4, 3, 3)), np.zeros((3, 5, 3)), r"\(3, 3\) \(N, D\), but \(3, 2\)"),
    ],
)
def test_wrong_shapes_and_types(tmp_path, arrays, embeddings, actions, message):
    write_npz(tmp_path, arrays[0][:1], arrays[1][:1])
    np.savez(tmp_path / "bad.npz", embeddings=embeddings, actions=actions)
    with pytest.raises(DataError, match=message) as caught:
        open_trajectories(tmp_path, SPEC)
    assert "bad.npz" in str(caught.value)


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    ("array", "value", "message"),
    [
        (0, np.nan, "embedding values are NaN or infinite"),
        (1, np.inf, "action values are NaN or infinite"),
        (1, 7.0, "out of bounds"),
    ],
)
def test_bad_numbers_are_found_when_read(tmp_path, arrays, write, array, value, message):
    arrays[array][4, 1, 0, 0] = value
    write(tmp_path, *arrays)
    data = open_trajectories(tmp_path, SPEC)
    data.gather(range(12))
    with pytest.raises(DataError, match=message) as caught:
        data.gather([13])
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_truncated_files_are_named(tmp_path, arrays, write, keep):
    write(tmp_path, *arrays)
    file = sorted(path for path in tmp_path.iterdir() if path.suffix != ".json")[0]
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(DataError) as caught:
        open_trajectories(tmp_path, SPEC).gather(range(18))
    assert file.name in str(caught.value)


def test_archives_that_lack_an_array(tmp_path, arrays):
    np.savez(tmp_path / "bad.npz", embeddings=arrays[0][0])
    with pytest.raises(
        DataError, match=r"bad.npz is not a readable .npz file \('actions' is missing, found emb"
    ):
        open_trajectories(tmp_path, SPEC)
    (tmp_path / "bad.npz").unlink()
    with h5py.File(tmp_path / "bad.h5", "w") as file:
        file["actions"] = arrays[1]
    with pytest.raises(
        DataError, match=r"bad.h5 is not a readable .h5 file \('embeddings' is missing, found act"
    ):
        open_trajectories(tmp_path, SPEC, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "expected a JSON object"),
        ('{"splits": ["a.h5"]}', "Add the splits"),
        ('{"splits": {"train": "a.h5"}}', "Add the splits"),
        (
            '{"splits": {"train": ["gone.h5"]}}',
            "split 'train' lists 'gone.h5', which is no data file in",
        ),
        ('{"splits": {"train": ["../x.h5"]}}', "lists '../x.h5', which is no data"),
        ('{"splits": {"train": ["manifest.json"]}}', "lists 'manifest.json', which is no data"),
    ],
)
def test_broken_manifests(tmp_path, arrays, text, message):
    write_h5(tmp_path, *arrays)
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        open_trajectories(tmp_path, SPEC)
    assert "manifest.json" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"splits": {"val": [0]}}, r"unknown splits \['val'\]"),
        ({"splits": {"train": [6]}}, "names trajectory 6; there are 6"),
        ({"splits": {"train": [-1]}}, "names trajectory -1"),
        ({"splits": {"train": [0, 1], "test": [1]}}, "trajectory 1 is named twice"),
        ({"actions": np.zeros((6, 4, 5, 3))}, "do not go together"),
        ({"embeddings": np.zeros((6, 4, 3))}, "do not go together"),
        ({"embeddings": np.zeros((6, 4, 3, 2), int)}, "embeddings have dtype int64"),
        ({"trajectories_per_file": 0}, "found 0"),
        (
            {"lengths": [2] * 5},
            r"lengths must be 6 integers of 2 to 4.*shape \(5,\)",
        ),
        ({"lengths": [1, 2, 2, 2, 2, 2]}, "found int64 of shape .*, 1 to 2"),
    ],
)
def test_writing_what_cannot_be_read_is_refused(tmp_path, arrays, changes, message):
    settings = {"embeddings": arrays[0], "actions": arrays[1], "splits": {"train": [0]}}
    with pytest.raises(DataError, match=message):
        write_trajectories_h5(tmp_path / "out", **(settings | changes), layer_normed=False)
    assert not list(tmp_path.iterdir())


def test_trajectories_of_several_lengths_are_read_as_long_as_they_are(tmp_path, arrays):
    embeddings, actions = arrays
    lengths = [4, 2, 3, 4, 2, 3]
    splits = {"train": [0, 1, 2, 4, 5]}
    write_trajectories_h5(
        tmp_path / "d", embeddings, actions, splits, lengths=lengths, layer_normed=False
    )
    data = open_trajectories(tmp_path / "d", SPEC)
    expected = [(row, step) for row in (0, 2, 5, 1, 4) for step in range(lengths[row] - 1)]
    states, goals, blocks = data.gather(range(len(data)))
    assert len(data) == len(expected)
    for number, (row, step) in enumerate(expected):
        np.testing.assert_allclose(states[number], embeddings[row, step], rtol=1e-3)
        np.testing.assert_allclose(goals[number], embeddings[row, step + 1], rtol=1e-3)
        np.testing.assert_allclose(blocks[number].ravel(), actions[row, step].ravel(), rtol=1e-3)


def test_overwriting_needs_to_be_asked_for(tmp_path, arrays):
    write_h5(tmp_path, *arrays)
    with pytest.raises(ConfigError, match="not empty"):
        write_h5(tmp_path, *arrays)
    embeddings, actions = arrays
    write_trajectories_h5(
        tmp_path, embeddings, actions, {"train": [0]}, layer_normed=False, overwrite=True
    )
    assert len(open_trajectories(tmp_path, SPEC)) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json", "train_00000.h5"]
