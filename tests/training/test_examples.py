"""What the data say about the spec, and the examples made of them."""

import logging

import numpy as np
import pytest
from builders.training import LENGTH, NO_TOUCH, any_press, make_gestures, make_spec, write_data
from hypothesis import given, settings
from hypothesis import strategies as st

from vj2_ddim_plugin.errors import ActionError, DataError
from vj2_ddim_plugin.gestures import decode, encode
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.data.trajectories import write_trajectories_h5
from vj2_ddim_training.examples import GestureExamples, open_examples
from vj2_ddim_training.survey import infer_action_spec

TEMPLATE = any_press(LENGTH, 0, path_knots=None, representation="raw")


def gesture(points, start=4):
    """One sequence that presses at these points, one a step."""
    sequence = np.zeros((LENGTH, 3), np.float32)
    sequence[start : start + len(points), :2] = points
    sequence[start : start + len(points), 2] = 1.0
    return sequence


def polyline(corners, steps):
    """A path through the corners, evenly spaced in time."""
    at = np.linspace(0, len(corners) - 1, steps)
    columns = [np.interp(at, range(len(corners)), column) for column in np.transpose(corners)]
    return np.stack(columns, axis=1)


STRAIGHT = gesture(polyline([(0.1, 0.2), (0.8, 0.9)], 8))
TAP = gesture([(0.3, 0.4)] * 5, start=0)
BENT = gesture(polyline([(0.1, 0.2), (0.8, 0.3), (0.5, 0.9)], 9))
CURVE = gesture([(0.5 + 0.4 * np.cos(t), 0.5 + 0.4 * np.sin(t)) for t in np.linspace(0, 5, 12)])
TWICE = TAP + gesture([(0.6, 0.6)] * 5, start=10)
NEVER = np.zeros((LENGTH, 3), np.float32)


@pytest.mark.parametrize(
    ("gestures", "representation", "knots", "press"),
    [
        ([STRAIGHT, TAP], "path", 2, (5, 8)),
        ([TAP], "path", 2, (5, 5)),
        ([STRAIGHT, BENT], "path", 3, (8, 9)),
        ([CURVE, TAP], "held", None, (5, 12)),
        ([STRAIGHT, NEVER], "held", None, (0, 8)),
        ([STRAIGHT, TWICE], "raw", None, (5, 8)),
        ([NEVER], "held", None, (0, 1)),
    ],
)
def test_the_best_representation_that_inverts_is_found(gestures, representation, knots, press):
    actions = np.stack(gestures)
    spec = infer_action_spec(actions, "auto", TEMPLATE)
    assert (spec.representation, spec.path_knots) == (representation, knots)
    assert (spec.min_press_steps, spec.max_press_steps) == press
    np.testing.assert_allclose(decode(encode(actions, spec), spec), actions, atol=1e-5)


def test_a_press_of_two_steps_cannot_bend():
    spec = infer_action_spec(np.stack([gesture([(0.1, 0.1), (0.2, 0.2)]), BENT]), "auto", TEMPLATE)
    assert spec.representation == "held"


def test_everything_else_comes_from_the_template():
    template = ActionSpec(**{**TEMPLATE.to_dict(), "rate_hz": 60.0, "normalized": False})
    spec = infer_action_spec(STRAIGHT[None], "auto", template)
    assert (spec.rate_hz, spec.normalized, spec.action_block) == (60.0, False, LENGTH)


@pytest.mark.parametrize("representation", ["raw", "held", "path"])
def test_a_named_representation_is_kept_where_it_holds(representation):
    spec = infer_action_spec(STRAIGHT[None], representation, TEMPLATE)
    assert spec.representation == representation
    assert spec.path_knots == 2  # so that projection can straighten what was sampled


CANNOT = [("path", [CURVE]), ("path", [STRAIGHT, TWICE]), ("path", [STRAIGHT, NEVER])]


@pytest.mark.parametrize(("representation", "gestures"), [*CANNOT, ("held", [STRAIGHT, TWICE])])
def test_a_named_representation_that_cannot_hold_is_an_error(representation, gestures):
    with pytest.raises(ActionError, match=f"'{representation}' cannot hold these.*representation"):
        infer_action_spec(np.stack(gestures), representation, TEMPLATE)


def test_coordinates_kept_where_released_are_not_thrown_away():
    """`held` zeroes them on the way out: only `raw` inverts such data."""
    hovering = STRAIGHT.copy()
    hovering[:4, :2] = 0.7
    spec = infer_action_spec(hovering[None], "auto", TEMPLATE)
    assert spec.representation == "raw"
    with pytest.raises(ActionError, match="'held' cannot hold"):
        infer_action_spec(hovering[None], "held", TEMPLATE)


def test_unknown_representation():
    with pytest.raises(ActionError, match="'spline' is unknown"):
        infer_action_spec(STRAIGHT[None], "spline", TEMPLATE)


def test_actions_without_a_press_channel_stay_raw():
    template = ActionSpec(2, representation="raw", **NO_TOUCH)
    spec = infer_action_spec(np.zeros((3, 2, 1), np.float32), "auto", template)
    assert (spec.representation, spec.path_knots) == ("raw", None)


