"""Measures of two sets of points by nearest neighbours: coverage, density, memorisation."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_training.measures.variation import EPSILON

__all__ = ["coverage_and_density", "memorisation_ratio"]

NUM_NEIGHBOURS = 5


def coverage_and_density(
    reference: FloatArray, generated: FloatArray, num_neighbours: int = NUM_NEIGHBOURS
) -> tuple[float, float]:
    """Coverage and density (Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics", eq. 3-4).

    Around every reference point lies a ball that reaches its k-th nearest other reference point.

    Args:
        reference: `[n, d]`; with n <= k, k is n - 1.
        generated: `[m, d]`.
        num_neighbours: k.

    Returns:
        `coverage`, the share of balls with a generated point inside (0 to 1), and `density`, the
        balls that a generated point is inside of, on average, divided by k (1 is expected when the
        two sets come from one distribution). NaN without generated points or with n < 2.
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
    """How near generated points are to the training set, against points held out from it.

    Args:
        training: `[t, d]`.
        reference: `[n, d]`, held out.
        generated: `[m, d]`.

    Returns:
        Median distance of the generated points to their nearest training points, divided by that of
        the reference points plus 1e-8. 1 is what new points have; near 0, the training set was
        memorised. NaN when a set is empty.
    """
    if min(len(training), len(reference), len(generated)) == 0:
        return float("nan")
    tree = cKDTree(training)
    near, usual = (float(np.median(tree.query(points)[0])) for points in (generated, reference))
    return near / (usual + EPSILON)
