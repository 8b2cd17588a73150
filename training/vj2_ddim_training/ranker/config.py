"""Every setting of a ranker: its size, the candidates it learns from, and how it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.records import from_plain, to_plain

__all__ = ["RankerConfig"]


@dataclass(frozen=True)
class RankerConfig:
    """All of it is stored in `ranker.pt`.

    Attributes:
        width: Width of its layers; `nhead` must divide it.
        num_layers: Layers that look at the condition.
        nhead: Attention heads.
        num_queries: Tokens that one candidate is turned into.
        num_problems: Examples whose (state, goal) it learns from; all where there are fewer.
        num_sampled: Candidates a problem sampled by the model itself, as a planner's are.
        num_perturbed: Candidates a problem that are the true action, changed a little or a lot.
        num_random: Candidates a problem that are the true actions of other examples.
        num_inference_steps: DDIM steps of the sampled ones.
        full_difference: Difference of two costs whose order counts in full; less counts less. In
            standard deviations of the (logarithmic) cost among a problem's candidates.
        num_epochs: Times each problem is seen.
        batch_size: Problems a step.
        lr: Peak of the learning rate, reached after a warm-up and left along a cosine.
        weight_decay: Of AdamW.
        held_out_share: Share of the problems that are only measured.
        seed: Of the weights, the candidates and the order.
    """

    width: int = 64
    num_layers: int = 2
    nhead: int = 4
    num_queries: int = 4
    num_problems: int = 8000
    num_sampled: int = 10
    num_perturbed: int = 3
    num_random: int = 2
    num_inference_steps: int = 5
    full_difference: float = 0.5
    num_epochs: int = 20
    batch_size: int = 64
    lr: float = 1e-3
    weight_decay: float = 1e-2
    held_out_share: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        whole = ("width", "num_layers", "nhead", "num_queries", "num_inference_steps")
        for name in (*whole, "num_epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1; found {getattr(self, name)}")
        for name in ("num_sampled", "num_perturbed", "num_random", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be at least 0; found {getattr(self, name)}")
        if self.num_problems < 2 or self.num_candidates < 2:
            raise ConfigError(
                f"a ranker needs num_problems of at least 2 and a candidate besides the true one; "
                f"found {self.num_problems} problems, {self.num_candidates} candidates"
            )
        if self.full_difference <= 0.0 or self.lr <= 0.0 or self.weight_decay < 0.0:
            raise ConfigError(
                f"full_difference and lr must be above 0, weight_decay at least 0; found "
                f"{self.full_difference}, {self.lr} and {self.weight_decay}"
            )
        if not 0.0 <= self.held_out_share < 1.0:
            raise ConfigError(f"held_out_share must be in [0, 1); found {self.held_out_share}")

    @property
    def num_candidates(self) -> int:
        """Candidates a problem, the true action among them."""
        return 1 + self.num_sampled + self.num_perturbed + self.num_random

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return to_plain(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RankerConfig:
        """The inverse of `to_dict`; raises `ConfigError` for a missing or unknown field."""
        return from_plain(cls, values, ConfigError)
