import numpy as np
import pytest
from builders.training import any_press, press

from vj2_ddim_plugin.errors import ActionError
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.data.generate import generate_gestures
from vj2_ddim_training.gestures import sketch_of, sketch_size

SPEC = any_press()


def test_hand_computed():
    actions = np.stack([press(2, 5, (0.1, 0.2), (0.9, 0.4)), press(0, 10, (0.5, 1), (0.5, 0))])
    sketch = sketch_of(actions, SPEC)
    expected = [[0.1, 0.2, 0.9, 0.4, 0.2, 0.5], [0.5, 1, 0.5, 0, 0, 1]]
    np.testing.assert_allclose(sketch, expected, atol=1e-7)
    assert sketch.dtype == np.float32


def test_one_step_is_its_own_start_and_end():
    sketch = sketch_of(press(9, 10, (0.3, 0.7), (0, 0))[None], SPEC)
    np.testing.assert_allclose(sketch[0], [0.3, 0.7, 0.3, 0.7, 0.9, 1.0], atol=1e-7)


def test_coordinates_are_scaled_from_their_bounds():
    pixels = any_press(bounds=((-100, 0), (100, 50)))
    sketch = sketch_of(press(2, 5, (0, 10), (100, 50))[None], pixels)
    np.testing.assert_allclose(sketch[0], [0.5, 0.2, 1, 1, 0.2, 0.5], atol=1e-7)


def test_coordinates_out_of_bounds_stay_in_the_unit_interval():
    sketch = sketch_of(press(2, 5, (-0.2, 0.5), (1.2, 0.5))[None], SPEC)
    np.testing.assert_allclose(sketch[0], [0, 0.5, 1, 0.5, 0.2, 0.5], atol=1e-7)


def test_horizon_concatenates_blocks():
    spec = any_press(horizon=2)
    first, second = press(0, 2, (0, 0), (1, 1)), press(4, 8, (1, 0), (0, 1))
    sketch = sketch_of(np.concatenate([first, second])[None], spec)
    assert sketch.shape == (1, sketch_size(spec)) == (1, 12)
    expected = np.concatenate([sketch_of(b[None], SPEC)[0] for b in (first, second)])
    np.testing.assert_array_equal(sketch[0], expected)


def test_sketch_draws_the_gesture_again():
    spec = ActionSpec()
    actions = generate_gestures(100, rng=np.random.default_rng(0))
    sketch = sketch_of(actions, spec)
    again = np.zeros_like(actions)
    for row, (x0, y0, x1, y1, t0, t1) in zip(again, sketch.astype(float), strict=True):
        a, b = round(t0 * 250), round(t1 * 250)
        row[a:b, :2] = np.linspace((x0, y0), (x1, y1), b - a)
        row[a:b, 2] = 1.0
    np.testing.assert_allclose(again, actions, atol=1e-6)


def test_without_a_press_there_is_no_sketch():
    actions = np.stack([press(2, 5, (0, 0), (1, 1)), np.zeros((10, 3), np.float32)])
    with pytest.raises(ActionError, match=r"block 0 of sequence 1 has none \(1 of 2 blocks\)"):
        sketch_of(actions, SPEC)
    bare = ActionSpec(press_channel=None, representation="raw")
    with pytest.raises(ActionError, match="no press_channel"):
        sketch_size(bare)


def test_wrong_shape_is_refused():
    with pytest.raises(ActionError, match=r"expected \[n, 10, 3\]"):
        sketch_of(np.zeros((10, 3)), SPEC)
