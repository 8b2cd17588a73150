"""The cross-entropy method and its kin: a Gaussian refitted to the best samples.

de Boer, Kroese, Mannor, Rubinstein (2005), "A tutorial on the cross-entropy method".
"""

from dataclasses import dataclass

import numpy as np

from vj2_ddim_benchmark.planners import parameter_spaces as spaces
from vj2_ddim_benchmark.planners import population
from vj2_ddim_benchmark.planners.population import PopulationSettings
from vj2_ddim_benchmark.planners.ranking import RankedPlan, Ranking
from vj2_ddim_plugin.interface import FloatArray, PlanningProblem, PlanResult
from vj2_ddim_plugin.planning.checks import checked_seed
from vj2_ddim_plugin.planning.deadline import Pace
from vj2_ddim_plugin.settings import setting
from vj2_ddim_plugin.spec import ActionSpec

COVARIANCES = ("diagonal", "full")
CANDIDATE_STREAM = 1  # of random numbers: not the ones that the candidates were drawn with


class Gaussian:
    """Independent normal distributions of all parameters: `mean` and `std` are `[B, M, C]`."""

    def __init__(self, mean: FloatArray, std: float, min_std: float) -> None:
        self.mean, self.min_std = mean, min_std
        self.std = np.full(mean.shape, std)

    def sample(self, noise: FloatArray) -> FloatArray:
        """Standard normal noise `[K, M, C]` to samples `[B, K, M, C]`."""
        return self.mean[:, None] + self.std[:, None] * noise

    def refit(self, elites: FloatArray, kept: float) -> None:
        """Move to mean and std of `[B, E, M, C]`, except for the share of the old that is kept."""
        self.mean = kept * self.mean + (1 - kept) * elites.mean(axis=1)
        self.std = np.maximum(kept * self.std + (1 - kept) * elites.std(axis=1), self.min_std)


class CorrelatedGaussian(Gaussian):
    """One normal distribution of all D = M * C parameters together, a covariance `[B, D, D]`."""

    def __init__(self, mean: FloatArray, std: float, min_std: float) -> None:
        super().__init__(mean, std, min_std)
        self.covariance = np.tile(std**2 * np.eye(mean[0].size), (len(mean), 1, 1))

    def sample(self, noise: FloatArray) -> FloatArray:
        """Standard normal noise `[K, M, C]` to samples `[B, K, M, C]`."""
        values, vectors = np.linalg.eigh(self.covariance)
        root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None]
        spread = noise.reshape(len(noise), -1) @ root.transpose(0, 2, 1)
        samples: FloatArray = self.mean[:, None] + spread.reshape(len(root), *noise.shape)
        return samples

    def refit(self, elites: FloatArray, kept: float) -> None:
        """Move towards the mean and the covariance of `[B, E, M, C]`, its diagonal kept up."""
        centred = (elites - elites.mean(axis=1, keepdims=True)).reshape(*elites.shape[:2], -1)
        found = centred.transpose(0, 2, 1) @ centred / elites.shape[1]
        covariance = kept * self.covariance + (1 - kept) * found
        variance = np.diagonal(covariance, axis1=1, axis2=2)
        lacking = np.maximum(self.min_std**2 - variance, 0.0)
        self.covariance = covariance + lacking[:, None] * np.eye(lacking.shape[1])
        self.mean = kept * self.mean + (1 - kept) * elites.mean(axis=1)


@dataclass(frozen=True)
class CrossEntropySettings(PopulationSettings):
    """What CEM and its kin have in common."""

    num_elites: int = setting(4, "Best candidates that the Gaussian is fitted to.", low=1)
    std: float = setting(0.5, "Std at first; 1 is half of each parameter's range.", above=0.0)
    smoothing: float = setting(0.1, "Share of the old that a fit keeps.", low=0.0, below=1.0)
    min_std: float = setting(0.01, "Floor of the standard deviation.", low=0.0)
    covariance: str = setting("diagonal", "A full one follows valleys.", choices=COVARIANCES)

    def check(self) -> None:
        """No more elites than samples."""
        if self.num_elites > self.num_samples:
            most = f"num_samples, {self.num_samples}; found {self.num_elites}"
            raise self.error(f"num_elites must be at most {most}")

    def proposal(self, mean: FloatArray) -> "CrossEntropy":
        """A Gaussian around the mean, and no elites yet."""
        kind = CorrelatedGaussian if self.covariance == "full" else Gaussian
        gaussian = kind(mean, self.std, self.min_std)
        return CrossEntropy(self, gaussian, getattr(self, "keep_share", 0.0))

    def noise(self, rng: np.random.Generator, iteration: int, shape: tuple[int, ...]) -> FloatArray:
        """Standard normal, `[K, M, C]` of shape `(M, C)`."""
        return rng.standard_normal((self.num_samples, *shape))


@dataclass(frozen=True)
class CEM(CrossEntropySettings):
    """The cross-entropy method over the actions, or over knots of them."""

    planner = "CEM"

    num_knots: int | None = setting(None, "See `ActionKnots`.", low=2)


