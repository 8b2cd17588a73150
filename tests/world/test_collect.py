"""Collected data: what the screens did, balanced, and kept whole in files."""

import h5py
import numpy as np
import pytest
from builders.world import VALID

from vj2_ddim_benchmark.world import collect
from vj2_ddim_benchmark.world.collect import Transitions, collect_transitions, load_transitions
from vj2_ddim_benchmark.world.policies import mixed_policy
from vj2_ddim_benchmark.world.widgets import KINDS, SLOT_KINDS, WIDGETS
from vj2_ddim_plugin.errors import ConfigError, DataError
from vj2_ddim_plugin.gestures import is_valid


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
    assert is_valid(data.actions.reshape(-1, 250, 3), VALID).all()


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


@pytest.mark.parametrize(("share", "least", "most"), [(1.0, 0.6, 0.75), (0.0, 0.03, 0.3)])
def test_scripted_gestures_mostly_change_something_and_random_ones_sometimes(share, least, most):
    data = collect_transitions(500, horizon=2, split="train", seed=1, scripted_share=share, size=32)
    assert least <= (data.states[:, 1:] != data.states[:, :-1]).any(axis=-1).mean() <= most


def test_progress_adds_up_and_settings_are_checked():
    told = []
    asked = {"num_trajectories": 5, "horizon": 4, "split": "test", "seed": 0}
    collect_transitions(**asked, size=32, progress=lambda *call: told.append(call))
    assert told == [("collect", done, 20) for done in (5, 10, 15, 20)]
    wrong = {"scripted_share": 1.5, "horizon": 0, "num_trajectories": 0, "seed": -1}
    for name, value in wrong.items():
        with pytest.raises(ConfigError, match=name):
            collect_transitions(**asked | {name: value})


@pytest.fixture(scope="module")
def data():
    return collect_transitions(6, horizon=2, split="validation", seed=0, size=32)


def test_a_file_gives_back_what_was_saved(tmp_path, data):
    path = tmp_path / "data.h5"
    collect.save_transitions(path, data, {"seed": 0, "split": "validation"})
    loaded = load_transitions(path)
    for name in ("frames", "actions", "states"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(data, name))
        assert getattr(loaded, name).dtype == getattr(data, name).dtype
    with h5py.File(path) as file:
        assert file.attrs["split"] == "validation"
        assert sorted(file) == ["actions", "frames", "states"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["data.h5"]


def test_broken_files_are_named_and_arrays_that_do_not_belong_together_refused(tmp_path, data):
    path = tmp_path / "data.h5"
    with pytest.raises(DataError, match=r"data\.h5: no such file"):
        load_transitions(path)
    with pytest.raises(DataError, match="frames of shape"):
        Transitions(data.frames, data.actions[:, 1:], data.states)
    collect.save_transitions(path, data)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:100], b"", b"not HDF5 at all"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"data\.h5: not a whole HDF5 file"):
            load_transitions(path)


@pytest.mark.parametrize(
    ("removed", "added", "message"),
    [
        ("format", None, "found format None"),
        ("states", None, "states"),
        ("actions", "group", "data.h5"),
        ("actions", [1.0], "actions must have 4 dimensions"),
        ("actions", np.zeros((6, 3, 250, 3)), r"data\.h5: frames of shape"),
    ],
)
def test_files_of_something_else_are_named(tmp_path, data, removed, added, message):
    path = tmp_path / "data.h5"
    collect.save_transitions(path, data)
    with h5py.File(path, "a") as file:
        del (file.attrs if removed == "format" else file)[removed]
        if isinstance(added, str):
            file.create_group(removed)
        elif added is not None:
            file.create_dataset(removed, data=added)
    with pytest.raises(DataError, match=message):
        load_transitions(path)
