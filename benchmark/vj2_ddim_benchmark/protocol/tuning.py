"""The recorded sweep: every setting of a search space tried on validation screens, success chooses.

```
TUNED/
└── gradient-descent-adam-10.json    one file a planner: the space, every trial, the winner, how
```
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vj2_ddim_benchmark.planners.description import TUNED_DIR, SearchSpace, read_tuned
from vj2_ddim_benchmark.planners.description import TunedSettings as Settings
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.files import write_json

__all__ = ["TUNED_DIR", "Sweep", "Trial", "read_tuned", "sweep", "write_sweep"]


@dataclass(frozen=True)
class Trial:
    """One combination of settings and how it did.

    Attributes:
        settings: Value of each tuned setting.
        success: Share of problems solved.
        cost: Mean cost of the plans, which decides between equal shares.
    """

    settings: Settings
    success: float
    cost: float


@dataclass(frozen=True)
class Sweep:
    """Everything that was tried.

    Attributes:
        search_space: The values of each setting.
        trials: One for each combination, in order.
        winner: The settings of the best trial.
        at_edge: Settings whose winning value is the lowest or highest of its numbers: the space
            may have been too narrow.
    """

    search_space: SearchSpace
    trials: tuple[Trial, ...]
    winner: Settings
    at_edge: tuple[str, ...]


def sweep(search_space: SearchSpace, evaluate: Callable[[Settings], tuple[float, float]]) -> Sweep:
    """Try every combination.

    Args:
        search_space: The values of each setting.
        evaluate: Settings to (share of problems solved, mean cost).

    Returns:
        The winner has the highest share; of those, the lowest cost; of those, it came first.

    Raises:
        ConfigError: A setting has no values.
    """
    empty = [name for name, values in search_space.items() if not values]
    if empty:
        raise ConfigError(f"the search space has no values for {empty[0]!r}; give at least one")
    trials = []
    for values in itertools.product(*search_space.values()):
        settings = dict(zip(search_space, values, strict=True))
        trials.append(Trial(settings, *evaluate(settings)))
    best = min(trials, key=lambda trial: (-trial.success, trial.cost))
    at_edge = tuple(
        name
        for name, values in search_space.items()
        if len(values) > 1
        and all(isinstance(value, int | float) for value in values)
        and best.settings[name] in (min(values), max(values))
    )
    return Sweep(search_space, tuple(trials), best.settings, at_edge)


def write_sweep(
    folder: Path | str, planner: str, result: Sweep, provenance: dict[str, Any]
) -> Path:
    """Write a sweep and how it was made (seeds, problems, versions); returns the file."""
    path = Path(folder) / f"{planner}.json"
    contents = {"planner": planner, **asdict(result), "provenance": provenance}
    write_json(path, contents)
    return path
