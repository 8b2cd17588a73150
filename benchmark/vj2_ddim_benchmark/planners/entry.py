"""What the benchmark knows about a planner: its name, how to build it, what of it is tuned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.interface import ActionOptimizer

__all__ = ["BuildAssets", "Entry", "SearchSpace", "Settings"]

Settings = Mapping[str, Any]
SearchSpace = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class BuildAssets:
    """What planners are built from.

    Attributes:
        action_spec: The same bounds and valid gestures for all.
        bundle_path: The exported denoiser, or None where no planner needs one.
        num_threads: Threads of one operator, the same for all.
        seed: Seed of planners whose problems bring none.
        latents_path: The denoiser's training data, or None where no planner needs them.
        regression_path: The amortised model of kind `regression`, or None likewise.
        gaussian_path: The amortised model of kind `gaussian`, or None likewise.
    """

    action_spec: ActionSpec
    bundle_path: Path | None = None
    num_threads: int = 1
    seed: int = 0
    latents_path: Path | None = None
    regression_path: Path | None = None
    gaussian_path: Path | None = None

    @property
    def required_bundle_path(self) -> Path:
        """`bundle_path`, for the planners that cannot do without.

        Raises:
            ConfigError: There is none.
        """
        if self.bundle_path is None:
            raise ConfigError("this planner needs a bundle; pass --bundle")
        return self.bundle_path

    @property
    def required_latents_path(self) -> Path:
        """`latents_path`, for the planners that cannot do without.

        Raises:
            ConfigError: There is none.
        """
        if self.latents_path is None:
            raise ConfigError("this planner needs the denoiser's training data; give latents_path")
        return self.latents_path

    @property
    def required_regression_path(self) -> Path:
        """`regression_path`, likewise."""
        return self._required_model("regression_path")

    @property
    def required_gaussian_path(self) -> Path:
        """`gaussian_path`, likewise."""
        return self._required_model("gaussian_path")

    def _required_model(self, name: str) -> Path:
        path: Path | None = getattr(self, name)
        if path is None:
            raise ConfigError(f"this planner needs a trained amortised model; give {name}")
        return path


Build = Callable[[BuildAssets, Settings], ActionOptimizer]


@dataclass(frozen=True)
class Entry:
    """One line of the registry.

    Attributes:
        name: What the report calls it; unique.
        build: Makes the optimizer from the assets and its tuned settings.
        search_space: The values to try of each tuned setting; empty when nothing is tuned.
        with_cost: Whether it is given the planner's cost.
        build_unprojected: Makes a twin that does not project its plans, for planners whose result
            does not hold its plan before projection; it runs outside the measured time.
        in_quick: Whether quick runs include it.
        needs_latents: Whether it is built from `BuildAssets.latents_path`.
    """

    name: str
    build: Build
    search_space: SearchSpace = field(default_factory=dict)
    with_cost: bool = True
    build_unprojected: Build | None = None
    in_quick: bool = True
    needs_latents: bool = False
