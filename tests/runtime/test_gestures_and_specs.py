"""`ActionSpec`: exact inverses, valid gestures by hand, and projection of anything onto them."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vj2_ddim_plugin import gestures
from vj2_ddim_plugin.errors import ActionError
from vj2_ddim_plugin.gestures import REPRESENTATIONS
from vj2_ddim_plugin.spec import REPRESENTATIONS as representations
from vj2_ddim_plugin.spec import ActionSpec

SPECS = {
    "default": ActionSpec(),
    "original": ActionSpec(representation="raw", normalized=False),
    "raw": ActionSpec(action_block=20, min_press_steps=2, max_press_steps=9, representation="raw"),
    "held": ActionSpec(
        action_block=20, min_press_steps=0, max_press_steps=9, representation="held"
    ),
    "path": ActionSpec(action_block=20, min_press_steps=2, max_press_steps=None),
    "free path": ActionSpec(
        action_block=12, min_press_steps=1, max_press_steps=5, path_knots=None, representation="raw"
    ),
    "two blocks": ActionSpec(action_block=15, horizon=2, min_press_steps=5, max_press_steps=8),
    "two held blocks": ActionSpec(
        action_block=15, horizon=2, min_press_steps=0, max_press_steps=8, representation="held"
    ),
    "one coordinate": ActionSpec(
        action_block=30,
        channels=("press", "dial"),
        action_low=(0.0, -3.0),
        action_high=(1.0, 5.0),
        min_press_steps=3,
        max_press_steps=20,
        path_knots=3,
    ),
    "five knots": ActionSpec(action_block=25, min_press_steps=5, max_press_steps=25, path_knots=5),
    "short displacements": ActionSpec(
        action_block=25, min_press_steps=3, max_press_steps=25, path_knots=3, displacement_scale=0.3
    ),
    "few steps, many knots": ActionSpec(
        action_block=16, min_press_steps=1, max_press_steps=9, path_knots=4, representation="raw"
    ),
    "pixels": ActionSpec(
        action_block=20,
        action_low=(-2.5, 0.1, 0.0),
        action_high=(1080.3, 1919.7, 1.0),
        min_press_steps=3,
        max_press_steps=12,
        path_knots=3,
        representation="held",
    ),
    "zero out of bounds": ActionSpec(
        action_block=14,
        action_low=(2.0, -7.0, 0.0),
        action_high=(3.0, -4.0, 1.0),
        min_press_steps=3,
        max_press_steps=12,
        path_knots=3,
        representation="path",
    ),
    "no touch": ActionSpec(
        action_block=8,
        horizon=3,
        channels=("a", "b"),
        action_low=(-1.0, 0.0),
        action_high=(1.0, 4.0),
        press_channel=None,
        representation="raw",
    ),
}
TOUCH = [name for name, spec in SPECS.items() if spec.press_channel is not None]
every_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
every_touch_spec = pytest.mark.parametrize("spec", [SPECS[n] for n in TOUCH], ids=TOUCH)
quick = settings(max_examples=12, deadline=None, derandomize=True, database=None)


def path_through(knots, num_steps):
    """An independent piecewise linear path through evenly spaced knots."""
    at = np.linspace(0.0, 1.0, num_steps) if num_steps > 1 else np.zeros(1)
    return np.interp(at, np.linspace(0.0, 1.0, len(knots)), knots)


def make_block(spec, start, stop, knots):
    """One gesture, written out step by step; `knots` is `[K, C]`, as shares of the bounds."""
    block = np.zeros((spec.action_block, spec.num_channels))
    if stop > start:
        block[start:stop, spec.channels.index(spec.press_channel)] = 1.0
    low, high = np.array(spec.action_low), np.array(spec.action_high)
    others = [i for i, name in enumerate(spec.channels) if name != spec.press_channel]
    for column, channel in enumerate(others):
        values = low[channel] + (high - low)[channel] * knots[:, column]
        if stop > start:
            block[start:stop, channel] = path_through(values, stop - start)
    return block


@st.composite
def any_gesture(draw, spec, dtype=np.float64):
    """Valid gestures `[L, A]`, built without the code under test."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if spec.press_channel is None:
        shape = (spec.action_block * spec.horizon, len(spec.channels))
        return rng.uniform(spec.action_low, spec.action_high, shape).astype(dtype)
    blocks = []
    longest = spec.max_press_steps or spec.action_block
    for _ in range(spec.horizon):
        length = draw(st.integers(spec.min_press_steps, longest))
        start = draw(st.integers(0, spec.action_block - length))
        num_knots = spec.path_knots or max(length, 2)
        edges = draw(st.sampled_from(["inside", "corners", "still"]))
        knots = rng.uniform(size=(num_knots, len(spec.channels) - 1))
        if edges == "corners":
            knots = np.rint(knots)
        elif edges == "still":
            knots[:] = knots[0]
        blocks.append(make_block(spec, start, start + length, knots))
    return np.concatenate(blocks).astype(dtype)


