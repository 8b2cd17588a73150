import math

import numpy as np
import pytest
import torch
from builders.training import NO_TOUCH, any_press
from hypothesis import given, settings
from hypothesis import strategies as st

from vj2_ddim_plugin.errors import ActionError
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.data.generate import generate_gestures
from vj2_ddim_training.measures import recreation_measures, sequence_measures

SPEC = any_press(4, min_press_steps=1, representation="held")
FULL = ActionSpec()

UP = [0, 0, 0]
ORIGINAL = np.array(
    [[UP, [0.2, 0.4, 1], [0.4, 0.4, 1], UP], [[0.5, 0.5, 1], [0.5, 0.5, 1], UP, UP]]
)
RECREATED = np.array(
    [[UP, [0.2, 0.4, 1], *[[0.4, 0.6, 1]] * 2], [UP, [0.5, 0.55, 1], UP, [0, 0, 0.4]]]
)


def test_hand_computed():
    measures = recreation_measures(ORIGINAL, RECREATED, SPEC)
    squared_coordinates = 0.2**2 + (0.4**2 + 0.6**2) + (0.5**2 + 0.5**2) + 0.05**2
    squared_press = 1 + 1 + 0.4**2
    expected = {
        "mse": (squared_coordinates + squared_press) / 24,
        "mae": (0.2 + 1.0 + 1.0 + 0.05 + 1 + 1 + 0.4) / 24,
        "coord_mse": squared_coordinates / 16,
        "press_mse": squared_press / 8,
        "active_coord_mse": squared_coordinates / 10,  # 5 steps pressed by either
        "press_accuracy": 6 / 8,
        "press_recall": 7 / 8,  # the false press at the end of the first does not count
        "temporal_iou": (2 / 3 + 1 / 2) / 2,
        "spatial_accuracy": 2 / 4,
        "gesture_type_accuracy": 1 / 2,
    }
    for name, value in expected.items():
        assert measures[name] == pytest.approx(value, rel=1e-12), name
    signal = [(0.2**2 + 3 * 0.4**2 + 2) / 12, (4 * 0.5**2 + 2) / 12]
    noise = [(0.2**2 + 0.4**2 + 0.6**2 + 1) / 12, (2 * 0.5**2 + 0.05**2 + 1 + 0.4**2) / 12]
    snr = [10 * math.log10(s / (n + 1e-8)) for s, n in zip(signal, noise, strict=True)]
    assert measures["mean_snr_db"] == pytest.approx(sum(snr) / 2)


def test_spread_is_over_the_sequences_by_hand():
    measures = recreation_measures(ORIGINAL, RECREATED, SPEC)
    mse = ((0.2**2 + 0.4**2 + 0.6**2 + 1) / 12, (2 * 0.5**2 + 0.05**2 + 1 + 0.4**2) / 12)
    active = ((0.2**2 + 0.4**2 + 0.6**2) / 6, (2 * 0.5**2 + 0.05**2) / 4)
    two = {
        "mse": mse,
        "mae": ((0.2 + 0.4 + 0.6 + 1) / 12, (2 * 0.5 + 0.05 + 1 + 0.4) / 12),
        "coord_mse": ((0.2**2 + 0.4**2 + 0.6**2) / 8, (2 * 0.5**2 + 0.05**2) / 8),
        "press_mse": (1 / 4, (1 + 0.4**2) / 4),
        "active_coord_mse": active,
        "press_accuracy": (3 / 4, 3 / 4),
        "press_recall": (1, 3 / 4),
        "temporal_iou": (2 / 3, 1 / 2),
        "spatial_accuracy": (1 / 2, 1 / 2),
        "gesture_type_accuracy": (0, 1),
        "mean_snr_db": tuple(
            10 * math.log10(signal / 12 / noise)
            for signal, noise in zip((0.2**2 + 3 * 0.4**2 + 2, 3), mse, strict=True)
        ),
    }
    each = sequence_measures(ORIGINAL, RECREATED, SPEC)
    for name, (one, other) in two.items():
        assert each[name] == pytest.approx([one, other], rel=1e-6), name
        assert measures[f"{name}_std"] == pytest.approx(abs(one - other) / 2, rel=1e-5), name
    assert set(each) == set(two)


