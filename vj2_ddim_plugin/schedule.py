"""Noise schedules, and the algebra of what a denoiser may predict.

The one source of truth for training, export and sampling. The forward process is
`x_t = sqrt(alphas_cumprod[t]) x_0 + sqrt(1 - alphas_cumprod[t]) epsilon` (Ho et al. 2020, eq. 4).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from vj2_ddim_plugin.errors import ScheduleError
from vj2_ddim_plugin.settings import Settings, setting

if TYPE_CHECKING:
    from vj2_ddim_plugin.interface import FloatArray

__all__ = [
    "BETA_SCHEDULES", "ORIGINAL_SCHEDULE", "PREDICTION_TYPES", "TIMESTEP_SPACINGS", "NoiseSchedule",
    "conversion", "signal_and_noise", "target_of",
]  # fmt: skip

BETA_SCHEDULES = ("linear", "cosine", "zero_terminal_snr")
PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")
TIMESTEP_SPACINGS = ("linspace", "leading", "trailing")

NUMBERS = ("num_train_timesteps", "beta_start", "beta_end", "final_alpha_cumprod")
LEAST_SHARE = 1e-15  # of noise or signal that may be divided by

TimestepPairs = list[tuple[int, int]]


@dataclass(frozen=True)
class NoiseSchedule(Settings):
    """How noise is added in training and taken away in sampling.

    `linear` is Ho et al. 2020, `cosine` Nichol & Dhariwal 2021, eq. 17, and `zero_terminal_snr` the
    linear one rescaled as in Lin et al. 2023, algorithm 1; `v_prediction` is Salimans & Ho 2022,
    appendix D.

    Raises:
        ScheduleError: On construction, for unknown names, and for epsilon prediction with zero
            terminal SNR, where x0 cannot be recovered from pure noise.
    """

    error: ClassVar[Any] = ScheduleError
    newer: ClassVar[Any] = ("num_inference_steps",)

    beta_schedule: str = setting(
        "cosine", "How the noise grows over the timesteps.", choices=BETA_SCHEDULES
    )
    prediction_type: str = setting(
        "v_prediction",
        "What the denoiser returns: the noise, the sample x0, or v.",
        choices=PREDICTION_TYPES,
    )
    num_train_timesteps: int = setting(1000, "Timesteps T of training.", low=2, high=100_000)
    beta_start: float = setting(
        1e-4, "First beta of the linear schedules, at most beta_end.", above=0.0, below=1.0
    )
    beta_end: float = setting(2e-2, "Last beta of the linear schedules.", above=0.0, below=1.0)
    timestep_spacing: str = setting(
        "trailing",
        "How sampling timesteps are spaced; linspace is the original script's, T-1 to 0 inclusive.",
        choices=TIMESTEP_SPACINGS,
    )
    final_alpha_cumprod: float = setting(
        1.0,
        "The alphas_cumprod that the last step arrives at, at least the first; 1 is noise-free.",
        above=0.0,
        high=1.0,
    )
    num_inference_steps: int = setting(
        10, "Steps that sampling takes where nobody says how many.", low=1, high=100_000
    )

    def check(self) -> None:
        """Refuse combinations that cannot work."""
        if self.beta_start > self.beta_end:
            raise ScheduleError(
                f"need 0 < beta_start <= beta_end < 1; found {self.beta_start}, {self.beta_end}"
            )
        if self.beta_schedule == "zero_terminal_snr" and self.prediction_type == "epsilon":
            raise ScheduleError(
                "prediction_type 'epsilon' cannot work with beta_schedule 'zero_terminal_snr': at "
                "the last timestep the sample is pure noise and x0 would be divided by zero. Use "
                "prediction_type 'v_prediction' or 'sample'"
            )
        if any(getattr(self, name) != getattr(NoiseSchedule, name) for name in NUMBERS):
            self._check_numbers()  # the default ones work, and computing them loads numpy

    def _check_numbers(self) -> None:
        first, late, last = map(float, self.alphas_cumprod[[0, -2, -1]])
        last = last if self.prediction_type == "epsilon" else late  # others may end without signal
        if not min(1.0 - first, late, last) >= LEAST_SHARE:  # nor NaN
            raise ScheduleError(
                f"beta_start {self.beta_start}, beta_end {self.beta_end} and num_train_timesteps "
                f"{self.num_train_timesteps} leave {1.0 - first:g} of noise at first and {last:g} "
                f"of signal at last; nothing can be divided by so little. Change beta_start or "
                f"beta_end, or take fewer timesteps"
            )
        if self.final_alpha_cumprod < first:
            raise ScheduleError(
                f"final_alpha_cumprod must be at least the first alphas_cumprod, {first!r}, or "
                f"sampling would end noisier than it was; found {self.final_alpha_cumprod!r}"
            )

    @cached_property
    def alphas_cumprod(self) -> FloatArray:
        """`[T]` float64, decreasing: the share of signal variance left at each timestep."""
        import numpy as np  # not for the settings alone

        if self.beta_schedule == "cosine":  # capped at 0.999, as in the paper
            share = np.arange(self.num_train_timesteps + 1) / self.num_train_timesteps
            signal = np.cos((share + 0.008) / 1.008 * np.pi / 2) ** 2
            betas = np.minimum(1.0 - signal[1:] / signal[:-1], 0.999)
        else:
            betas = np.linspace(self.beta_start, self.beta_end, self.num_train_timesteps)
        alphas_cumprod = np.cumprod(1.0 - betas)
        if self.beta_schedule == "zero_terminal_snr":
            root = np.sqrt(alphas_cumprod)
            with np.errstate(invalid="ignore"):  # betas of nothing: NaN, which is refused
                alphas_cumprod = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
        return np.asarray(alphas_cumprod)

    def alpha_cumprod(self, timestep: int) -> float:
        """`alphas_cumprod[timestep]`; timestep -1 is the end of sampling."""
        return self.final_alpha_cumprod if timestep < 0 else float(self.alphas_cumprod[timestep])

    def timesteps(
        self,
        num_inference_steps: int,
        *,
        spacing: str | None = None,
        start_timestep: int | None = None,
    ) -> TimestepPairs:
        """The N `(timestep, prev_timestep)` pairs of one sampling run, descending; the end is -1.

        Consecutive timesteps are paired, so that no stride has to divide T.

        `spacing` overrides `timestep_spacing`. From a `start_timestep` instead of T-1, the spacing
        is that of a schedule with `start_timestep + 1` timesteps (`leading` is shifted, to begin at
        the start).

        Raises:
            ScheduleError: N is below 1 or above the timesteps there are.
        """
        spacing = spacing or self.timestep_spacing
        if spacing not in TIMESTEP_SPACINGS:
            raise ScheduleError(
                f"timestep_spacing {spacing!r} is unknown; use one of "
                f"{', '.join(TIMESTEP_SPACINGS)}"
            )
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
        visited = _visited(num_inference_steps, available, spacing, start_timestep)
        descending = visited.astype(int).tolist()
        return list(zip(descending, [*descending[1:], -1], strict=True))


def _visited(steps: int, available: int, spacing: str, start: int | None) -> FloatArray:
    """Timesteps in descending order, whole numbers."""
    import numpy as np

    if spacing == "linspace":
        distance = np.arange(steps, dtype=np.float64) * (available - 1)
        # a rounded quotient just below a whole number would be truncated to the one before
        return np.asarray(available - 1 + np.floor_divide(-distance, max(steps - 1, 1)))
    if spacing == "leading":
        visited = np.arange(steps, dtype=np.float64)[::-1] * (available // steps)
        # a given sample is denoised at its own noise level
        return visited if start is None else visited + (start - visited[0])
    return np.rint(np.linspace(available, 0, steps, endpoint=False)) - 1


ORIGINAL_SCHEDULE = NoiseSchedule("linear", "epsilon", timestep_spacing="linspace")
"""The original script's schedule, which its checkpoints do not record."""