@st.composite
def noises(draw, spec, dtype=np.float32):
    """Anything a badly trained sampler could come up with."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (3, spec.action_block * spec.horizon, len(spec.channels))
    scale = draw(st.sampled_from([0.0, 0.5, 1.0, 80.0, 1e5]))
    noise = scale * rng.standard_normal(shape)
    if draw(st.booleans()):  # a finger that is down for long
        noise[..., -1] = np.abs(noise[..., -1]) + 1.0
    return noise.astype(dtype)


def tolerance(spec, dtype=np.float64):
    reach = np.abs([spec.action_low, spec.action_high]).max()
    return reach * (1e-9 if dtype == np.float64 else 2e-6)


@every_spec
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_decode_inverts_encode_on_valid_gestures(spec, dtype):
    @quick
    @given(any_gesture(spec, dtype))
    def check(actions):
        if spec.representation == "path" and spec.min_press_steps == 0:
            return
        diffused = gestures.encode(actions, spec)
        assert diffused.shape == spec.diffused_shape
        assert diffused.dtype == dtype
        found = gestures.decode(diffused, spec)
        assert found.dtype == dtype
        np.testing.assert_allclose(found, actions, atol=tolerance(spec, dtype), rtol=0)

    check()


@every_spec
def test_encode_inverts_decode_on_encoded_gestures(spec):
    @quick
    @given(any_gesture(spec))
    def check(actions):
        diffused = gestures.encode(actions, spec)
        np.testing.assert_allclose(
            gestures.encode(gestures.decode(diffused, spec), spec), diffused, atol=1e-9, rtol=0
        )

    check()


@every_spec
def test_encoded_gestures_lie_within_the_diffused_bounds(spec):
    low, high = gestures.diffused_bounds(spec)
    if spec.normalized:
        assert max(np.abs(low).max(), np.abs(high).max()) <= 2.0 / spec.displacement_scale

    @quick
    @given(any_gesture(spec))
    def check(actions):
        diffused = gestures.encode(actions, spec)
        if spec.representation == "raw" and not (low[0] <= 0 <= high[0]):
            return
        slack = 1e-9 if spec.normalized else tolerance(spec)
        pressed = np.ones(len(diffused), bool)
        if spec.representation == "held":  # a block without a press holds zeros
            pressed = np.repeat(
                actions.reshape(spec.horizon, -1, spec.num_channels)[..., spec.press_index].any(1),
                spec.action_block,
            )
        inside = (diffused >= low - slack) & (diffused <= high + slack)
        assert inside[pressed].all()

    check()


@every_spec
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_generated_gestures_are_valid_and_projection_leaves_them_alone(spec, dtype):
    @quick
    @given(any_gesture(spec, dtype))
    def check(actions):
        assert gestures.is_valid(actions, spec)
        projected = gestures.project(actions, spec)
        assert projected.dtype == dtype
        np.testing.assert_allclose(projected, actions, atol=tolerance(spec, dtype), rtol=0)

    check()


@every_spec
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_projection_of_anything_is_valid_and_idempotent(spec, dtype):
    @quick
    @given(noises(spec, dtype))
    def check(noise):
        before = noise.copy()
        projected = gestures.project(noise, spec)
        np.testing.assert_array_equal(noise, before)
        assert projected.shape == noise.shape
        assert projected.dtype == dtype
        assert gestures.is_valid(projected, spec).all()
        again = gestures.project(projected, spec)
        np.testing.assert_allclose(again, projected, atol=tolerance(spec, dtype), rtol=0)

    check()


@every_spec
def test_whatever_is_sampled_within_bounds_is_decoded_and_projected_to_valid_gestures(spec):
    low, high = gestures.diffused_bounds(spec)

    @quick
    @given(st.integers(0, 2**32 - 1))
    def check(seed):
        share = np.random.default_rng(seed).uniform(size=(2, *spec.diffused_shape))
        diffused = (low + (high - low) * share).astype(np.float32)
        assert gestures.is_valid(
            gestures.project(gestures.decode(diffused, spec), spec), spec
        ).all()

    check()


@every_touch_spec
def test_rows_do_not_touch_one_another(spec):
    @quick
    @given(noises(spec))
    def check(noise):
        projected = gestures.project(noise, spec)
        for row, alone in zip(noise, projected, strict=True):
            np.testing.assert_allclose(
                gestures.project(row, spec), alone, atol=tolerance(spec, np.float32)
            )
        stacked = gestures.project(noise[:, None], spec)
        np.testing.assert_array_equal(stacked[:, 0], projected)

    check()


SMALL = ActionSpec(action_block=8, min_press_steps=2, max_press_steps=4, representation="raw")


def tap(start=2, stop=5, x=0.25, y=0.75):
    actions = np.zeros((8, 3))
    actions[start:stop] = x, y, 1.0
    return actions


def changed(actions, *edits):
    for index, value in edits:
        actions[index] = value
    return actions


@pytest.mark.parametrize(
    ("actions", "valid"),
    [
        (tap(), True),
        (tap(0, 4), True),
        (tap(4, 8), True),
        (tap(x=0.0, y=0.0), True),
        (tap(x=1.0, y=1.0), True),
        (changed(tap(), ((2, 0), 0.0), ((3, 0), 0.25), ((4, 0), 0.5)), True),  # a straight line
        (changed(tap(), ((3, 0), 0.26)), False),  # a bent one
        (np.zeros((8, 3)), False),  # a press is owed
        (tap(2, 3), False),  # too short
        (tap(2, 7), False),  # too long
        (tap(x=1.01), False),
        (tap(y=-0.01), False),
        (changed(tap(), ((2, 2), 0.9)), False),  # neither up nor down
        (changed(tap(), ((0, 2), 0.1)), False),
        (changed(tap(), ((7, 0), 0.1)), False),  # moves while the finger is up
        (changed(tap(), ((7, 1), -0.1)), False),
        (tap(0, 2) + tap(4, 6), False),  # two presses
        (tap(0, 2, 0, 0) + tap(4, 6, 0, 0), False),  # two presses where a path leaves no trace
        (changed(tap(), ((3, 1), math.nan)), False),
        (changed(tap(), ((0, 0), math.nan)), False),
        (changed(tap(), ((0, 2), math.nan)), False),
        (changed(tap(), ((3, 2), math.inf)), False),
    ],
)
def test_valid_gestures_by_hand(actions, valid):
    assert gestures.is_valid(actions, SMALL) == valid
    assert gestures.is_valid(actions.astype(np.float32), SMALL) == valid


def test_a_sequence_is_valid_only_if_each_of_its_blocks_is():
    spec = ActionSpec(
        action_block=8, horizon=2, min_press_steps=2, max_press_steps=4, representation="raw"
    )
    good, bad = tap(), tap(2, 3)
    sequences = np.stack(
        [np.concatenate(pair) for pair in [(good, good), (good, bad), (bad, good)]]
    )
    assert gestures.is_valid(sequences, spec).tolist() == [True, False, False]
    across = np.concatenate([tap(6, 8), tap(0, 2)])  # one press for the eye, two gestures for us
    assert gestures.is_valid(across, spec)


def test_no_press_is_valid_where_none_is_owed():
    spec = ActionSpec(action_block=8, min_press_steps=0, max_press_steps=4, representation="held")
    assert gestures.is_valid(np.zeros((8, 3)), spec)
    assert not gestures.project(np.zeros((8, 3), np.float32), spec).any()


def test_is_valid_keeps_leading_axes():
    assert gestures.is_valid(np.zeros((4, 5, 8, 3)), SMALL).shape == (4, 5)
    assert gestures.is_valid(np.zeros((0, 8, 3)), SMALL).shape == (0,)


def test_projection_by_hand():
    noisy = np.zeros((8, 3))
    noisy[:, 2] = [0.0, 0.9, 0.2, 0.8, 0.7, 0.6, 0.1, 0.0]  # the longest press is steps 3 to 5
    noisy[:, 0] = [9.0, 9.0, 9.0, 0.1, 0.2, 0.3, 9.0, 9.0]
    noisy[:, 1] = [9.0, 9.0, 9.0, 2.0, 2.0, 2.0, 9.0, 9.0]
    wanted = np.zeros((8, 3))
    wanted[3:6] = [[0.1, 1.0, 1.0], [0.2, 1.0, 1.0], [0.3, 1.0, 1.0]]
    np.testing.assert_allclose(gestures.project(noisy, SMALL), wanted, atol=1e-12)


@pytest.mark.parametrize(
    ("start", "stop", "wanted"), [(1, 2, (1, 3)), (7, 8, (6, 8)), (0, 8, (0, 4))]
)
def test_projection_brings_the_length_of_a_press_into_range(start, stop, wanted):
    np.testing.assert_allclose(gestures.project(tap(start, stop), SMALL), tap(*wanted), atol=1e-12)


def test_projection_presses_where_the_press_is_likeliest_if_one_is_owed():
    timid = np.zeros((8, 3))
    timid[:, 2] = [0, 0, 0, 0.1, 0.4, 0.2, 0, 0]
    timid[:, :2] = 0.5
    assert gestures.project(timid, SMALL)[:, 2].tolist() == [0, 0, 0, 0, 1, 1, 0, 0]


def test_projection_finds_the_least_squares_line():
    rng = np.random.default_rng(3)
    noisy = tap(1, 5)
    noisy[1:5, :2] += 0.05 * rng.standard_normal((4, 2))
    projected = gestures.project(noisy, SMALL)
    for channel in range(2):
        line = np.polynomial.Polynomial.fit(range(1, 5), noisy[1:5, channel], 1)
        np.testing.assert_allclose(projected[1:5, channel], line(np.arange(1, 5)), atol=1e-12)


def test_path_by_hand():
    spec = ActionSpec(action_block=10, min_press_steps=2, max_press_steps=10, normalized=False)
    block = np.zeros((10, 3))
    block[4:7] = [[0.1, 0.9, 1.0], [0.2, 0.6, 1.0], [0.3, 0.3, 1.0]]
    wanted = [0.1, 0.9, 0.2, -0.6, 0.4, 0.7]  # start, displacement, press and release time
    np.testing.assert_allclose(gestures.encode(block, spec)[:, 0], wanted, atol=1e-12)
    short = replace(spec, normalized=True, displacement_scale=0.25)
    wanted = [-0.8, 0.8, 0.2 / 0.125, -0.6 / 0.125, -0.2, 0.4]  # in halves of the range, and of it
    np.testing.assert_allclose(gestures.encode(block, short)[:, 0], wanted, atol=1e-12)


def test_held_by_hand():
    spec = ActionSpec(
        action_block=6,
        min_press_steps=0,
        max_press_steps=6,
        representation="held",
        normalized=False,
    )
    block = np.zeros((6, 3))
    block[2:4] = [[0.2, 0.8, 1.0], [0.4, 0.6, 1.0]]
    held = gestures.encode(block, spec)
    assert held[:, 0].tolist() == [0.2, 0.2, 0.2, 0.4, 0.4, 0.4]
    assert held[:, 1].tolist() == [0.8, 0.8, 0.8, 0.6, 0.6, 0.6]
    assert held[:, 2].tolist() == [0, 0, 1, 1, 0, 0]


def test_normalized_raw_actions_lie_between_minus_one_and_one():
    spec = SPECS["no touch"]
    actions = np.tile([[-1.0, 4.0]], (24, 1))
    np.testing.assert_array_equal(gestures.encode(actions, spec), np.tile([[-1.0, 1.0]], (24, 1)))
    assert gestures.encode(np.tile([[0.0, 2.0]], (24, 1)), spec).any() == np.False_


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("default", (6, 1)),
        ("raw", (20, 3)),
        ("two blocks", (12, 1)),
        ("two held blocks", (30, 3)),
        ("one coordinate", (5, 1)),
        ("five knots", (12, 1)),
        ("no touch", (24, 2)),
    ],
)
def test_diffused_shapes_by_hand(name, shape):
    assert SPECS[name].diffused_shape == shape


@pytest.mark.parametrize("blocks", [np.zeros((1, 20, 3)), (tap(0, 2) + tap(5, 7))[None]])
def test_path_refuses_blocks_without_exactly_one_press(blocks):
    length = blocks.shape[1]
    spec = ActionSpec(action_block=length, min_press_steps=2, max_press_steps=4)
    with pytest.raises(ActionError, match=r"block 0 has (0|2) \(1 of 1.*'raw' or 'held'"):
        gestures.encode(blocks, spec)


@pytest.mark.parametrize("shape", [(8, 2), (7, 3), (3,), (24,), ()])
@pytest.mark.parametrize("method", ["encode", "is_valid", "project", "decode"])
def test_a_wrong_shape_is_refused_with_the_right_one(method, shape):
    with pytest.raises(ActionError, match=r"\(8, 3\)"):
        getattr(gestures, method)(np.zeros(shape), SMALL)


NOTHING = {"action_low": (), "action_high": (), "press_channel": None, "representation": "raw"}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"channels": ("x", "press")}, "channels, action_low.*(length|long)"),
        ({"action_low": (0.0, 0.0)}, "channels, action_low.*(length|long)"),
        ({"action_low": (1.0, 0.0, 0.0)}, "action_low"),
        ({"action_high": (math.inf, 1.0, 1.0)}, "finite"),
        ({"action_low": (math.nan, 0.0, 0.0)}, "finite"),
        ({"action_block": 0}, "action_block"),
        ({"horizon": 0}, "horizon"),
        ({"representation": "banana"}, "raw, held, path"),
        ({"press_channel": "force"}, "'force'"),
        ({"press_channel": None}, "'raw'"),
        ({"min_press_steps": -1}, "min_press_steps"),
        ({"min_press_steps": 76}, "min_press_steps"),
        ({"max_press_steps": 251}, "max_press_steps"),
        ({"path_knots": 1}, "path_knots"),
        ({"path_knots": None}, "path_knots"),
        ({"path_knots": 6}, "min_press_steps 5"),
        ({"action_low": (-(10**400), 0, 0)}, "finite"),
        ({"action_high": (1e300, 1.0, 1.0)}, "within 1e.09"),
        ({"action_high": (5e-324, 1.0, 1.0)}, "further apart"),
        ({"action_low": (1e6, 0, 0), "action_high": (1e6 + 0.5, 1, 1)}, "further apart"),
        ({"rate_hz": -500.0}, "rate_hz"),
        *(({"rate_hz": value}, "rate_hz") for value in (0, 1e300, 10**400, 10**5000)),
        *(({"action_block": size}, "action_block") for size in (10**8, 10**400, 10**5000)),
        *(({"horizon": size}, "horizon") for size in (10**8, 10**5000)),
        ({"action_block": 100_000, "horizon": 50}, "numbers a sequence"),
        *(({"path_knots": size, "representation": "raw"}, "path_knots") for size in (10**8, -1)),
        *(({"min_press_steps": size}, "min_press_steps") for size in (10**8, 10**5000)),
        ({"max_press_steps": 10**8}, "max_press_steps"),
        ({**NOTHING, "channels": ()}, "one channel"),
    ],
)
def test_fields_that_contradict_one_another_are_refused(changes, named):
    with pytest.raises(ActionError, match=named):
        ActionSpec(**changes)


@every_spec
def test_plain_values_survive_json(spec):
    values = json.loads(json.dumps(spec.to_dict(), allow_nan=False))
    assert ActionSpec.from_dict(values) == spec


def test_from_dict_names_missing_and_unknown_fields():
    values = ActionSpec().to_dict()
    with pytest.raises(ActionError, match="colour"):
        ActionSpec.from_dict({**values, "colour": "red"})
    del values["path_knots"]
    with pytest.raises(ActionError, match="path_knots"):
        ActionSpec.from_dict(values)


def test_a_spec_can_be_a_key():
    assert len({ActionSpec(), ActionSpec(channels=["x", "y", "press"]), SMALL}) == 2


@pytest.mark.parametrize("largest", [1.0, 1000.0, 2e-3])
def test_one_rule_says_what_is_out_of_bounds_and_it_grows_with_them(largest):
    spec = ActionSpec(
        action_block=8,
        action_low=(-largest, 0.0, 0.0),
        action_high=(largest, largest, 1.0),
        min_press_steps=2,
        max_press_steps=4,
        representation="raw",
    )
    rounded, beyond = largest * (1 + 5e-7), largest * (1 + 2e-6)
    for value, outside in [(largest, False), (rounded, False), (beyond, True), (-beyond, True)]:
        touch = np.zeros((8, 3))
        touch[2:5] = value, largest / 2, 1.0
        assert gestures.outside_bounds(touch, spec).any() == outside
        assert gestures.is_valid(touch, spec) == (not outside)
        if outside:
            assert np.argwhere(gestures.outside_bounds(touch, spec)).tolist() == [
                [2, 0], [3, 0], [4, 0],
            ]  # fmt: skip


def test_a_lifted_finger_and_nan_do_not_leave_the_bounds():
    spec = SPECS["zero out of bounds"]
    up = np.zeros((14, 3))
    assert not gestures.outside_bounds(up, spec).any()
    assert not gestures.outside_bounds(up, spec, released_is_zero=True).any()
    up[3, 0] = 99.0
    assert not gestures.outside_bounds(up, spec).any()
    strict = gestures.outside_bounds(up, spec, released_is_zero=True)
    assert np.argwhere(strict).tolist() == [[3, 0]]
    assert not gestures.outside_bounds(np.full((14, 3), np.nan), spec).any()


def test_a_spec_takes_the_numbers_of_numpy_and_stays_plain():
    low, high = np.zeros(3, np.float32), np.ones(3, np.float32)
    spec = ActionSpec(action_block=np.int64(250), action_low=low, action_high=tuple(high))
    assert spec == ActionSpec()
    assert hash(spec) == hash(ActionSpec())
    assert json.dumps(spec.to_dict()) == json.dumps(ActionSpec().to_dict())


@every_spec
def test_the_shape_in_the_spec_is_the_one_that_is_encoded(spec):
    actions = gestures.project(np.zeros((2, spec.length, spec.num_channels)), spec)
    assert gestures.encode(actions, spec).shape == (2, *spec.diffused_shape)
    assert tuple(REPRESENTATIONS) == representations
