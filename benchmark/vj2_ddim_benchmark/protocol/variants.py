"""Who races, in words that can be sent to another process, which a planner itself cannot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vj2_ddim_benchmark.planners.ddim import ddim
from vj2_ddim_benchmark.planners.entry import Entry
from vj2_ddim_benchmark.planners.registry import entries_of

__all__ = ["Variant"]


@dataclass(frozen=True)
class Variant:
    """A planner of the registry as it is, or with one thing changed.

    Attributes:
        name: What the results call it.
        entry: The registry's line; a variant shares its tuned settings.
        ddim: Arguments of `planners.ddim.ddim` that make the planner instead of the line; empty
            where the line does.
        bundle: The denoiser in place of the race's, or None.
        world_model: What it plans through in place of the race's world model, or None. Plans are
            judged by the screen, and their final cost is asked of the race's.
        goal_noise: Std of the noise on the goal latents it sees, in units of their own std.
    """

    name: str
    entry: str
    ddim: Mapping[str, Any] = field(default_factory=dict)
    bundle: Path | None = None
    world_model: Path | None = None
    goal_noise: float = 0.0

    def line(self) -> Entry:
        """The registry's line.

        Raises:
            ConfigError: There is none of that name.
        """
        return entries_of([self.entry])[0]

    def to_build(self) -> Entry:
        """What is built, under the variant's own name.

        Raises:
            ConfigError: The registry has no such line.
        """
        return replace(ddim(**self.ddim) if self.ddim else self.line(), name=self.name)
