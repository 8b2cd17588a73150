"""Planners ready to run: built from the registry with their tuned settings, building timed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vj2_ddim_benchmark.planners.entry import BuildAssets, Entry, Settings
from vj2_ddim_plugin.interface import ActionOptimizer

__all__ = ["Competitor", "build_competitors"]


@dataclass(frozen=True)
class Competitor:
    """A planner that is ready to plan.

    Attributes:
        name: Its name in the registry.
        optimizer: What plans.
        with_cost: Whether it is given the cost.
        unprojected: A twin that does not project its plans, or None.
        settings: The tuned settings it was built with.
        build_ms: How long building it took.
        world_model: What it encodes with and plans through, or None for the race's.
    """

    name: str
    optimizer: ActionOptimizer
    with_cost: bool = True
    unprojected: ActionOptimizer | None = None
    settings: Mapping[str, Any] | None = None
    build_ms: float = 0.0
    world_model: Any = None


def build_competitors(
    entries: Sequence[Entry], assets: BuildAssets, tuned: Mapping[str, Settings]
) -> tuple[Competitor, ...]:
    """Build every entry.

    Args:
        entries: Lines of the registry.
        assets: What they are built from.
        tuned: The settings of each, by name.

    Raises:
        ConfigError: A planner lacks an asset or refuses its settings.
    """
    competitors = []
    for entry in entries:
        begun = time.perf_counter()
        optimizer = entry.build(assets, tuned[entry.name])
        build_ms = 1e3 * (time.perf_counter() - begun)
        twin = entry.build_unprojected
        unprojected = twin(assets, tuned[entry.name]) if twin else None
        competitors.append(
            Competitor(
                entry.name, optimizer, entry.with_cost, unprojected, tuned[entry.name], build_ms
            )
        )
    return tuple(competitors)