def test_spread_leaves_out_sequences_that_have_no_such_measure():
    silent = np.zeros_like(ORIGINAL[:1])
    measures = recreation_measures(np.r_[ORIGINAL, silent], np.r_[RECREATED, silent], SPEC)
    two = recreation_measures(ORIGINAL, RECREATED, SPEC)
    for name in ("mean_snr_db_std", "active_coord_mse_std", "spatial_accuracy_std"):
        assert measures[name] == two[name]
    alone = recreation_measures(ORIGINAL[:1], RECREATED[:1], SPEC)
    assert {value for name, value in alone.items() if name.endswith("_std")} == {0.0}
    assert math.isnan(recreation_measures(silent, silent, SPEC)["mean_snr_db_std"])


def test_variances_stand_beside_their_ratios():
    measures = recreation_measures(ORIGINAL, RECREATED, SPEC)
    two = [0.25, (1.16 - 4 * 0.35**2) / 3]  # of the recreated presses 0111 and 0, 1, 0, 0.4
    assert measures["variance_p"] == pytest.approx(sum(two) / 2)
    assert measures["variance_p_std"] == pytest.approx(abs(two[0] - two[1]) / 2)
    assert measures["reference_variance_p"] == pytest.approx(1 / 3)
    assert measures["reference_variance_p_std"] == pytest.approx(0.0, abs=1e-12)
    for name in ("variance", "smoothness"):
        for channel in "xyp":
            found, reference = (measures[f"{who}{name}_{channel}"] for who in ("", "reference_"))
            assert measures[f"{name}_ratio_{channel}"] == found / (reference + 1e-8)


def test_variance_and_smoothness_of_the_press_by_hand():
    measures = recreation_measures(ORIGINAL, RECREATED, SPEC)
    # presses 0110 and 1100 both have variance (4 * 0.25) / 3; recreated 0111 and 0, 1, 0, 0.4
    first, second = 0.75 / 3, (1.16 - 4 * 0.35**2) / 3
    assert measures["variance_ratio_p"] == pytest.approx((first + second) / (2 / 3), abs=1e-6)
    # differences 1, 0, -1 and 0, -1, 0 against 1, 0, 0 and 1, -1, 0.4
    mean = 0.4 / 3
    found = (1 / 3 + (2.16 - 3 * mean**2) / 2) / 2
    assert measures["smoothness_ratio_p"] == pytest.approx(found / ((1 + 1 / 3) / 2), abs=1e-6)


def test_ratios_are_torchs_unbiased_variance():
    rng = np.random.default_rng(0)
    one, two = rng.random((5, 250, 3)), rng.random((5, 250, 3)) ** 2
    measures = recreation_measures(one, two, FULL)
    a, b = torch.from_numpy(one), torch.from_numpy(two)
    variance = torch.var(b, dim=1).mean(0) / (torch.var(a, dim=1).mean(0) + 1e-8)
    a, b = a[:, 1:] - a[:, :-1], b[:, 1:] - b[:, :-1]
    smoothness = torch.var(b, dim=1).mean(0) / (torch.var(a, dim=1).mean(0) + 1e-8)
    for index, name in enumerate("xyp"):
        assert measures[f"variance_ratio_{name}"] == pytest.approx(variance[index].item())
        assert measures[f"smoothness_ratio_{name}"] == pytest.approx(smoothness[index].item())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), num=st.integers(1, 5))
def test_recreating_exactly_is_perfect(seed, num):
    actions = generate_gestures(num, rng=np.random.default_rng(seed))
    measures = recreation_measures(actions, actions, FULL)
    for name in ("mse", "mae", "coord_mse", "press_mse", "active_coord_mse"):
        assert measures[name] == 0.0
    for name in ("press_accuracy", "press_recall", "temporal_iou"):
        assert measures[name] == 1.0
    assert measures["spatial_accuracy"] == measures["gesture_type_accuracy"] == 1.0
    assert measures["mean_snr_db"] > 30


