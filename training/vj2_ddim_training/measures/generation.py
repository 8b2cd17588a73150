"""How well generated sequences match the data as a distribution; never judged pair by pair.

- `variance_ratio_*`, `smoothness_ratio_*`: see `variation_ratios`; also of the sequences before
  projection, with `_before_projection` at the end.
- `validity_before_projection`, `validity_after_projection`: shares of valid sequences.
- `gesture_type_distance`: total variation between the histograms of types, 0 to 1.
- `no_press_share`: share of sequences with a block that has no press. They are left out below.
- `wasserstein_start_*`, `wasserstein_end_*` (positions, scaled to [0, 1]) and
  `wasserstein_duration` (steps): Wasserstein-1 between the distributions.
- `coverage`, `density`, `memorisation_ratio`: of the sketches, see `coverage_and_density` and
  `memorisation_ratio`.

Measures that need a press are NaN where no sequence has one.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree
from scipy.stats import wasserstein_distance

from vj2_ddim_plugin.errors import ActionError
from vj2_ddim_plugin.gestures import is_valid
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.measures.gestures import (
    GESTURE_TYPES,
    blocks_of,
    find_gestures,
    gesture_type,
    sketch_of,
)
from vj2_ddim_training.measures.recreation import EPSILON, variation_ratios

__all__ = ["coverage_and_density", "generation_measures", "memorisation_ratio"]
NUM_NEIGHBOURS = 5


def generation_measures(
    generated_before_projection: FloatArray,
    generated: FloatArray,
    reference: FloatArray,
    training: FloatArray,
    spec: ActionSpec,
) -> dict[str, float]:
    """Compare generated sequences with held-out ones.

    Args:
        generated_before_projection: `[m, L, A]`, as decoded from the sampler.
        generated: `[m, L, A]`, the same after projection; what all measures but those that say
            otherwise are of.
        reference: `[n, L, A]`, held-out data.
        training: `[t, L, A]`, what the sampler was trained on.
        spec: What they are. Without a press channel only ratios and validity are measured; without
            two coordinates, no gesture types.

    Returns:
        One number for each measure in this module's docstring.

    Raises:
        ActionError: A set is empty or of a wrong shape.
    """
    for actions in (generated_before_projection, generated, reference, training):
        blocks_of(actions, spec)  # checks the shape
        if len(actions) == 0:
            raise ActionError("every set of actions needs at least one sequence; one is empty")
    before = variation_ratios(reference, generated_before_projection, spec)
    measures = {
        **variation_ratios(reference, generated, spec),
        **{f"{name}_before_projection": value for name, value in before.items()},
        "validity_before_projection": float(np.mean(is_valid(generated_before_projection, spec))),
        "validity_after_projection": float(np.mean(is_valid(generated, spec))),
    }
    if spec.press_channel is None:
        return measures
    if len(spec.coordinate_indices) == 2:
        measures["gesture_type_distance"] = _type_distance(generated, reference, spec)
        measures["gesture_type_distance_to_training"] = _type_distance(generated, training, spec)
        measures["gesture_type_distance_of_training"] = _type_distance(training, reference, spec)
    return measures | _press_measures(generated, reference, training, spec)


def _press_measures(
    generated: FloatArray, reference: FloatArray, training: FloatArray, spec: ActionSpec
) -> dict[str, float]:
    """The measures of sequences that press in every block, and the share of those that do not."""
    pressed, held_out, seen = (
        _with_a_press(actions, spec) for actions in (generated, reference, training)
    )
    sketches = [sketch_of(actions, spec) for actions in (seen, held_out, pressed)]
    coverage, density = coverage_and_density(sketches[1], sketches[2])
    return {
        "no_press_share": 1.0 - len(pressed) / len(generated),
        **_wasserstein_distances(pressed, held_out, spec),
        "coverage": coverage,
        "density": density,
        "memorisation_ratio": memorisation_ratio(*sketches),
    }


def _with_a_press(actions: FloatArray, spec: ActionSpec) -> FloatArray:
    """The sequences that press in every block."""
    has_press = find_gestures(actions, spec).has_press.reshape(-1, spec.horizon)
    return actions[has_press.all(axis=1)]


def _type_distance(one: FloatArray, other: FloatArray, spec: ActionSpec) -> float:
    """Total variation distance between the histograms of gesture types."""
    shares = [
        np.array([np.mean(types == name) for name in GESTURE_TYPES])
        for types in (gesture_type(one, spec), gesture_type(other, spec))
    ]
    return float(0.5 * np.abs(shares[0] - shares[1]).sum())


def _wasserstein_distances(
    one: FloatArray, other: FloatArray, spec: ActionSpec
) -> dict[str, float]:
    """Wasserstein-1 distances of start points, end points and durations."""
    values = []
    for actions in (one, other):
        gestures = find_gestures(actions, spec)
        duration = gestures.stop - gestures.start
        values.append([*gestures.start_point.T, *gestures.end_point.T, duration])
    coordinates = [spec.channels[i] for i in spec.coordinate_indices]
    names = [f"{end}_{name}" for end in ("start", "end") for name in coordinates]
    missing = len(one) == 0 or len(other) == 0
    return {
        f"wasserstein_{name}": float("nan") if missing else float(wasserstein_distance(a, b))
        for name, a, b in zip([*names, "duration"], *values, strict=True)
    }


def coverage_and_density(
    reference: FloatArray, generated: FloatArray, num_neighbours: int = NUM_NEIGHBOURS
) -> tuple[float, float]:
    """Coverage and density (Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics", eq. 3-4).

    Around every reference point lies a ball that reaches its k-th nearest other reference point.
    """
    k = min(num_neighbours, len(reference) - 1)
    if k < 1 or len(generated) == 0:
        return float("nan"), float("nan")
    distances, _ = cKDTree(reference).query(reference, k=k + 1)  # the first one is the point itself
    strictly_inside = np.nextafter(distances[:, -1], -1.0)
    inside = np.zeros(len(reference))
    real = strictly_inside >= 0.0  # a ball without extent holds nothing
    inside[real] = cKDTree(generated).query_ball_point(
        reference[real], strictly_inside[real], return_length=True
    )
    return float(np.mean(inside > 0)), float(inside.sum() / (k * len(generated)))


def memorisation_ratio(training: FloatArray, reference: FloatArray, generated: FloatArray) -> float:
    """How near generated points are to the training set, against points held out from it."""
    if min(len(training), len(reference), len(generated)) == 0:
        return float("nan")
    tree = cKDTree(training)
    near, usual = (float(np.median(tree.query(points)[0])) for points in (generated, reference))
    return near / (usual + EPSILON)
