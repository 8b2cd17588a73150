"""The settings of `DDIMOptimizer`, checked against the model they are to drive."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.model import SamplerModel
from vj2_ddim_plugin.ranker import ranker_of
from vj2_ddim_plugin.schedule import NoiseSchedule, TimestepPairs

__all__ = ["SearchSettings"]


@dataclass(frozen=True)
class SearchSettings:
    """How one optimizer searches; `DDIMOptimizer` documents each field."""

    num_inference_steps: int
    num_candidates: int
    num_ranked: int | None
    eta: float
    guidance_scale: float
    temperature: float
    num_refinements: int | None
    refinement_strength: float
    num_robust: int
    robust_radius: float
    warm_start_share: float
    project: bool
    timestep_spacing: str | None
    seed: int

    def check(self, model: SamplerModel) -> None:
        """Raise `ConfigError` for a setting that cannot work with this model."""
        for name, lowest in (
            ("num_candidates", 1),
            ("num_ranked", 1),
            ("num_refinements", 0),
            ("num_robust", 0),
            ("seed", 0),
        ):
            found = getattr(self, name)
            if found is not None and (not isinstance(found, int) or found < lowest):
                raise ConfigError(f"{name} must be an integer of at least {lowest}; found {found}")
        self._check_ranker(model)
        most = self.num_ranked or self.num_candidates
        if self.num_robust == 1 or self.num_robust > most:
            raise ConfigError(
                f"num_robust must be 0, or from 2 to {most}, the candidates that are ranked; found "
                f"{self.num_robust}"
            )
        if not 0.0 <= self.eta <= 1.0 or not 0.0 < self.refinement_strength < 1.0:
            raise ConfigError(
                f"eta must be in [0, 1] and refinement_strength in (0, 1); found {self.eta} and "
                f"{self.refinement_strength}"
            )
        if not 0.0 <= self.temperature <= 1.0:
            raise ConfigError(f"temperature must be in [0, 1]; found {self.temperature}")
        if not 0.0 < self.robust_radius <= 1.0:
            raise ConfigError(f"robust_radius must be in (0, 1]; found {self.robust_radius}")
        if not 0.0 <= self.warm_start_share < 1.0:
            raise ConfigError(f"warm_start_share must be in [0, 1); found {self.warm_start_share}")
        if self.guidance_scale != 1.0 and not model.condition.inputs:
            raise ConfigError(
                f"guidance_scale {self.guidance_scale} needs a conditional model; this one is "
                f"unconditional. Leave it at 1.0"
            )
        self.pairs(model.schedule, self.num_inference_steps)
        self.middle_pairs(model.schedule, self.num_inference_steps)

    def _check_ranker(self, model: SamplerModel) -> None:
        if self.num_ranked is None:
            return
        if self.num_ranked > self.num_candidates:
            raise ConfigError(
                f"num_ranked must be at most num_candidates, {self.num_candidates}, of which the "
                f"ranker picks so many; found {self.num_ranked}"
            )
        if ranker_of(model) is None:
            raise ConfigError(
                f"num_ranked {self.num_ranked} needs a ranker, and this bundle has none. Export it "
                f"with one ('vj2-ddim export CHECKPOINT --ranker ranker.pt'), or leave num_ranked "
                f"None: then the cost is asked of all candidates"
            )

    def pairs(self, schedule: NoiseSchedule, num_inference_steps: int) -> TimestepPairs:
        """Timesteps from pure noise."""
        return _pairs(schedule, num_inference_steps, self.timestep_spacing, None)

    def middle(self, schedule: NoiseSchedule) -> int:
        """The timestep that known actions are re-noised to."""
        return int(self.refinement_strength * schedule.num_train_timesteps)

    def middle_pairs(self, schedule: NoiseSchedule, num_inference_steps: int) -> TimestepPairs:
        """Timesteps from the middle; as many steps as its share of the whole run."""
        steps = max(1, round(self.refinement_strength * num_inference_steps))
        return _pairs(schedule, steps, self.timestep_spacing, self.middle(schedule))


@lru_cache(maxsize=64)
def _pairs(
    schedule: NoiseSchedule, steps: int, spacing: str | None, start_timestep: int | None
) -> TimestepPairs:
    """A plan asks for the same few again and again."""
    return schedule.timesteps(steps, spacing=spacing, start_timestep=start_timestep)
