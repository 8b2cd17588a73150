"""The recorded sweep: every setting of a search space tried on validation screens, success chooses.

```
TUNED/
└── gradient-descent-adam-10.json    one file a planner: the space, every trial, the winner, how
```
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vj2_ddim_benchmark.planners.entry import Entry, SearchSpace, Settings
from vj2_ddim_plugin.errors import ConfigError, DataError
from vj2_ddim_plugin.files import write_json

__all__ = ["TUNED_DIR", "Sweep", "Trial", "read_tuned", "sweep", "write_sweep"]

TUNED_DIR = Path(__file__).parent.parent / "tuned"


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


def read_tuned(folder: Path | str, entry: Entry) -> dict[str, Any]:
    """The winning settings of a planner; nothing is read for one that has nothing to tune.

    Raises:
        ConfigError: It has never been tuned.
        DataError: The file is broken, or tells of other settings.
    """
    if not entry.search_space:
        return {}
    path = Path(folder) / f"{entry.name}.json"
    try:
        winner = json.loads(path.read_text(encoding="utf-8"))["winner"]
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: no such file, so {entry.name} is not tuned; run `vj2-ddim benchmark-tune "
            f"--planners {entry.name}`"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not a recorded sweep ({error!r}); tune {entry.name} again"
        ) from error
    if not isinstance(winner, dict) or set(winner) != set(entry.search_space):
        raise DataError(
            f"{path}: the winner must set {sorted(entry.search_space)}; found {winner}; tune "
            f"{entry.name} again"
        )
    return winner
