"""What a share of successes, a pair of planners, and a list of times say.

References: Wilson 1927 (the score interval); McNemar 1947; Fagerland, Lydersen & Laake 2013,
"The McNemar test for binary matched-pairs data" (why the mid-p).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binom, binomtest

from vj2_ddim_plugin.errors import DataError

__all__ = ["PairedTest", "mcnemar", "percentile", "wilson_interval"]


def wilson_interval(num_successes: int, num: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a probability, from successes among independent trials.

    Raises:
        DataError: There is no trial, or there are more successes than trials.
    """
    if num < 1 or not 0 <= num_successes <= num:
        raise DataError(f"need 0 <= successes <= n and n >= 1; found {num_successes} of {num}")
    interval: Any = binomtest(num_successes, num).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class PairedTest:
    """McNemar's test of two planners on the same problems.

    Attributes:
        only_first: Problems that only the first one solved.
        only_second: Problems that only the second one solved.
        exact_p: Two-sided exact p-value.
        mid_p: Twice the one-sided mid-p, at most 1; less conservative.
    """

    only_first: int
    only_second: int
    exact_p: float
    mid_p: float


def mcnemar(first: ArrayLike, second: ArrayLike) -> PairedTest:
    """Compare the successes `[n]` of two planners, problem by problem.

    Raises:
        DataError: They are not equally long lists of booleans.
    """
    ours, theirs = np.asarray(first), np.asarray(second)
    if (
        ours.shape != theirs.shape
        or ours.ndim != 1
        or {ours.dtype, theirs.dtype} != {np.dtype(bool)}
    ):
        raise DataError(
            f"need two lists of booleans of equal length; found {ours.dtype} {ours.shape} and "
            f"{theirs.dtype} {theirs.shape}"
        )
    only_first, only_second = int(np.sum(ours & ~theirs)), int(np.sum(theirs & ~ours))
    discordant = only_first + only_second
    if discordant == 0:
        return PairedTest(0, 0, 1.0, 1.0)
    fewer = min(only_first, only_second)
    exact = float(binomtest(fewer, discordant, 0.5).pvalue)
    mid = 2 * binom.cdf(fewer, discordant, 0.5) - binom.pmf(fewer, discordant, 0.5)
    return PairedTest(only_first, only_second, exact, min(1.0, float(mid)))


def percentile(values: ArrayLike, q: float) -> float:
    """The q-th percentile (0 to 100), linear between ranks.

    Raises:
        DataError: There are no values.
    """
    array = np.asarray(values, float)
    if array.size == 0:
        raise DataError("need at least one value for a percentile; found none")
    return float(np.percentile(array, q))