def test_blocks_of_a_longer_horizon_are_gestures_each():
    template = ActionSpec(**{**TEMPLATE.to_dict(), "horizon": 2})
    actions = np.concatenate([STRAIGHT, TAP])[None]
    spec = infer_action_spec(actions, "auto", template)
    assert (spec.representation, spec.min_press_steps, spec.max_press_steps) == ("path", 5, 8)
    np.testing.assert_allclose(decode(encode(actions, spec), spec), actions, atol=1e-5)


@given(seed=st.integers(0, 2**16), kind=st.sampled_from(["click", "swipe", "mixed"]))
@settings(max_examples=20, deadline=None)
def test_generated_gestures_are_straight_paths_that_invert(seed, kind):
    actions = make_gestures(6, seed=seed, kind=kind)
    spec = infer_action_spec(actions, "auto", TEMPLATE)
    assert (spec.representation, spec.path_knots) == ("path", 2)
    np.testing.assert_allclose(decode(encode(actions, spec), spec), actions, atol=1e-5)


class TestGestureExamples:
    def test_rows_belong_together(self):
        spec, actions = make_spec("held"), make_gestures(9)
        examples = GestureExamples(actions, spec, "sketch", "x")
        assert len(examples) == 9
        assert examples.input_shapes == {"sketch": (6,)}
        batch = examples.batch(np.array([7, 2]))
        np.testing.assert_array_equal(batch.actions, actions[[7, 2]])
        np.testing.assert_allclose(batch.original, encode(actions[[7, 2]], spec))
        pressed = actions[7, :, 2] > 0
        first, last = np.flatnonzero(pressed)[[0, -1]]
        expected = [*actions[7, first, :2], *actions[7, last, :2], first / 20, (last + 1) / 20]
        np.testing.assert_allclose(batch.inputs["sketch"][0], expected, atol=1e-6)

    def test_unconditional_has_no_inputs(self):
        examples = GestureExamples(make_gestures(3), make_spec(), "none", "x")
        assert examples.input_shapes == {}
        assert examples.batch(np.array([0])).inputs == {}


class TestOpenExamples:
    def test_a_tail_is_said_to_be_left_out(self, tmp_path, caplog):
        write_data(tmp_path / "data")
        rows = np.concatenate([make_gestures(2).reshape(-1, 3), np.zeros((10, 3), np.float32)])
        np.save(tmp_path / "data" / "tail_actions.npy", rows)
        with caplog.at_level(logging.WARNING):
            examples = open_examples(tmp_path / "data", make_spec(), "sketch")
        assert len(examples) == 14
        (record,) = caplog.records
        assert (
            "tail_actions.npy: the last 10 rows are less than one sequence of 20"
            in record.msg % (record.args)
        )

    def test_data_that_do_not_fit_name_the_folder(self, tmp_path):
        (tmp_path / "data").mkdir()
        np.save(tmp_path / "data" / "a_actions.npy", TWICE)
        with pytest.raises(DataError, match=r"data: .*exactly one press segment"):
            open_examples(tmp_path / "data", make_spec(), "none")
        np.save(tmp_path / "data" / "a_actions.npy", NEVER)
        with pytest.raises(DataError, match=r"data: a sketch describes a press"):
            open_examples(tmp_path / "data", make_spec("held"), "sketch")

    def test_transitions_pair_state_goal_and_the_action_between(self, tmp_path):
        embeddings = np.random.default_rng(0).random((3, 4, 2, 5), np.float32)
        actions = make_gestures(9).reshape(3, 3, LENGTH, 3)
        splits = {"train": range(2), "validation": range(2, 3)}
        write_trajectories_h5(tmp_path / "t", embeddings, actions, splits, layer_normed=False)
        examples = open_examples(tmp_path / "t", make_spec(), "latents", "train")
        assert len(examples) == 6
        assert examples.input_shapes == {"state": (2, 5), "goal": (2, 5)}
        batch = examples.batch(np.arange(6))
        for row in range(6):
            state, goal = batch.inputs["state"][row], batch.inputs["goal"][row]
            ((i, t),) = np.argwhere(embeddings[:, :, 0, 0] == state[0, 0])
            np.testing.assert_array_equal(state, embeddings[i, t])
            np.testing.assert_array_equal(goal, embeddings[i, t + 1])
            np.testing.assert_array_equal(batch.actions[row], actions[i, t])
            np.testing.assert_allclose(
                batch.original[row], encode(actions[i, t], make_spec()), atol=1e-6
            )
        held_out = open_examples(tmp_path / "t", make_spec(), "latents", "validation")
        assert len(held_out) == 3
        assert held_out.data_fingerprint != examples.data_fingerprint

    def test_transitions_too_many_for_memory_are_read_when_asked(self, tmp_path, monkeypatch):
        embeddings = np.random.default_rng(0).random((2, 3, 2, 5), np.float32)
        actions = make_gestures(4).reshape(2, 2, LENGTH, 3)
        write_trajectories_h5(
            tmp_path / "t", embeddings, actions, {"train": range(2)}, layer_normed=False
        )
        kept = open_examples(tmp_path / "t", make_spec(), "latents").batch(np.array([3, 0]))
        monkeypatch.setattr("vj2_ddim_training.examples.MOST_BYTES_IN_MEMORY", 0)
        read = open_examples(tmp_path / "t", make_spec(), "latents").batch(np.array([3, 0]))
        np.testing.assert_array_equal(kept.original, read.original)
        np.testing.assert_array_equal(kept.inputs["goal"], read.inputs["goal"])