class CrossEntropy:
    """The `Proposal` of CEM and its kin; a share of the elites competes again in the next round."""

    def __init__(self, how: CrossEntropySettings, gaussian: Gaussian, keep_share: float) -> None:
        self.how, self.gaussian, self.keep_share = how, gaussian, keep_share
        self.kept: FloatArray = gaussian.mean[:, None][:, :0]
        self.kept_cost: FloatArray = np.zeros(self.kept.shape[:2])

    def ask(self, rng: np.random.Generator, iteration: int) -> FloatArray:
        """Sample the Gaussian."""
        return self.gaussian.sample(self.how.noise(rng, iteration, self.gaussian.mean.shape[1:]))

    def tell(self, parameters: FloatArray, cost: FloatArray) -> None:
        """Refit to the elites of this population and of those kept from the ones before."""
        parameters = np.concatenate([self.kept, parameters], axis=1)
        cost = np.concatenate([self.kept_cost, cost], axis=1)
        elites, cost = population.elites_of(parameters, cost, self.how.num_elites)
        self.gaussian.refit(elites, self.how.smoothing)
        num_kept = round(self.keep_share * elites.shape[1])
        self.kept, self.kept_cost = elites[:, :num_kept], cost[:, :num_kept]


@dataclass(frozen=True)
class GestureCEM(CrossEntropySettings):
    """CEM over the gesture itself: six numbers in place of 750, and nothing but valid gestures."""

    planner = "gesture CEM"

    num_samples: int = setting(16, "Candidates of a population.", low=1)
    smoothing: float = setting(0.7, "Share of the old that a fit keeps.", low=0.0, below=1.0)
    min_std: float = setting(0.03, "Floor of the standard deviation.", low=0.0)
    start: str = setting("gestures", "See above.", choices=population.POPULATION_STARTS)

    def space(self, spec: ActionSpec) -> spaces.ParameterSpace:
        """Start, displacement, press time and release time."""
        return spaces.GestureParameters(spec)


@dataclass(frozen=True)
class ICEM(CrossEntropySettings):
    """CEM with noise that is smooth in time, elites that are kept, and shrinking populations.

    Pinneri et al. (2020), "Sample-efficient cross-entropy method for real-time planning". Elites
    from one planning call to the next are the host's to shift: they arrive as `init_action`. Kept
    ones are compared by the cost they had; they are not evaluated again.
    """

    planner = "iCEM"

    num_samples: int = setting(48, "Candidates of the first population.", low=1)
    min_std: float = setting(0.0, "Floor of the standard deviation.", low=0.0)
    noise_beta: float = setting(2.0, "Exponent of the noise's spectrum; 0 is white.", low=0.0)
    decay: float = setting(1.25, "Each population is smaller by this factor.", low=1.0)
    keep_share: float = setting(0.3, "Of the elites, for the next round.", low=0.0, high=1.0)

    def noise(self, rng: np.random.Generator, iteration: int, shape: tuple[int, ...]) -> FloatArray:
        """Coloured in time, `[K, M, C]`; the mean itself is one of the last population."""
        fewer = max(round(self.num_samples / self.decay**iteration), 2 * self.num_elites)
        num = min(self.num_samples, fewer)
        noise = coloured_noise(self.noise_beta, shape[0], (num, *shape[1:]), rng)
        noise = np.moveaxis(noise, -1, 1)
        if 0 < iteration == self.num_iterations - 1:
            noise[0] = 0.0
        return noise


def coloured_noise(
    beta: float, num_steps: int, shape: tuple[int, ...], rng: np.random.Generator
) -> FloatArray:
    """Series `[*shape, num_steps]` of mean 0 and std 1 at every step, their power as f^-beta.

    White at 0, pink at 1, Brownian at 2. Every frequency gets a random phase and a size of
    f^(-beta/2); the constant part counts as the lowest frequency. Timmer and König (1995), "On
    generating power law noise".
    """
    frequency = np.fft.rfftfreq(num_steps)
    frequency[0] = 1 / num_steps
    size = frequency ** (-beta / 2)
    real, imaginary = rng.standard_normal((2, *shape, len(size)))
    # The constant part, and the highest of an even length, are real; they count once, others twice.
    once = [0, -1] if num_steps % 2 == 0 else [0]
    real[..., once] *= np.sqrt(2.0)
    imaginary[..., once] = 0.0
    power = 4.0 * size**2
    power[once] /= 2.0
    series = np.fft.irfft(size * (real + 1j * imaginary), n=num_steps)
    scaled: FloatArray = series * num_steps / np.sqrt(power.sum())
    return scaled


@dataclass(frozen=True)
class CandidateCEMSettings(GestureCEM):
    """How CEM goes on from another planner's candidates; `start` and `std` are theirs."""

    planner = "DDIM-started CEM"

    num_iterations: int = setting(4, "Populations.", low=1)
    min_std: float = setting(0.05, "Floor of the standard deviation.", low=0.0)

    def check(self) -> None:
        """The candidates are elites too, so there may be more than samples."""


class CandidateCEM:
    """CEM whose first Gaussian is fitted to the best candidates, which stay in every population."""

    def __init__(self, action_spec: ActionSpec, settings: CandidateCEMSettings) -> None:
        self.action_spec, self.settings, self._pace = action_spec, settings, Pace()

    def __call__(
        self, problem: PlanningProblem, _: PlanResult, candidates: FloatArray, cost: FloatArray
    ) -> RankedPlan:
        """Search around the candidates `[B, K, L, A]` of known cost `[B, K]`."""
        how = self.settings
        ranking = Ranking(problem, self.action_spec, how.seed, how.planner, self._pace)
        rng = np.random.default_rng((checked_seed(problem, how.seed), CANDIDATE_STREAM))
        space = spaces.natural_space(self.action_spec)
        elites, cost = population.elites_of(space.encode(candidates), cost, how.num_elites)
        proposal = how.proposal(elites.mean(axis=1))
        proposal.gaussian.refit(elites, kept=0.0)
        proposal.keep_share, proposal.kept, proposal.kept_cost = 1.0, elites, cost
        drawn = space.clip(proposal.ask(rng, 1))
        found = drawn, space.decode(drawn), how.num_iterations, rng
        return population.search(ranking, space, proposal, *found)
