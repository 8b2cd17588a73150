"""What goes through chains, in the process of the benchmark or in others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

from vj2_ddim_benchmark.chains.race import ChainRace
from vj2_ddim_benchmark.protocol.competitors import Competitor
from vj2_ddim_benchmark.protocol.gather import Solved, Todo
from vj2_ddim_benchmark.protocol.run import Race
from vj2_ddim_benchmark.protocol.worker import Worker, WorkerSettings
from vj2_ddim_benchmark.world.chains import chain_problems

__all__ = ["ChainSettings", "ChainWorker"]


class ChainWorker(Worker):
    """A `Worker` whose problems are chains; planners are warmed up on one-gesture problems."""

    def __init__(
        self,
        chain_race: ChainRace,
        warm_up: Race,
        competitors: Sequence[Competitor],
        budgets: Sequence[float | None],
    ) -> None:
        """Hold them; nothing is planned yet.

        Args:
            chain_race: What is raced on.
            warm_up: What warms planners up; of its problems only the picture size counts.
            competitors: Who races.
            budgets: Deadlines of each plan that will be asked for, which planners are warmed up
                under.
        """
        super().__init__(warm_up, competitors, budgets)
        self.chain_race = chain_race

    def solve(self, todo: Todo) -> Iterator[Solved]:
        """Go through one chain with each planner, in turn; `Solved.records` are `ChainRecord`s."""
        self._warm_up(todo)
        for name, budget_ms in todo.turns:
            record = self.chain_race.attempt(self.competitors[name], todo.problem, budget_ms)
            yield Solved((record,), {})  # first plans are timed in the race


@dataclass(frozen=True)
class ChainSettings(WorkerSettings):
    """What a process needs to make a `ChainWorker`; `num_problems` are those of its warm-up.

    Attributes:
        num_chains: Chains to draw.
        stop_distance: The latent distance at which the host stops.
    """

    num_chains: int
    stop_distance: float

    @classmethod
    def around(
        cls, settings: WorkerSettings, num_chains: int, stop_distance: float
    ) -> ChainSettings:
        """The same planners, models, split and seed, but for chains."""
        same = {field.name: getattr(settings, field.name) for field in fields(WorkerSettings)}
        return cls(
            **{**same, "num_problems": 1}, num_chains=num_chains, stop_distance=stop_distance
        )

    def make(self) -> ChainWorker:
        """Load the models, draw the chains, build the planners.

        Raises:
            ConfigError: A planner lacks an asset or refuses its settings.
            VJ2DDIMError: A file is missing or broken.
        """
        base = super().make()
        size = base.race.problems.start.size
        chains = chain_problems(self.num_chains, split=self.split, seed=self.seed, size=size)
        model = base.race.world_model
        race = ChainRace(model, chains, self.stop_distance, self.seed, base.race.make_cost)
        return ChainWorker(race, base.race, list(base.competitors.values()), self.budgets)
