import math

import numpy as np
import pytest
from builders.training import any_press, press
from scipy.spatial.distance import cdist

from vj2_ddim_plugin.errors import ActionError
from vj2_ddim_plugin.gestures import project
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.data.generate import generate_gestures
from vj2_ddim_training.measures import coverage_and_density, generation_measures, memorisation_ratio

SPEC = ActionSpec()
SMALL = any_press()


def gestures(num, seed, **settings):
    return generate_gestures(num, rng=np.random.default_rng(seed), **settings)


def test_coverage_and_density_by_hand():
    reference = np.array([[0.0], [1.0], [3.0], [10.0]])
    # distances to the second nearest other point: 3, 2, 3, 9
    coverage, density = coverage_and_density(reference, np.array([[0.5], [12.0]]), 2)
    # 0.5 is inside the balls of 0, 1 and 3; 12 is inside the ball of 10
    assert coverage == 1.0
    assert density == (3 + 1) / (2 * 2)
    coverage, density = coverage_and_density(reference, np.array([[-2.5]]), 2)
    assert (coverage, density) == (0.25, 0.5)
    assert coverage_and_density(reference, np.array([[99.0]]), 2) == (0.0, 0.0)


def test_a_point_on_the_edge_of_a_ball_is_outside():
    reference = np.array([[0.0], [2.0]])
    assert coverage_and_density(reference, np.array([[-2.0]]), 1) == (0.0, 0.0)
    assert coverage_and_density(reference, np.array([[-1.9]]), 1) == (0.5, 1.0)


def test_coverage_and_density_against_all_pairs():
    rng = np.random.default_rng(0)
    reference, generated = rng.random((80, 6)), rng.random((60, 6)) * 0.8
    pairs = cdist(reference, reference)
    radii = np.sort(pairs, axis=1)[:, 5]
    inside = cdist(reference, generated) < radii[:, None]
    coverage, density = coverage_and_density(reference, generated)
    assert coverage == inside.any(axis=1).mean()
    assert density == pytest.approx(inside.sum() / (5 * 60))


def test_repeated_reference_points_hold_nothing():
    reference = np.array([[0.0], [0.0], [5.0]])
    # the balls of the two zeros have no extent; the ball of 5 ends at 0
    assert coverage_and_density(reference, np.array([[0.0]]), 1) == (0.0, 0.0)


def test_too_few_points_give_nan():
    assert all(map(math.isnan, coverage_and_density(np.zeros((1, 6)), np.zeros((3, 6)))))
    assert all(map(math.isnan, coverage_and_density(np.zeros((9, 6)), np.zeros((0, 6)))))
    assert math.isnan(memorisation_ratio(np.zeros((3, 6)), np.zeros((2, 6)), np.zeros((0, 6))))
    two = np.array([[0.0], [1.0]])  # k shrinks to 1
    assert coverage_and_density(two, np.array([[0.5]])) == (1.0, 2.0)


def test_memorisation_by_hand():
    training = np.array([[0.0], [10.0]])
    reference = np.array([[1.0], [8.0], [13.0]])  # nearest at 1, 2, 3
    generated = np.array([[0.5], [9.0], [20.0]])  # nearest at 0.5, 1, 10
    assert memorisation_ratio(training, reference, generated) == pytest.approx(1 / 2)
    assert memorisation_ratio(training, reference, training) == 0.0


def test_wasserstein_and_types_by_hand():
    reference = np.stack([press(0, 4, (0.1, 0.5), (0.9, 0.5)), press(2, 6, (0.3, 0.5), (0.3, 0.5))])
    generated = np.stack([press(1, 7, (0.2, 0.5), (0.9, 0.5)), press(2, 6, (0.6, 0.5), (0.7, 0.5))])
    measures = generation_measures(generated, generated, reference, reference, SMALL)
    expected = {
        "wasserstein_start_x": (0.1 + 0.3) / 2,
        "wasserstein_start_y": 0.0,
        "wasserstein_end_x": (0.0 + 0.4) / 2,
        "wasserstein_end_y": 0.0,
        "wasserstein_duration": (2 + 0) / 2,
        "gesture_type_distance": 0.5,  # horizontal, click against horizontal, horizontal
        "no_press_share": 0.0,
    }
    for name, value in expected.items():
        assert measures[name] == pytest.approx(value, abs=1e-6), name


