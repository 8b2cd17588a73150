"""Problems and collected data: reachable, balanced, reproducible, and kept whole."""

import h5py
import numpy as np
import pytest

from vj2_ddim_benchmark.world import collect
from vj2_ddim_benchmark.world.collect import (
    Transitions,
    collect_transitions,
    load_transitions,
    save_transitions,
)
from vj2_ddim_benchmark.world.layouts import SPLITS
from vj2_ddim_benchmark.world.policies import mixed_policy
from vj2_ddim_benchmark.world.problems import one_gesture_problems
from vj2_ddim_benchmark.world.widgets import KINDS, MULTIMODAL_KINDS, SLOT_KINDS, WIDGETS
from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import ConfigError, DataError

VALID = ActionSpec(max_press_steps=200, path_knots=3)  # long presses and bends included


@pytest.mark.parametrize("split", SPLITS)
def test_one_gesture_reaches_every_goal(split):
    problems = one_gesture_problems(301, split=split, seed=2)
    assert len(problems) == problems.start.num_screens == 301
    assert problems.start.execute(problems.actions).matches(problems.goal.state).all()
    np.testing.assert_array_equal(problems.start.state_distance(problems.goal.state), 1)
    changed = problems.start.state != problems.goal.state
    assert (changed.sum(axis=1) == 1).all()
    kinds = np.array(KINDS)[SLOT_KINDS[changed.argmax(axis=1)]]
    np.testing.assert_array_equal(kinds, problems.kind)
    several = np.isin(problems.kind, MULTIMODAL_KINDS)
    assert several.sum() == 100
    for group in (several, ~several):
        assert np.ptp(np.unique(problems.kind[group], return_counts=True)[1]) <= 1
    assert set(KINDS) - set(problems.kind) == {"panel"}
    assert VALID.is_valid(problems.actions).all()


def test_multimodal_problems_are_in_no_order():
    several = np.isin(one_gesture_problems(90, split="train", seed=0).kind, MULTIMODAL_KINDS)
    assert several.sum() == 30
    assert not several[2::3].all()


def test_problems_are_named_by_their_seed_and_use_a_screen_once():
    one, same = (one_gesture_problems(40, split="test", seed=7) for _ in range(2))
    np.testing.assert_array_equal(one.actions, same.actions)
    np.testing.assert_array_equal(one.goal.render(), same.goal.render())
    boxes = one.start.layout.boxes.reshape(40, -1)
    assert len(np.unique(boxes, axis=0)) == 40
    with pytest.raises(ConfigError, match="num"):
        one_gesture_problems(0, split="test", seed=7)


def test_trajectories_are_what_the_screens_did(monkeypatch):
    touched = []

    def policy(screens, *args):
        touched.append(screens)
        return mixed_policy(screens, *args)

    monkeypatch.setattr(collect, "mixed_policy", policy)
    data = collect_transitions(40, horizon=3, split="train", seed=3)
    assert len(touched) == 3
    for step, screens in enumerate(touched):
        np.testing.assert_array_equal(data.frames[:, step], screens.render())
        np.testing.assert_array_equal(data.states[:, step], screens.state)
        after = screens.execute(data.actions[:, step])
        np.testing.assert_array_equal(data.states[:, step + 1], after.state)
    np.testing.assert_array_equal(data.frames[:, 3], after.render())
    again = collect_transitions(40, horizon=3, split="train", seed=3)
    np.testing.assert_array_equal(again.actions, data.actions)
    assert VALID.is_valid(data.actions.reshape(-1, 250, 3)).all()


def test_no_kind_of_widget_is_much_rarer_than_another():
    data = collect_transitions(
        440, horizon=2, split="train", seed=3, scripted_share=1.0, near_miss_share=0.0
    )
    changes = (data.states[:, 1:] != data.states[:, :-1]).sum(axis=(0, 1))
    by_kind = np.array([changes[kind == SLOT_KINDS].sum() for kind in range(len(KINDS))])
    active = np.array([widget.active for widget in WIDGETS])
    share = by_kind[active] / by_kind.sum()
    assert by_kind.sum() == 880  # every gesture changes one widget
    assert share.min() > 0.5 / active.sum()
    assert share.max() < 2.0 / active.sum()


def test_scripted_gestures_mostly_change_something_and_random_ones_sometimes():
    def changed(share):
        data = collect_transitions(
            500, horizon=2, split="train", seed=1, scripted_share=share, size=32
        )
        return (data.states[:, 1:] != data.states[:, :-1]).any(axis=-1).mean()

    assert 0.6 <= changed(1.0) <= 0.75
    assert 0.03 <= changed(0.0) <= 0.3


def test_progress_adds_up_and_settings_are_checked():
    done = []
    collect_transitions(5, horizon=4, split="test", seed=0, size=32, progress=done.append)
    assert sum(done) == 20
    with pytest.raises(ConfigError, match="scripted_share"):
        collect_transitions(5, horizon=4, split="test", seed=0, scripted_share=1.5)
    with pytest.raises(ConfigError, match="horizon"):
        collect_transitions(5, horizon=0, split="test", seed=0)


@pytest.fixture(scope="module")
def data():
    return collect_transitions(6, horizon=2, split="validation", seed=0, size=32)


def test_a_file_gives_back_what_was_saved(tmp_path, data):
    path = tmp_path / "data.h5"
    save_transitions(path, data, {"seed": 0, "split": "validation"})
    loaded = load_transitions(path)
    for name in ("frames", "actions", "states"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(data, name))
        assert getattr(loaded, name).dtype == getattr(data, name).dtype
    with h5py.File(path) as file:
        assert file.attrs["split"] == "validation"
        assert sorted(file) == ["actions", "frames", "states"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["data.h5"]


def test_broken_files_are_named(tmp_path, data):
    path = tmp_path / "data.h5"
    with pytest.raises(DataError, match=r"data\.h5: no such file"):
        load_transitions(path)
    save_transitions(path, data)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:100], b"", b"not HDF5 at all"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"data\.h5: not a whole HDF5 file"):
            load_transitions(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.attrs.__delitem__("format"), "found format None"),
        (lambda file: file.__delitem__("states"), "states"),
        (lambda file: (file.__delitem__("actions"), file.create_group("actions")), "data.h5"),
        (
            lambda file: (file.__delitem__("actions"), file.create_dataset("actions", data=[1.0])),
            "actions must have 4 dimensions",
        ),
        (
            lambda file: (
                file.__delitem__("actions"),
                file.create_dataset("actions", data=np.zeros((6, 3, 250, 3))),
            ),
            r"data\.h5: frames of shape",
        ),
    ],
)
def test_files_of_something_else_are_named(tmp_path, data, change, message):
    path = tmp_path / "data.h5"
    save_transitions(path, data)
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(DataError, match=message):
        load_transitions(path)


def test_arrays_that_do_not_belong_together_are_refused(data):
    with pytest.raises(DataError, match="frames of shape"):
        Transitions(data.frames, data.actions[:, 1:], data.states)
