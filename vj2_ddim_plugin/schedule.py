"""Noise schedules: betas -> `alphas_cumprod` -> explicit `(timestep, prev_timestep)` pairs.

The one source of truth for training, export and sampling. The forward process is
`x_t = sqrt(alphas_cumprod[t]) x_0 + sqrt(1 - alphas_cumprod[t]) epsilon` (Ho et al. 2020, eq. 4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from vj2_ddim_plugin.errors import ScheduleError
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.records import from_plain, to_plain

__all__ = ["BETA_SCHEDULES", "PREDICTION_TYPES", "TIMESTEP_SPACINGS", "NoiseSchedule"]

BETA_SCHEDULES = ("linear", "cosine", "zero_terminal_snr")
PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")
TIMESTEP_SPACINGS = ("linspace", "leading", "trailing")

TimestepPairs = list[tuple[int, int]]


def _require(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ScheduleError(f"{name} {value!r} is unknown; use one of {', '.join(choices)}")


@dataclass(frozen=True)
class NoiseSchedule:
    """How noise is added in training and taken away in sampling.

    Attributes:
        beta_schedule: `linear` (Ho et al. 2020), `cosine` (Nichol & Dhariwal 2021, eq. 17), or
            `zero_terminal_snr` (the linear one rescaled as in Lin et al. 2023, algorithm 1).
        prediction_type: What the denoiser returns: `epsilon`, `sample` (x0) or `v_prediction`
            (Salimans & Ho 2022, appendix D).
        num_train_timesteps: T.
        beta_start: First beta of the linear schedules.
        beta_end: Last beta of the linear schedules.
        timestep_spacing: Default spacing of the sampling timesteps: `linspace` (the original
            script's, from T-1 to 0 inclusive), `leading` or `trailing`.
        final_alpha_cumprod: The value of `alphas_cumprod` that the last step arrives at; 1 is
            noise-free data.

    Raises:
        ScheduleError: On construction, for unknown names, and for epsilon prediction with zero
            terminal SNR, where x0 cannot be recovered from pure noise.
    """

    beta_schedule: str = "linear"
    prediction_type: str = "epsilon"
    num_train_timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 2e-2
    timestep_spacing: str = "linspace"
    final_alpha_cumprod: float = 1.0

    def __post_init__(self) -> None:
        """Refuse combinations that cannot work."""
        _require("beta_schedule", self.beta_schedule, BETA_SCHEDULES)
        _require("prediction_type", self.prediction_type, PREDICTION_TYPES)
        _require("timestep_spacing", self.timestep_spacing, TIMESTEP_SPACINGS)
        if self.num_train_timesteps < 2:
            raise ScheduleError(
                f"num_train_timesteps must be at least 2; found {self.num_train_timesteps}"
            )
        if not 0.0 < self.beta_start <= self.beta_end < 1.0:
            raise ScheduleError(
                f"need 0 < beta_start <= beta_end < 1; found {self.beta_start}, {self.beta_end}"
            )
        if not 0.0 < self.final_alpha_cumprod <= 1.0:
            raise ScheduleError(
                f"final_alpha_cumprod must be in (0, 1]; found {self.final_alpha_cumprod}"
            )
        if self.beta_schedule == "zero_terminal_snr" and self.prediction_type == "epsilon":
            raise ScheduleError(
                "prediction_type 'epsilon' cannot work with beta_schedule 'zero_terminal_snr': at "
                "the last timestep the sample is pure noise and x0 would be divided by zero. Use "
                "prediction_type 'v_prediction' or 'sample'"
            )

    @cached_property
    def alphas_cumprod(self) -> FloatArray:
        """`[T]` float64, decreasing: the share of signal variance left at each timestep."""
        if self.beta_schedule == "cosine":
            cosine: FloatArray = np.cumprod(1.0 - self._cosine_betas())
            return cosine
        betas = np.linspace(self.beta_start, self.beta_end, self.num_train_timesteps)
        alphas_cumprod: FloatArray = np.cumprod(1.0 - betas)
        if self.beta_schedule == "linear":
            return alphas_cumprod
        root = np.sqrt(alphas_cumprod)
        rescaled: FloatArray = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
        return rescaled

    def _cosine_betas(self) -> FloatArray:
        """Betas of the cosine schedule, capped at 0.999 as in the paper."""
        share = np.arange(self.num_train_timesteps + 1) / self.num_train_timesteps
        signal = np.cos((share + 0.008) / 1.008 * np.pi / 2) ** 2
        betas: FloatArray = np.minimum(1.0 - signal[1:] / signal[:-1], 0.999)
        return betas

    def alpha_cumprod(self, timestep: int) -> float:
        """`alphas_cumprod[timestep]`; timestep -1 is the end of sampling."""
        if timestep < 0:
            return self.final_alpha_cumprod
        return float(self.alphas_cumprod[timestep])

    def timesteps(
        self,
        num_inference_steps: int,
        *,
        spacing: str | None = None,
        start_timestep: int | None = None,
    ) -> TimestepPairs:
        """The `(timestep, prev_timestep)` pairs of one sampling run, in order.

        Consecutive timesteps are paired, so that no stride has to divide T. The last
        `prev_timestep` is -1.

        Args:
            num_inference_steps: Steps N.
            spacing: Overrides `timestep_spacing`.
            start_timestep: Start here instead of at T-1; the spacing is that of a schedule with
                `start_timestep + 1` timesteps (`leading` is shifted, to begin at the start).

        Returns:
            N pairs of descending timesteps.

        Raises:
            ScheduleError: N is below 1 or above the timesteps there are.
        """
        spacing = spacing or self.timestep_spacing
        _require("timestep_spacing", spacing, TIMESTEP_SPACINGS)
        available = self.num_train_timesteps if start_timestep is None else start_timestep + 1
        if not 1 <= available <= self.num_train_timesteps:
            raise ScheduleError(
                f"start_timestep must be in 0 to {self.num_train_timesteps - 1}; found "
                f"{start_timestep}"
            )
        if not 1 <= num_inference_steps <= available:
            raise ScheduleError(
                f"num_inference_steps must be in 1 to {available}, the timesteps there are; found "
                f"{num_inference_steps}"
            )
        if spacing == "linspace":
            distance = np.arange(num_inference_steps, dtype=np.float64) * (available - 1)
            # a rounded quotient just below a whole number would be truncated to the one before
            visited = available - 1 + np.floor_divide(-distance, max(num_inference_steps - 1, 1))
        elif spacing == "leading":
            stride = available // num_inference_steps
            visited = np.arange(num_inference_steps, dtype=np.float64)[::-1] * stride
            if start_timestep is not None:  # a given sample is denoised at its own noise level
                visited += start_timestep - visited[0]
        else:
            visited = np.rint(np.linspace(available, 0, num_inference_steps, endpoint=False)) - 1
        descending = [int(timestep) for timestep in visited]
        return list(zip(descending, [*descending[1:], -1], strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and checkpoints."""
        return to_plain(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> NoiseSchedule:
        """The inverse of `to_dict`; raises `ScheduleError` for a missing or unknown field."""
        return from_plain(cls, values, ScheduleError)
