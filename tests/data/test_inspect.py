import json

import numpy as np
import pytest
from builders.training import any_press, press

from vj2_ddim_plugin.cli.pictures import save_figure
from vj2_ddim_plugin.errors import DataError
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.data.generate import generate_gestures
from vj2_ddim_training.data.inspect import describe_data, plot_description
from vj2_ddim_training.data.tallies import ActionTally

SPEC = any_press(min_press_steps=1, representation="raw")


def save(folder, name, *actions):
    np.save(folder / name, np.concatenate(actions))


def test_good_data_by_hand(tmp_path):
    save(tmp_path, "a_actions.npy", press(0, 4, (0.5, 0.5), (0.5, 0.5)))
    others = press(2, 8, (0.25, 0.5), (0.75, 0.5)), press(1, 3, (0.1, 0.2), (0.1, 0.9))
    save(tmp_path, "b_actions.npy", *others)
    description = describe_data(tmp_path, SPEC)
    assert (description.facts["num_files"], description.facts["num_sequences"]) == (2, 3)
    assert description.faults == []
    types = {"click": 1, "horizontal": 1, "vertical": 1, "diagonal": 0, "none": 0}
    assert description.facts["gesture_types"] == types
    durations = description.facts["durations"]
    assert (durations["shortest"], durations["median"], durations["longest"]) == (2, 4, 6)
    assert durations["mean"] == 4
    assert sum(durations["counts"]) == 3
    assert description.facts["channel_ranges"]["x"] == (0.0, 0.75)
    assert description.facts["channel_ranges"]["y"] == (0.0, pytest.approx(0.9))
    assert description.facts["valid_share"] == 1.0
    assert description.actions.shape == (3, 10, 3)
    assert "actions" not in description.to_dict()


def changed(row, column, value):
    actions = press(2, 8, (0.2, 0.2), (0.8, 0.8))
    actions[row, column] = value
    return actions


CROOKED = changed(4, 0, press(2, 8, (0.2, 0.2), (0.8, 0.8))[4, 0] + 0.1)


def find_faults(actions, spec):
    tally = ActionTally(spec)
    tally.add(actions)
    return tally.faults_of_file()


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (changed(3, 0, np.nan), "NaN or infinite"),
        (changed(3, 1, np.inf), "NaN or infinite"),
        (changed(7, 1, 1.2), "leave the bounds of channel 'y'"),
        (changed(0, 0, -0.2), "leave the bounds of channel 'x'"),
        (changed(0, 0, 0.2), "coordinates other than 0 where released"),
        (changed(7, 2, 0.9), "a press other than 0 and 1"),
        (changed(4, slice(None), 0.0), "several press segments"),
        (np.zeros((10, 3), np.float32), "a block without a press"),
        (CROOKED, "a path that is not straight"),
    ],
)
def test_each_trouble_is_found(actions, message):
    good = press(0, 5, (0.1, 0.1), (0.9, 0.3))
    faults = find_faults(np.stack([good, actions, good + 0]), SPEC)
    (found,) = [fault for fault in faults if message in fault]
    assert found.startswith("1 of 3 sequences")
    assert found.endswith("(the first is number 1)")
    assert find_faults(good[None], SPEC) == []


def test_repeats_within_and_across_files(tmp_path):
    one, two = press(0, 5, (0.1, 0.1), (0.9, 0.3)), press(0, 5, (0.1, 0.1), (0.3, 0.9))
    save(tmp_path, "a_actions.npy", one, two, one)
    save(tmp_path, "b_actions.npy", two)
    assert describe_data(tmp_path, SPEC).faults == [
        "a_actions.npy: 1 of 3 sequences repeat an earlier one (the first is number 2)",
        "1 sequences are in more than one file",
    ]


