"""Measures of sequences: how well given ones were recreated, and generated ones match the data.

Numpy in, numbers out. Everything is in the data's own units, except where a distance is compared
with a threshold: there positions are scaled from the spec's bounds to [0, 1].
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.stats import wasserstein_distance

from vj2_ddim_plugin.errors import ActionError
from vj2_ddim_plugin.gestures import is_valid, pressed
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.gestures import (
    GESTURE_TYPES,
    blocks_of,
    find_gestures,
    gesture_type,
    scaled_coordinates,
    sketch_of,
)

__all__ = ["coverage_and_density", "gaussianity", "generation_measures", "memorisation_ratio"]
__all__ += ["recreation_measures", "sequence_measures", "variations"]

EPSILON = 1e-8  # added to denominators, as in the original script
NUM_NEIGHBOURS = 5
SHARES = ("temporal_iou", "gesture_type_accuracy")  # means over the sequences
NEAR = 0.1  # spatial_accuracy: how far a recreated point may be from the original one
LARGEST_ABS_MEAN = 0.1
STD_RANGE = (0.8, 1.2)
Measures = dict[str, float]


def variations(reference: FloatArray, found: FloatArray, spec: ActionSpec) -> Measures:
    """Variance over time, and that of first differences, of each channel; their ratios and spreads.

    `variance_*` and `smoothness_*` are the unbiased variance over time of every sequence of
    `found`, averaged over the sequences; with `reference_` before it, of `reference`; with `_std`
    behind it, the standard deviation over the sequences. `variance_ratio_*` and
    `smoothness_ratio_*` are that of `found` divided by that of `reference` plus 1e-8.
    """
    measures = {}
    for name, order in (("variance", 0), ("smoothness", 1)):
        if spec.length < 2 + order:
            continue
        each = [
            np.diff(array.astype(np.float64), n=order, axis=1).var(axis=1, ddof=1)
            for array in (reference, found)
        ]
        of_reference, of_found = (variances.mean(axis=0) for variances in each)
        ratios = of_found / (of_reference + EPSILON)
        for index, channel in enumerate(spec.channels):
            suffix = "p" if channel == spec.press_channel else channel
            measures[f"{name}_ratio_{suffix}"] = float(ratios[index])
            for prefix, variances in zip(("reference_", ""), each, strict=True):
                key = f"{prefix}{name}_{suffix}"
                measures[key] = float(variances.mean(axis=0)[index])
                measures[f"{key}_std"] = float(variances[:, index].std())
    return measures


def recreation_measures(original: FloatArray, recreated: FloatArray, spec: ActionSpec) -> Measures:
    """Compare sequences with their recreations, pair by pair; names and formulas of the script.

    - `mse`, `mae`: over all elements; `coord_mse`, `press_mse`: over those channels.
    - `active_coord_mse`: over the coordinates of steps that either one presses; 0 if none.
    - `press_accuracy`: share of steps where both agree on the press.
    - `press_recall`: the script's formula, share of steps where "either one presses" equals "the
      recreation presses". False presses do not lower it.
    - `mean_snr_db`: mean over sequences of 10 log10(mean x0^2 / (mean error^2 + 1e-8)). Sequences
      that are 0 throughout have no signal and are left out; NaN if all are.
    - `variance_ratio_*`, `smoothness_ratio_*` and what they are made of: see `variations`.
    - `temporal_iou`: mean over sequences of pressed by both / by either; 1 if neither presses.
    - `spatial_accuracy`: share of the original's pressed steps whose recreated point is nearer than
      0.1; 1 if there are none.
    - `gesture_type_accuracy`: share of blocks whose gesture type is the same.
    - Each of these but the ratios also with `_std` behind its name: the standard deviation over the
      sequences of `sequence_measures`, not over a sample of them: that of one sequence is 0.

    Args:
        original: `[n, L, A]`, n >= 1.
        recreated: `[n, L, A]`, row by row the recreation of `original`.
        spec: What they are. Without a press channel the measures of presses are left out; without
            two coordinates, so is `gesture_type_accuracy`.

    Raises:
        ActionError: The arrays are empty or their shapes differ from the spec or each other.
    """
    each = sequence_measures(original, recreated, spec)
    original, recreated = original.astype(np.float64), recreated.astype(np.float64)
    error = recreated - original
    known = {name: values[~np.isnan(values)] for name, values in each.items()}
    decibels = known["mean_snr_db"]
    agreed = {} if spec.press_channel is None else _press_agreement(original, recreated, spec)
    return {
        "mse": float(np.mean(error**2)),
        "mae": float(np.mean(np.abs(error))),
        "coord_mse": float(np.mean(error[..., spec.coordinate_indices] ** 2)),
        "mean_snr_db": float(np.mean(decibels)) if len(decibels) else math.nan,
        **variations(original, recreated, spec),
        **agreed,
        **{name: float(np.mean(each[name])) for name in SHARES if name in each},
        **{f"{name}_std": float(of.std()) if len(of) else math.nan for name, of in known.items()},
    }


def _press_agreement(original: FloatArray, recreated: FloatArray, spec: ActionSpec) -> Measures:
    """The measures of `recreation_measures` that are of all steps, and ask where the press is."""
    error = recreated - original
    truth, found = pressed(original, spec), pressed(recreated, spec)
    either = truth | found
    active = error[..., spec.coordinate_indices][either]
    near = _near(original, recreated, spec)
    return {
        "press_mse": float(np.mean(error[..., spec.press_index] ** 2)),
        "active_coord_mse": float(np.mean(active**2)) if either.any() else 0.0,
        "spatial_accuracy": float(np.mean(near[truth])) if truth.any() else 1.0,
        "press_accuracy": float(np.mean(truth == found)),
        "press_recall": float(np.mean(either == found)),
    }


def sequence_measures(
    original: FloatArray, recreated: FloatArray, spec: ActionSpec
) -> dict[str, FloatArray]:
    """The measures of `recreation_measures` of every sequence alone, `[n]`; NaN where one has none.

    Arguments and errors are those of `recreation_measures`.
    """
    blocks_of(original, spec)  # checks the shape
    if original.shape != recreated.shape or len(original) == 0:
        raise ActionError(
            f"original {original.shape} and recreated {recreated.shape} must be equally many "
            f"sequences, at least one"
        )
    original, recreated = original.astype(np.float64), recreated.astype(np.float64)
    error = recreated - original
    squared, over = error**2, (1, 2)
    signal, noise = np.mean(original**2, axis=over), np.mean(squared, axis=over)
    loud = np.where(signal > 0.0, signal, np.nan)
    each = {
        "mse": noise,
        "mae": np.mean(np.abs(error), axis=over),
        "coord_mse": np.mean(squared[..., spec.coordinate_indices], axis=over),
        "mean_snr_db": 10.0 * np.log10(loud / (noise + EPSILON)),
    }
    if spec.press_channel is None:
        return each
    truth, found = pressed(original, spec), pressed(recreated, spec)
    either, both = truth | found, truth & found
    union = either.sum(axis=1)
    of_coordinates = squared[..., spec.coordinate_indices].mean(axis=2)
    near = _near(original, recreated, spec)
    each |= {
        "press_mse": np.mean(squared[..., spec.press_index], axis=1),
        "active_coord_mse": _mean_where(of_coordinates, either),
        "spatial_accuracy": _mean_where(near, truth),
        "press_accuracy": np.mean(truth == found, axis=1),
        "press_recall": np.mean(either == found, axis=1),
        "temporal_iou": np.where(union > 0, both.sum(axis=1) / np.maximum(union, 1), 1.0),
    }
    if len(spec.coordinate_indices) == 2:
        same = gesture_type(original, spec) == gesture_type(recreated, spec)
        each["gesture_type_accuracy"] = np.mean(same.reshape(len(original), -1), axis=1)
    return each


def _near(original: FloatArray, recreated: FloatArray, spec: ActionSpec) -> NDArray[np.bool_]:
    """`[n, L]`, whether the recreated point is where the original one is."""
    offset = scaled_coordinates(recreated, spec) - scaled_coordinates(original, spec)
    return np.asarray(np.linalg.norm(offset, axis=-1) < NEAR)


def _mean_where(values: NDArray[Any], counted: NDArray[np.bool_]) -> FloatArray:
    """Means `[n]` of the values of `[n, L]` that count; NaN where none does."""
    number = counted.sum(axis=1)
    total = np.where(counted, values, 0.0).sum(axis=1)
    return np.asarray(np.where(number > 0, total / np.maximum(number, 1), np.nan))


def gaussianity(x_T: FloatArray, spec: ActionSpec) -> dict[str, Any]:
    """Mean and standard deviation of inverted noise, channel by channel, over the whole set.

    A channel is an action channel, over all sequences and steps; in the representation `path`,
    whose rows are different things (a coordinate of a knot, a time), every row is one.

    Args:
        x_T: `[n, M, C]`, n data inverted to the last timestep.
        spec: Names the representation.

    Returns:
        `mean` and `std` (lists, one number a channel), `worst_abs_mean`, `lowest_std`,
        `highest_std`, and `degenerate`: True unless every channel has abs(mean) < 0.1 and a std in
        [0.8, 1.2].

    Raises:
        ActionError: The shape is not `[n, *spec.diffused_shape]` with n >= 1.
    """
    if x_T.ndim != 3 or x_T.shape[1:] != spec.diffused_shape or len(x_T) == 0:
        raise ActionError(
            f"x_T has shape {x_T.shape}, expected [n, *{spec.diffused_shape}] for representation "
            f"{spec.representation!r}"
        )
    over = (0, 2) if spec.representation == "path" else (0, 1)
    mean, std = x_T.mean(axis=over, dtype=np.float64), x_T.std(axis=over, dtype=np.float64)
    worst, lowest, highest = float(np.abs(mean).max()), float(std.min()), float(std.max())
    gaussian = worst < LARGEST_ABS_MEAN and lowest >= STD_RANGE[0] and highest <= STD_RANGE[1]
    scalars = {"worst_abs_mean": worst, "lowest_std": lowest, "highest_std": highest}
    return {"mean": mean.tolist(), "std": std.tolist(), **scalars, "degenerate": not gaussian}


def generation_measures(
    before_projection: FloatArray,
    generated: FloatArray,
    reference: FloatArray,
    training: FloatArray,
    spec: ActionSpec,
) -> Measures:
    """Compare generated sequences with held-out ones as a distribution, never pair by pair.

    - `variance_ratio_*`, `smoothness_ratio_*` and what they are made of: see `variations`; the
      ratios also of the sequences before projection, with `_before_projection` at the end.
    - `validity_before_projection`, `validity_after_projection`: shares of valid sequences.
    - `gesture_type_distance`: total variation between the histograms of types, 0 to 1.
    - `no_press_share`: share of sequences with a block that has no press. They are left out below.
    - `wasserstein_start_*`, `wasserstein_end_*` (positions, scaled to [0, 1]) and
      `wasserstein_duration` (steps): Wasserstein-1 between the distributions.
    - `coverage`, `density`, `memorisation_ratio`: of the sketches, see `coverage_and_density` and
      `memorisation_ratio`.

    Measures that need a press are NaN where no sequence has one.

    Args:
        before_projection: `[m, L, A]`, as decoded from the sampler.
        generated: `[m, L, A]`, the same after projection; most measures are of these.
        reference: `[n, L, A]`, held-out data.
        training: `[t, L, A]`, what the sampler was trained on.
        spec: What they are. Without a press channel only ratios and validity are measured; without
            two coordinates, no gesture types.

    Raises:
        ActionError: A set is empty or of a wrong shape.
    """
    for actions in (before_projection, generated, reference, training):
        blocks_of(actions, spec)  # checks the shape
        if not len(actions):
            raise ActionError("every set of actions needs at least one sequence; one is empty")
    before = variations(reference, before_projection, spec)
    sets = generated, reference, training
    return {
        **variations(reference, generated, spec),
        **{f"{name}_before_projection": of for name, of in before.items() if "ratio" in name},
        "validity_before_projection": float(np.mean(is_valid(before_projection, spec))),
        "validity_after_projection": float(np.mean(is_valid(generated, spec))),
        **({} if spec.press_channel is None else _press_measures(*sets, spec)),
    }


def _press_measures(
    generated: FloatArray, reference: FloatArray, training: FloatArray, spec: ActionSpec
) -> Measures:
    seen, held_out, found = (
        actions[find_gestures(actions, spec).has_press.reshape(-1, spec.horizon).all(axis=1)]
        for actions in (training, reference, generated)
    )
    sketches = [sketch_of(actions, spec) for actions in (seen, held_out, found)]
    coverage, density = coverage_and_density(sketches[1], sketches[2])
    pairs = {"": (generated, reference), "_to_training": (generated, training)}
    pairs |= {"_of_training": (training, reference)}
    typed = pairs.items() if len(spec.coordinate_indices) == 2 else ()
    return {
        **{f"gesture_type_distance{name}": _type_distance(*of, spec) for name, of in typed},
        "no_press_share": 1.0 - len(found) / len(generated),
        **_wasserstein_distances(found, held_out, spec),
        "coverage": coverage,
        "density": density,
        "memorisation_ratio": memorisation_ratio(*sketches),
    }


def _type_distance(one: FloatArray, other: FloatArray, spec: ActionSpec) -> float:
    types = gesture_type(one, spec), gesture_type(other, spec)
    shares = np.array([[np.mean(of == name) for name in GESTURE_TYPES] for of in types])
    return float(0.5 * np.abs(shares[0] - shares[1]).sum())


def _wasserstein_distances(one: FloatArray, other: FloatArray, spec: ActionSpec) -> Measures:
    values = []
    for actions in (one, other):
        start, stop, start_point, end_point = find_gestures(actions, spec)
        values.append([*start_point.T, *end_point.T, stop - start])
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