def test_new_data_from_the_same_source_scores_well():
    training, reference, new = (gestures(n, seed) for n, seed in ((2000, 0), (2000, 1), (2000, 2)))
    measures = generation_measures(new, new, reference, training, SPEC)
    for name in "xyp":
        assert measures[f"variance_ratio_{name}"] == pytest.approx(1.0, abs=0.1)
        assert measures[f"smoothness_ratio_{name}"] == pytest.approx(1.0, abs=0.1)
    assert measures["gesture_type_distance"] < 0.05
    assert measures["wasserstein_duration"] < 2.0
    assert measures["coverage"] > 0.9
    assert measures["density"] == pytest.approx(1.0, abs=0.1)
    assert measures["memorisation_ratio"] == pytest.approx(1.0, abs=0.1)


def test_a_copy_of_the_training_set_is_caught():
    training, reference = gestures(300, 0), gestures(300, 1)
    measures = generation_measures(training, training, reference, training, SPEC)
    assert measures["memorisation_ratio"] == 0.0


def test_mode_collapse_is_caught():
    training, reference = gestures(300, 0), gestures(300, 1)
    same = np.repeat(reference[:1], 300, axis=0)
    measures = generation_measures(same, same, reference, training, SPEC)
    assert measures["coverage"] < 0.1
    assert measures["gesture_type_distance"] > 0.5


def test_before_and_after_projection_are_told_apart():
    reference = gestures(100, 0)
    rough = reference + 0.05 * np.random.default_rng(1).standard_normal(reference.shape)
    measures = generation_measures(rough, project(rough, SPEC), reference, reference, SPEC)
    assert measures["validity_before_projection"] == 0.0
    assert measures["validity_after_projection"] == 1.0
    assert measures["smoothness_ratio_x_before_projection"] > 1.5
    assert measures["smoothness_ratio_x"] == pytest.approx(1.0, abs=0.1)


def test_sequences_without_a_press_are_counted_and_left_out():
    reference = gestures(50, 0)
    generated = np.concatenate([reference[:30], np.zeros((10, 250, 3), np.float32)])
    measures = generation_measures(generated, generated, reference, reference, SPEC)
    assert measures["no_press_share"] == 0.25
    assert measures["validity_before_projection"] == 0.75
    assert measures["memorisation_ratio"] == 0.0
    nothing = np.zeros((4, 250, 3), np.float32)
    measures = generation_measures(nothing, nothing, reference, reference, SPEC)
    assert measures["no_press_share"] == measures["gesture_type_distance"] == 1.0
    for name in ("coverage", "density", "memorisation_ratio", "wasserstein_start_x"):
        assert math.isnan(measures[name])


def test_actions_that_are_not_touches_have_ratios_and_validity():
    spec = ActionSpec(press_channel=None, representation="raw")
    actions = np.random.default_rng(0).random((5, 250, 3))
    measures = generation_measures(actions, actions / 2, actions, actions, spec)
    assert measures["variance_ratio_x_before_projection"] == pytest.approx(1.0, rel=1e-6)
    assert measures["variance_ratio_press"] == pytest.approx(0.25, rel=1e-6)
    assert measures["validity_after_projection"] == 1.0
    assert not any(name.startswith(("wasserstein", "coverage")) for name in measures)


def test_empty_and_misshapen_sets_are_refused():
    some = gestures(3, 0)
    with pytest.raises(ActionError, match="at least one sequence"):
        generation_measures(some, some, some[:0], some, SPEC)
    with pytest.raises(ActionError, match="expected"):
        generation_measures(some, some[:, :100], some, some, SPEC)
