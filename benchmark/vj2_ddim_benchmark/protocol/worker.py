"""What solves problems, in the process of the benchmark or in others; and how others make it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vj2_ddim_benchmark.planners.entry import BuildAssets, Settings
from vj2_ddim_benchmark.protocol.competitors import Competitor, build_competitors
from vj2_ddim_benchmark.protocol.gather import Solved, Todo
from vj2_ddim_benchmark.protocol.goal_noise import NoisyGoal
from vj2_ddim_benchmark.protocol.run import Race
from vj2_ddim_benchmark.protocol.setup import use_threads
from vj2_ddim_benchmark.protocol.variants import Variant
from vj2_ddim_benchmark.world.problems import one_gesture_problems
from vj2_ddim_benchmark.world_model.model import WorldModel
from vj2_ddim_plugin.bundle import read_bundle
from vj2_ddim_plugin.interface import ActionOptimizer

__all__ = ["Worker", "WorkerSettings"]


class Worker:
    """A race and the planners in it; a planner is warmed up before the first problem it meets."""

    def __init__(
        self, race: Race, competitors: Sequence[Competitor], budgets: Sequence[float | None]
    ) -> None:
        """Hold them; nothing is planned yet.

        Args:
            race: What is raced on.
            competitors: Who races.
            budgets: Those that will be asked for, which planners are warmed up under.
        """
        self.race, self.budgets = race, list(budgets)
        self.competitors = {competitor.name: competitor for competitor in competitors}
        self._cold: dict[str, Mapping[str, float]] = {}

    def solve(self, todo: Todo) -> Iterator[Solved]:
        """Make the plans of one problem, in turn, and hand each out as it comes."""
        self._warm_up(todo)
        for name, budget_ms in todo.turns:
            record = self.race.attempt(self.competitors[name], todo.problem, budget_ms)
            yield Solved((record,), dict(self._cold))

    def _warm_up(self, todo: Todo) -> None:
        """Planners that this process has not met yet make their first plans."""
        names = dict.fromkeys(name for name, _ in todo.turns)
        fresh = [self.competitors[name] for name in names if name not in self._cold]
        if fresh:
            self._cold |= self.race.warm_up(fresh, self.budgets)


@dataclass(frozen=True)
class WorkerSettings:
    """What a process needs to make a worker of its own; everything in it can be sent.

    Attributes:
        variants: Who races.
        tuned: By variant, the tuned settings of its registry line.
        world_model: The world model's file.
        assets: What planners are built from.
        num_problems: Problems to draw.
        split: Whose screens.
        seed: Seed of the problems and of the planners' randomness.
        budgets: Deadlines of a plan in ms, None for none.
    """

    variants: tuple[Variant, ...]
    tuned: Mapping[str, Settings]
    world_model: Path
    assets: BuildAssets
    num_problems: int
    split: str
    seed: int
    budgets: tuple[float | None, ...]

    def make(self) -> Worker:
        """Load the models, draw the problems, build the planners.

        Raises:
            ConfigError: A planner lacks an asset or refuses its settings.
            VJ2DDIMError: A file is missing or broken.
        """
        use_threads(self.assets.num_threads)
        models = {path: WorldModel.load(path) for path in self._world_models()}
        model = models[self.world_model]
        problems = one_gesture_problems(
            self.num_problems, split=self.split, seed=self.seed, size=model.config.screen_size
        )
        race = Race(model, problems, self.seed)
        competitors = [self._competitor(variant, race, models) for variant in self.variants]
        return Worker(race, competitors, self.budgets)

    def _world_models(self) -> dict[Path, None]:
        own = [variant.world_model for variant in self.variants if variant.world_model is not None]
        return dict.fromkeys([self.world_model, *own])

    def _competitor(
        self, variant: Variant, race: Race, models: Mapping[Path, WorldModel]
    ) -> Competitor:
        assets = self.assets
        if variant.bundle is not None:
            spec = read_bundle(variant.bundle).action_spec
            assets = replace(assets, bundle=variant.bundle, action_spec=spec)
        (built,) = build_competitors([variant.to_build()], assets, self.tuned)
        if variant.world_model is not None:
            built = replace(built, world_model=models[variant.world_model])
        if not variant.goal_noise:
            return built
        model = race.world_model if built.world_model is None else built.world_model

        def noisy(optimizer: ActionOptimizer) -> NoisyGoal:
            return NoisyGoal(optimizer, variant.goal_noise, model, race.make_cost)

        twin = None if built.unprojected is None else noisy(built.unprojected)
        return replace(built, optimizer=noisy(built.optimizer), unprojected=twin)
