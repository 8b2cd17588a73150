"""One planning call: how it searches, candidates and their ranking, deadlines and failures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.schedule import TIMESTEP_SPACINGS, NoiseSchedule, TimestepPairs
from vj2_ddim_plugin.settings import Settings, setting
from vj2_ddim_plugin.spec import ActionSpec

if TYPE_CHECKING:
    from vj2_ddim_plugin.model import SamplerModel

__all__ = ["LARGEST_SEED", "MOST_VALUES", "SearchSettings"]

LARGEST_SEED = 2**64 - 1
MOST_VALUES = 2**28  # numbers of all candidates of one plan: 1 GiB of them


@dataclass(frozen=True)
class SearchSettings(Settings):
    """How one optimizer searches.

    Raises:
        ConfigError: A setting is out of range, or two contradict one another.
    """

    num_inference_steps: int | None = setting(
        None, "DDIM steps N; None takes as many as the model recommends, usually 10.", low=1
    )
    num_candidates: int = setting(
        16,
        "Samples K that the planner's cost ranks; without a cost, one is drawn.",
        low=1,
        high=1_000_000,
    )
    num_ranked: int | None = setting(
        None,
        "Of the K, how many the bundle's ranker picks for the cost to rank, the warm start besides "
        "(without num_robust, a plan is never worse than it); 1 leaves the choice to the ranker. "
        "Where a problem has no cost, K are drawn and the ranker's favourite is the plan. None "
        "does without the ranker.",
        low=1,
    )
    eta: float = setting(0.0, "0 is DDIM, 1 is DDPM.", low=0, high=1)
    guidance_scale: float = setting(
        1.0, "Classifier-free guidance, uncond + s * (cond - uncond); 1 is off.", low=0, high=100
    )
    temperature: float = setting(
        1.0,
        "Standard deviation of the noise that sampling starts from. Below 1, samples crowd where "
        "the model is surest: a single one hits more often, many differ less (compare Ajay et al. "
        "2023, who scale the noise of every step).",
        low=0,
        high=1,
    )
    num_refinements: int | None = setting(
        0,
        "Rounds that re-noise the best candidates and denoise them again; None goes on until the "
        "deadline, which every problem must then have.",
        low=0,
        high=1_000_000,
    )
    refinement_strength: float = setting(
        0.4, "How far to re-noise, as a share of the schedule.", above=0, below=1
    )
    num_robust: int = setting(
        0,
        "Of the cheapest, how many are asked about again, moved a little each way; the plan is the "
        "one whose worst cost is lowest, and its cost stays its own. 0 takes the cheapest. Under a "
        "deadline, as many as there is time for. A warm start that is cheaper may then lose to a "
        "plan that is safer.",
        low=0,
    )
    robust_radius: float = setting(
        0.015, "How far they are moved, as a share of each channel's range.", above=0, high=1
    )
    warm_start_share: float = setting(
        0.25,
        "Share of the candidates that, where a problem has a warm start, begin at the warm start "
        "re-noised by refinement_strength instead of at pure noise.",
        low=0,
        below=1,
    )
    project: bool = setting(
        True, "Whether candidates are projected onto valid gestures before they are ranked."
    )
    timestep_spacing: str | None = setting(
        None, "Overrides the schedule's spacing.", choices=TIMESTEP_SPACINGS
    )
    seed: int = setting(0, "Used where a problem brings none.", low=0, high=LARGEST_SEED)

    def check(self) -> None:
        """Refuse counts that do not fit into one another."""
        if self.num_ranked is not None and self.num_ranked > self.num_candidates:
            raise ConfigError(
                f"num_ranked must be at most num_candidates, {self.num_candidates}, of which the "
                f"ranker picks so many; found {self.num_ranked}"
            )
        most = self.num_ranked or self.num_candidates
        if self.num_robust == 1 or self.num_robust > most:
            raise ConfigError(
                f"num_robust must be 0, or from 2 to {most}, the candidates that are ranked; found "
                f"{self.num_robust}"
            )

    def most_candidates(self, spec: ActionSpec) -> int:
        """The most plans of one problem that are held at once: candidates, or copies of some."""
        return max(self.num_candidates, self.num_robust * 2 * len(spec.coordinate_indices))

    def check_model(self, model: SamplerModel) -> None:
        """Raise `ConfigError` for a setting that cannot work with this model."""
        from vj2_ddim_plugin.model import ranker_of  # ONNX Runtime loads slowly

        if self.num_ranked is not None and ranker_of(model) is None:
            raise ConfigError(
                f"num_ranked {self.num_ranked} needs a ranker, and this bundle has none. Export it "
                f"with one ('vj2-ddim export CHECKPOINT --ranker ranker.pt'), or leave num_ranked "
                f"None: then the cost is asked of all candidates"
            )
        if self.guidance_scale != 1.0 and not model.condition.inputs:
            raise ConfigError(
                f"guidance_scale {self.guidance_scale} needs a conditional model; this one is "
                f"unconditional. Leave it at 1.0"
            )
        if self.guidance_scale != 1.0 and not model.condition.guidance:
            raise ConfigError(
                f"guidance_scale {self.guidance_scale} needs a model that was trained without its "
                f"condition as well; this one never was (condition_dropout 0). Leave it at 1.0, or "
                f"train with a condition_dropout of 0.2"
            )
        self.pairs(model.schedule, self.steps(model.schedule))
        self.middle_pairs(model.schedule, self.steps(model.schedule))

    def steps(self, schedule: NoiseSchedule) -> int:
        """N, as it was told, or as a model's schedule recommends."""
        return self.num_inference_steps or schedule.num_inference_steps

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
