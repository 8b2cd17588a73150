"""Any recordings get a representation that inverts on them, and do so however they are read."""

import numpy as np
from builders.fuzz import fuzzed
from builders.training import any_press
from hypothesis import given
from hypothesis import strategies as st

from vj2_ddim_plugin.gestures import PATH_TOLERANCE, decode, encode, is_valid
from vj2_ddim_training.survey import ActionSurvey, infer_action_spec


@st.composite
def recordings(draw):
    """Blocks `[n, 12, 3]` that may be anything: presses, curves, blurred edges, hovering, noise."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    blocks = np.zeros((draw(st.integers(1, 5)), 12, 3), np.float32)
    for block in blocks:
        for _ in range(draw(st.integers(0, 2))):
            start = draw(st.integers(0, 11))
            stop = draw(st.integers(start + 1, 12))
            corners = rng.random((draw(st.sampled_from([1, 2, 3, 4])), 2))
            at = np.linspace(0, len(corners) - 1, stop - start)
            for axis in (0, 1):
                block[start:stop, axis] = np.interp(at, range(len(corners)), corners[:, axis])
            block[start:stop, 2] = draw(st.sampled_from([1.0, 1.0, 1.0, 0.9, 0.51]))
        kind = draw(st.sampled_from(["clean", "clean", "hover", "noise", "light"]))
        if kind == "hover":
            block[draw(st.integers(0, 11)), :2] = rng.random(2)
        elif kind == "noise":
            block[:, :2] = rng.random((12, 2))
        elif kind == "light":
            block[draw(st.integers(0, 11)), 2] = draw(st.sampled_from([0.2, 1e-3]))
    half = draw(st.booleans())
    return blocks.astype(np.float16).astype(np.float32) if half else blocks


@fuzzed
@given(actions=recordings(), cut=st.integers(0, 5))
def test_auto_always_inverts(actions, cut):
    """And does not depend on how the recordings are cut into parts, or on their order."""
    template = any_press(12, 0, path_knots=None, representation="raw")
    spec = infer_action_spec(actions, "auto", template)
    drift = np.abs(decode(encode(actions, spec), spec) - actions).max()
    coarse = (actions == actions.astype(np.float16)).all(axis=(1, 2)).any()
    assert drift <= PATH_TOLERANCE + (1e-3 if coarse else 0.0)
    survey = ActionSurvey(template)
    for part in (actions[cut:], actions[:cut]):
        survey.look(part)
    assert survey.spec("auto") == spec
    if spec.representation == "path":
        assert is_valid(actions, spec).all()