def test_recreating_exactly_keeps_the_variation():
    actions = generate_gestures(100, rng=np.random.default_rng(0))
    measures = recreation_measures(actions, actions, FULL)
    for name in "xyp":
        assert measures[f"variance_ratio_{name}"] == pytest.approx(1.0, abs=1e-5)
        assert measures[f"smoothness_ratio_{name}"] == pytest.approx(1.0, abs=1e-4)
    signal = np.mean(actions.astype(np.float64) ** 2, axis=(1, 2))
    assert measures["mean_snr_db"] == pytest.approx(np.mean(10 * np.log10(signal)) + 80)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_order_of_the_pairs_does_not_matter_but_the_pairing_does(seed):
    rng = np.random.default_rng(seed)
    original = generate_gestures(6, rng=rng)
    recreated = original + 0.05 * rng.standard_normal(original.shape).astype(np.float32)
    shuffle = rng.permutation(6)
    straight = recreation_measures(original, recreated, FULL)
    assert recreation_measures(original[shuffle], recreated[shuffle], FULL) == pytest.approx(
        straight, rel=1e-9
    )
    mispaired = recreation_measures(original, np.roll(recreated, 1, axis=0), FULL)
    assert mispaired["mse"] > straight["mse"]


def test_all_zero_recreation_scores_0_db():
    actions = generate_gestures(50, rng=np.random.default_rng(0))
    measures = recreation_measures(actions, np.zeros_like(actions), FULL)
    assert measures["mean_snr_db"] == pytest.approx(0.0, abs=1e-4)
    assert measures["temporal_iou"] == measures["variance_ratio_x"] == 0.0


def test_false_presses_lower_accuracy_but_not_recall():
    original = np.zeros((1, 4, 3))
    original[0, 0] = [0.5, 0.5, 1]
    recreated = np.full((1, 4, 3), 0.6)
    measures = recreation_measures(original, recreated, SPEC)
    assert measures["press_accuracy"] == 0.25
    assert measures["press_recall"] == 1.0
    assert measures["spatial_accuracy"] == 0.0  # (0.1, 0.1) is farther than 0.1


def test_without_any_press():
    nothing = np.zeros((2, 4, 3))
    measures = recreation_measures(nothing, nothing, SPEC)
    assert measures["active_coord_mse"] == 0.0
    assert measures["temporal_iou"] == measures["spatial_accuracy"] == 1.0
    assert measures["press_recall"] == measures["gesture_type_accuracy"] == 1.0
    assert math.isnan(measures["mean_snr_db"])
    half = np.concatenate([nothing[:1], ORIGINAL[:1]])
    assert recreation_measures(half, 0 * half, SPEC)["mean_snr_db"] == pytest.approx(0, abs=1e-6)


def test_actions_that_are_not_touches_have_fewer_measures():
    spec = ActionSpec(4, representation="raw", **NO_TOUCH)
    original = np.array([[[1.0], [-1.0], [1.0], [-1.0]]])
    expected = {"mse": 0.25, "mae": 0.5, "coord_mse": 0.25, "mean_snr_db": 10 * math.log10(4)}
    expected |= {"variance_ratio_u": 0.25, "smoothness_ratio_u": 0.25}
    measures = recreation_measures(original, original / 2, spec)
    assert {name: measures[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    assert not any("press" in name or "gesture" in name for name in measures)


def test_one_step_has_no_variation():
    spec = ActionSpec(1, representation="raw", **NO_TOUCH)
    measures = recreation_measures(np.ones((2, 1, 1)), np.zeros((2, 1, 1)), spec)
    names = {"mse", "mae", "coord_mse", "mean_snr_db"}
    assert set(measures) == names | {f"{name}_std" for name in names}


def test_wrong_shapes_are_refused():
    with pytest.raises(ActionError, match=r"expected \[n, 4, 3\]"):
        recreation_measures(np.zeros((2, 5, 3)), np.zeros((2, 5, 3)), SPEC)
    with pytest.raises(ActionError, match="equally many sequences"):
        recreation_measures(np.zeros((2, 4, 3)), np.zeros((1, 4, 3)), SPEC)
    with pytest.raises(ActionError, match="at least one"):
        recreation_measures(np.zeros((0, 4, 3)), np.zeros((0, 4, 3)), SPEC)
