"""A planner of the benchmark in one description that can be sent to another process."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vj2_ddim_benchmark.settings import AMORTISED
from vj2_ddim_plugin.bundle import read_bundle
from vj2_ddim_plugin.errors import ConfigError, DataError
from vj2_ddim_plugin.files import read_json
from vj2_ddim_plugin.interface import ActionOptimizer
from vj2_ddim_plugin.spec import ActionSpec

TunedSettings = Mapping[str, Any]
SearchSpace = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class PlannerAssets:
    """What planners are built from, the same for all; a file is None where none needs it."""

    action_spec: ActionSpec
    bundle: Path | None = None  # the exported denoiser
    num_threads: int = 1  # of one operator
    seed: int = 0  # of planners whose problems bring none
    latents: Path | None = None  # the denoiser's training data
    student: Path | None = None  # the exported student of a denoiser
    amortised: Mapping[str, Path | None] = field(default_factory=dict)  # models, by kind

    def path(self, name: str) -> Path:
        """A file that a planner cannot do without; raises `ConfigError` where it is not given."""
        amortised = name in AMORTISED
        found: Path | None = self.amortised.get(name) if amortised else getattr(self, name)
        if found is None:
            how = f"=FILE as amortised, of `vj2-ddim benchmark amortise {name}`" * amortised
            raise ConfigError(f"this planner cannot be built with {name}=None; give {name}{how}")
        return found


Make = Callable[[PlannerAssets, TunedSettings], ActionOptimizer]


@dataclass(frozen=True)
class Planner:
    """A row of the registry, or a variant of one: the same row with something replaced.

    A world model of its own encodes and ranks in place of the race's, which judges the final cost.
    """

    name: str  # what results and the report call it; unique
    make: Make  # from assets and settings; a function of a module, or a `partial` of one
    search_space: SearchSpace = field(default_factory=dict)  # values to try of each tuned setting
    with_cost: bool = True  # whether it is given the planner's cost
    in_quick: bool = True  # whether quick runs include it
    fixed: Mapping[str, Any] = field(default_factory=dict)  # settings beside the tuned ones
    needs: tuple[str, ...] = ()  # names of the assets that it cannot do without
    unprojected: Mapping[str, Any] | None = None  # of a twin, not timed, that projects no plan
    tuned_as: str | None = None  # the row whose recorded sweep it uses; None for its own
    bundle: Path | None = None  # a denoiser in place of the race's
    world_model: Path | None = None  # the same
    true_dynamics: bool = False  # whether its cost is asked of the screen itself, which it sees
    goal_noise: float = 0.0  # std of the noise on the goal latents it sees, in units of theirs

    def variant(self, name: str, **changes: Any) -> "Planner":  # noqa: ANN401
        """The same planner under another name, with other fields; it shares the recorded sweep."""
        return replace(self, name=name, tuned_as=self.tuned_as or self.name, **changes)

    def build(self, assets: PlannerAssets, settings: TunedSettings) -> ActionOptimizer:
        """The optimizer; raises `ConfigError` for a missing asset or a setting out of range."""
        if self.bundle is not None:
            spec = read_bundle(self.bundle).action_spec
            assets = replace(assets, bundle=self.bundle, action_spec=spec)
        return self.make(assets, {**self.fixed, **settings})

    def build_unprojected(
        self, assets: PlannerAssets, settings: TunedSettings
    ) -> ActionOptimizer | None:
        """The twin that does not project its plans, or None where none is needed."""
        twin = self.unprojected
        return None if twin is None else self.build(assets, {**settings, **twin})


def read_tuned(folder: Path | str, planner: Planner) -> dict[str, Any]:
    """The winning settings of a planner; nothing is read for one that has nothing to tune."""
    if not planner.search_space:
        return {}
    name = planner.tuned_as or planner.name
    path = Path(folder) / f"{name}.json"
    if not path.exists():
        command = f"vj2-ddim benchmark tune --planners {name}"
        raise ConfigError(
            f"{path}: no such file, so {name} is not tuned; run `{command}`, for pages "
            f"`{command.replace('tune', 'browser tune')}`"
        )
    winner = read_json(path, DataError).get("winner")
    if not isinstance(winner, dict) or set(winner) != set(planner.search_space):
        wanted = f"the winner must set {sorted(planner.search_space)}; found {winner}"
        raise DataError(f"{path}: {wanted}; tune {name} again")
    return winner
