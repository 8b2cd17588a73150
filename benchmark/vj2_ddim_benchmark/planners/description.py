"""A planner of the benchmark in one description, from its table row to the process it plans in.

Everything in it can be sent to another process; what is built of it cannot.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.bundle import read_bundle
from vj2_ddim_plugin.errors import ConfigError, DataError
from vj2_ddim_plugin.interface import ActionOptimizer

__all__ = ["TUNED_DIR", "Planner", "PlannerAssets", "SearchSpace", "TunedSettings", "read_tuned"]

TUNED_DIR = Path(__file__).parent.parent / "tuned"

TunedSettings = Mapping[str, Any]
SearchSpace = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class PlannerAssets:
    """What planners are built from, the same for all.

    Attributes:
        action_spec: Bounds and valid gestures.
        bundle: The exported denoiser, or None where no planner needs one.
        num_threads: Threads of one operator.
        seed: Seed of planners whose problems bring none.
        latents: The denoiser's training data, or None likewise.
        regression: The amortised model of kind `regression`, or None likewise.
        gaussian: The amortised model of kind `gaussian`, or None likewise.
    """

    action_spec: ActionSpec
    bundle: Path | None = None
    num_threads: int = 1
    seed: int = 0
    latents: Path | None = None
    regression: Path | None = None
    gaussian: Path | None = None

    def path(self, name: str) -> Path:
        """A file that a planner cannot do without; raises `ConfigError` where it is not given."""
        found: Path | None = getattr(self, name)
        if found is None:
            raise ConfigError(f"this planner cannot be built with {name}=None; give {name}")
        return found


Make = Callable[[PlannerAssets, TunedSettings], ActionOptimizer]


@dataclass(frozen=True)
class Planner:
    """A row of the registry, or a variant of one: the same row with something replaced.

    Attributes:
        name: What results and the report call it; unique.
        make: Makes the optimizer from assets and settings; a function of a module, or a `partial`.
        search_space: The values to try of each tuned setting; empty when nothing is tuned.
        with_cost: Whether it is given the planner's cost.
        in_quick: Whether quick runs include it.
        fixed: Settings that the row fixes; the tuned ones are added to them.
        needs: Names of the `PlannerAssets` that it cannot do without.
        unprojected: Settings that make a twin which does not project its plans, for planners whose
            result does not hold the plan before projection; the twin runs outside the measured
            time. None where none is needed.
        tuned_as: The row whose recorded sweep it uses; None for its own.
        bundle: A denoiser in place of the race's, or None.
        world_model: The file of a world model that it encodes with and plans through in place of
            the race's, or None. Plans are judged by the screen, their final cost by the race's.
        goal_noise: Std of the noise on the goal latents it sees, in units of their own std.
    """

    name: str
    make: Make
    search_space: SearchSpace = field(default_factory=dict)
    with_cost: bool = True
    in_quick: bool = True
    fixed: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    unprojected: Mapping[str, Any] | None = None
    tuned_as: str | None = None
    bundle: Path | None = None
    world_model: Path | None = None
    goal_noise: float = 0.0

    def variant(self, name: str, **changes: Any) -> Planner:  # noqa: ANN401
        """The same planner under another name, with other fields; it shares the recorded sweep."""
        return replace(self, name=name, tuned_as=self.tuned_as or self.name, **changes)

    def build(self, assets: PlannerAssets, settings: TunedSettings) -> ActionOptimizer:
        """The optimizer, ready to plan.

        Raises:
            ConfigError: An asset is missing or a setting out of range.
            VJ2DDIMError: A file is missing or broken.
        """
        if self.bundle is not None:
            spec = read_bundle(self.bundle).action_spec
            assets = replace(assets, bundle=self.bundle, action_spec=spec)
        return self.make(assets, {**self.fixed, **settings})

    def build_unprojected(
        self, assets: PlannerAssets, settings: TunedSettings
    ) -> ActionOptimizer | None:
        """The twin that does not project its plans, or None where none is needed."""
        if self.unprojected is None:
            return None
        return self.build(assets, {**settings, **self.unprojected})


def read_tuned(folder: Path | str, planner: Planner) -> dict[str, Any]:
    """The winning settings of a planner; nothing is read for one that has nothing to tune.

    Raises:
        ConfigError: It has never been tuned.
        DataError: The file is broken, or tells of other settings.
    """
    if not planner.search_space:
        return {}
    name = planner.tuned_as or planner.name
    path = Path(folder) / f"{name}.json"
    try:
        winner = json.loads(path.read_text(encoding="utf-8"))["winner"]
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: no such file, so {name} is not tuned; run `vj2-ddim benchmark tune "
            f"--planners {name}`"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a recorded sweep ({error!r}); tune {name} again") from error
    if not isinstance(winner, dict) or set(winner) != set(planner.search_space):
        raise DataError(
            f"{path}: the winner must set {sorted(planner.search_space)}; found {winner}; tune "
            f"{name} again"
        )
    return winner