Multiples = tuple[Any, Any]
"""How much of the sample, and of the model output, is in something: two numbers, or two arrays."""


def signal_and_noise(alpha_cumprod: Any) -> tuple[Any, Any]:  # noqa: ANN401
    """How much of x0 and of epsilon is in x_t: DDPM eq. 4, of a number, an array or a tensor."""
    if isinstance(alpha_cumprod, float):  # stays one: float32 samples must stay float32
        return math.sqrt(alpha_cumprod), math.sqrt(1.0 - alpha_cumprod)
    if hasattr(alpha_cumprod, "sqrt"):
        return alpha_cumprod.sqrt(), (1.0 - alpha_cumprod).sqrt()
    import numpy as np

    return np.sqrt(alpha_cumprod), np.sqrt(1.0 - alpha_cumprod)


def conversion(prediction_type: str, alpha_cumprod: Any) -> tuple[Multiples, Multiples]:  # noqa: ANN401
    """How to read x0, and how epsilon, off the sample and the model output.

    DDIM eq. 9 (Song, Meng & Ermon 2021) for epsilon; Salimans & Ho 2022, appendix D, for v.
    """
    signal, noise = signal_and_noise(alpha_cumprod)
    if prediction_type == "epsilon":
        return (1.0 / signal, -noise / signal), (0.0, 1.0)
    if prediction_type == "sample":
        return (0.0, 1.0), (1.0 / noise, -signal / noise)
    return (signal, -noise), (noise, signal)


def target_of(prediction_type: str, original: Any, noise: Any, alpha_cumprod: Any) -> Any:  # noqa: ANN401
    """What a denoiser should return for x0 with this noise: the inverse of `conversion`."""
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "sample":
        return original
    share_of_x0, share_of_noise = signal_and_noise(alpha_cumprod)
    return share_of_x0 * noise - share_of_noise * original