def test_broken_files_are_listed_and_the_others_described(tmp_path):
    good = press(0, 5, (0.1, 0.1), (0.9, 0.3))
    save(tmp_path, "a_actions.npy", good, CROOKED[:4])
    save(tmp_path, "b_actions.npy", good)
    content = (tmp_path / "b_actions.npy").read_bytes()
    (tmp_path / "b_actions.npy").write_bytes(content[:-8])
    np.save(tmp_path / "c_actions.npy", np.zeros((20, 4), np.float32))
    save(tmp_path, "d_actions.npy", changed(3, 0, np.nan))
    description = describe_data(tmp_path, SPEC)
    assert (description.facts["num_files"], description.facts["num_sequences"]) == (4, 2)
    said = {"a": "last 4 rows", "b": "truncated", "c": "(20, 4)", "d": "NaN"}
    for (name, message), fault in zip(said.items(), description.faults, strict=True):
        assert fault.startswith(f"{name}_actions.npy")
        assert message in fault
    assert description.facts["valid_share"] == 0.5


def test_only_broken_files(tmp_path):
    np.save(tmp_path / "a_actions.npy", np.zeros((20, 4), np.float32))
    description = describe_data(tmp_path, SPEC)
    assert description.facts["num_sequences"] == 0
    assert description.facts["durations"] == description.facts["channel_ranges"] == {}
    assert len(description.faults) == 1
    save_figure(plot_description(description, SPEC), tmp_path / "picture.png")
    with pytest.raises(DataError, match="no such file"):
        describe_data(tmp_path / "nowhere", SPEC)


def test_no_warnings_for_nothing_but_nan(tmp_path):
    np.save(tmp_path / "a_actions.npy", np.full((10, 3), np.nan, np.float32))
    description = describe_data(tmp_path, SPEC)
    assert description.facts["channel_ranges"] == {}
    assert "NaN" in description.faults[0]


def test_every_block_of_a_longer_horizon_is_checked():
    spec = any_press(min_press_steps=1, horizon=2, representation="raw")
    good = press(0, 5, (0.1, 0.1), (0.9, 0.3))
    actions = np.stack([np.concatenate([good, good]), np.concatenate([good, CROOKED])])
    (fault,) = find_faults(actions, spec)
    assert "1 of 2 sequences have a path that is not straight" in fault


def test_actions_that_are_not_touches(tmp_path):
    spec = ActionSpec(action_block=10, press_channel=None, representation="raw")
    actions = np.random.default_rng(0).random((20, 3)).astype(np.float32)
    np.save(tmp_path / "a_actions.npy", actions)
    description = describe_data(tmp_path, spec)
    assert description.faults == []
    assert description.facts["durations"] == description.facts["gesture_types"] == {}
    save_figure(plot_description(description, spec), tmp_path / "picture.png")


def test_picture_shows_the_data(tmp_path):
    spec = ActionSpec()
    actions = generate_gestures(30, rng=np.random.default_rng(0))
    np.save(tmp_path / "a_actions.npy", actions.reshape(-1, 3))
    figure = plot_description(describe_data(tmp_path, spec), spec)
    paths, durations, types, timeline = figure.axes
    assert len(paths.lines) == 60  # a path and a dot for each gesture
    assert sum(bar.get_height() for bar in durations.patches) == 30
    assert sum(bar.get_height() for bar in types.patches) == 30
    np.testing.assert_array_equal(timeline.images[0].get_array(), actions[..., 2])


def write_trajectories(folder, kind="npz", num=6):
    """Files of two trajectories of four states of nine tokens, layer-normed."""
    rng = np.random.default_rng(0)
    for i in range(num):
        z = rng.standard_normal((2, 4, 9, 64))
        z = (z - z.mean(-1, keepdims=True)) / z.std(-1, keepdims=True)
        blocks = np.stack([press(2, 8, (0.2, 0.2), (0.8, 0.8))] * 6).reshape(2, 3, 10, 3)
        if kind == "npz":
            np.savez(folder / f"{i}.npz", embeddings=z.astype(np.float16), actions=blocks)
        else:
            np.save(folder / f"r{i}_traj_00000_emb.npy", z[0].astype(np.float32))
            np.save(folder / f"r{i}_traj_00000_act.npy", blocks[0].reshape(3, 30))
    return folder


@pytest.mark.parametrize("kind", ["npz", "pairs"])
def test_trajectories_by_hand(tmp_path, kind):
    write_trajectories(tmp_path, kind)
    name = "{}.npz" if kind == "npz" else "r{}_traj_00000_emb.npy"
    splits = {"train": [name.format(i) for i in range(4)], "test": [name.format(4)]}
    manifest = {"splits": splits, "layer_normed": True}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    found = describe_data(tmp_path, SPEC)
    assert not found.faults
    several = 2 if kind == "npz" else 1
    assert (found.facts["format"], found.facts["num_files"], found.facts["num_trajectories"]) == (
        kind,
        6,
        6 * several,
    )
    assert found.facts["num_transitions"] == found.facts["num_sequences"] == 18 * several
    assert found.facts["shapes"] == {"[4, 9, 64]": 6}
    stored = "float16" if kind == "npz" else "float32"
    assert found.facts["types"] == {f"embeddings {stored}": 6, "actions float32": 6}
    assert found.facts["gesture_types"]["diagonal"] == 18 * several
    assert found.facts["embeddings"]["looks_normed"]
    assert found.facts["embeddings"]["token_std"] == pytest.approx(1.0, abs=1e-3)
    assert found.facts["embeddings"]["num_states"] == 24 * several
    assert found.facts["splits"]["train"] == {
        "num_files": 4, "num_trajectories": 4 * several, "num_transitions": 12 * several,
    }  # fmt: skip
    assert any("1 files are in no split" in note for note in found.notes)
    assert found.norms.shape == (8 if kind == "npz" else 4, 9)
    figure = plot_description(found, SPEC)
    heat = figure.axes[4].images[0].get_array()
    np.testing.assert_allclose(heat, 8.0, atol=0.1)  # sqrt(64)
    one = describe_data(tmp_path / name.format(2), SPEC)
    assert (one.facts["num_files"], one.facts["num_transitions"]) == (1, 3 * several)


def test_what_is_wrong_with_trajectories_is_said_by_file(tmp_path):
    write_trajectories(tmp_path)
    arrays = dict(np.load(tmp_path / "1.npz"))
    arrays["embeddings"][1, 2, 3, 4] = np.inf
    arrays["actions"][0, 1, 4, 0] = 1.5
    np.savez_compressed(tmp_path / "1.npz", **arrays)
    (tmp_path / "2.npz").write_bytes((tmp_path / "2.npz").read_bytes()[:-50])
    np.savez(
        tmp_path / "3.npz", embeddings=arrays["embeddings"][..., :8], actions=arrays["actions"]
    )
    manifest = {"splits": {"train": ["0.npz", "gone.npz"]}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    found = describe_data(tmp_path, SPEC)
    for said in (
        "1.npz: 1 of 8 states hold NaN or infinite values",
        "1.npz: 1 of 6 sequences leave the bounds of channel 'x' (the first is number 1)",
        "2.npz is not a readable .npz file",
        "3.npz: embeddings are [9, 8] (N, D), most are [9, 64]",
        "lists 'gone.npz', which is no data file",
    ):
        assert any(said in fault for fault in found.faults), said
    assert any("1.npz: is compressed" in note for note in found.notes)
    assert not any("repeat" in fault for fault in found.faults)  # no fault of a recording


@pytest.mark.parametrize("recorded", [True, False, None])
@pytest.mark.parametrize("normed", [True, False])
def test_layer_norm_that_is_recorded_is_held_against_the_numbers(tmp_path, recorded, normed):
    write_trajectories(tmp_path, num=1)
    if not normed:
        arrays = dict(np.load(tmp_path / "0.npz"))
        np.savez(tmp_path / "0.npz", embeddings=3 * arrays["embeddings"], actions=arrays["actions"])
    manifest = {"splits": {"train": ["0.npz"]}, "layer_normed": recorded}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    found = describe_data(tmp_path, SPEC)
    assert found.facts["embeddings"]["looks_normed"] is normed
    assert bool(found.faults) is (recorded is not None and recorded != normed)
    assert bool(found.notes and "nothing records" in found.notes[-1]) is (recorded is None)
