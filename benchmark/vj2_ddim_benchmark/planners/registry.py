"""The registry of planners: one row each, in the order of the report."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from vj2_ddim_benchmark.amortised.base import Sampling
from vj2_ddim_benchmark.amortised.training import load_amortised
from vj2_ddim_benchmark.planners import cross_entropy as ce
from vj2_ddim_benchmark.planners import gradient_descent as descent
from vj2_ddim_benchmark.planners import population as sampling
from vj2_ddim_benchmark.planners.amortised import TRIED, AmortisedOptimizer
from vj2_ddim_benchmark.planners.ddim_started import StartedOptimizer, WarmStarted
from vj2_ddim_benchmark.planners.description import Planner, PlannerAssets, read_tuned
from vj2_ddim_benchmark.planners.retrieval import FEATURES, Memory, RetrievalOptimizer
from vj2_ddim_benchmark.settings import TUNED_DIR
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.interface import ActionOptimizer
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_plugin.settings import Settings
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.data.trajectories import open_trajectories

GUIDANCE_SCALES = (1.0, 1.25, 1.5, 2.0)
TEMPERATURES = (0.5, 0.75, 1.0)
TRUE = "@true-dynamics"  # after the name of a planner that may ask the screen itself
LEARNING_RATES = {  # wide enough that the best is not at an edge
    "sgd": (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4, 1e5),
    "adam": (0.003, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
}


def make_ddim(
    assets: PlannerAssets, settings: Mapping[str, Any], part: str = "bundle"
) -> DDIMOptimizer:
    """DDIM from the bundle, or a student's, on the CPU."""
    own = {"provider": "cpu", "num_threads": assets.num_threads, "seed": assets.seed}
    return DDIMOptimizer.from_bundle(assets.path(part), **{**own, **settings})


def ddim(num_candidates: int, suffix: str = "", *, in_quick: bool = True, **how: int) -> Planner:
    """DDIM samples from the bundle; a single one is not ranked and sees no world model."""
    return Planner(
        f"ddim-{num_candidates}{suffix}",
        make_ddim,
        {"guidance_scale": GUIDANCE_SCALES, "temperature": TEMPERATURES},
        with_cost=num_candidates > 1,
        in_quick=in_quick,
        fixed={"num_candidates": num_candidates, "num_inference_steps": 10, **how},
        needs=("bundle",),
        unprojected={"project": False},
    )


def student(num_candidates: int, suffix: str = "", **how: int) -> Planner:
    """Samples of the student, in as many steps as it was made for; its guidance is in it."""
    return Planner(
        f"student-{num_candidates}{suffix}",
        partial(make_ddim, part="student"),
        {"temperature": TEMPERATURES},
        with_cost=num_candidates > 1,
        in_quick=False,
        fixed={"num_candidates": num_candidates, **how},
        needs=("student",),
        unprojected={"project": False},
    )


def make_ddim_cem(assets: PlannerAssets, settings: Mapping[str, Any]) -> StartedOptimizer:
    """DDIM's candidates, then CEM with the elites, smoothing and covariance of its own sweep."""
    tuned = {**read_tuned(TUNED_DIR, GESTURE_CEM)}
    del tuned["std"]  # that of the candidates
    how = ce.CandidateCEMSettings(seed=assets.seed, **tuned)
    return StartedOptimizer(_ranked_ddim(assets), ce.CandidateCEM(assets.action_spec, how))


def make_ddim_adam(assets: PlannerAssets, settings: Mapping[str, Any]) -> StartedOptimizer:
    """DDIM's plan, then Adam as it was tuned for itself."""
    optimizer = ADAM.build(assets, read_tuned(TUNED_DIR, ADAM))
    return StartedOptimizer(_ranked_ddim(assets), WarmStarted(optimizer))


def _ranked_ddim(assets: PlannerAssets) -> ActionOptimizer:
    return RANKED.build(assets, read_tuned(TUNED_DIR, RANKED))


def make_search(
    optimizer: Callable[[ActionSpec, Any], ActionOptimizer], how: Callable[..., Settings],
    assets: PlannerAssets, settings: Mapping[str, Any],
) -> ActionOptimizer:  # fmt: skip
    """A planner that is made from its settings alone."""
    return optimizer(assets.action_spec, how(seed=assets.seed, **settings))


def gradient_descent(
    method: str, steps: int, suffix: str = "", *,
    num_restarts: int = 1, tried: Sequence[str] = descent.STARTS, in_quick: bool = False,
) -> Planner:  # fmt: skip
    """From one start, of those that are tried, or also from many gestures beside it."""
    return Planner(
        f"gradient-descent-{method}-{steps}{suffix}",
        partial(make_search, descent.GradientDescentOptimizer, descent.GradientDescent),
        {"lr": LEARNING_RATES[method], "start": tried},
        in_quick=in_quick,
        fixed={"method": method, "num_iterations": steps, "num_restarts": num_restarts},
    )


def population(
    kind: type[sampling.PopulationSettings], rounds: int, samples: int,
    search_space: Mapping[str, Sequence[Any]], in_quick: bool = False,
) -> Planner:  # fmt: skip
    """So many rounds of so many samples, both in the row's name."""
    return Planner(
        f"{kind.planner.lower().replace(' ', '-')}-{rounds}x{samples}",
        partial(make_search, sampling.PopulationOptimizer, kind),
        search_space,
        in_quick=in_quick,
        fixed={"num_iterations": rounds, "num_samples": samples},
    )


def gesture_cem(rounds: int, samples: int, in_quick: bool = False) -> Planner:
    """CEM over gestures, with an eighth or a quarter of the samples as elites."""
    elites, smoothing = (samples // 8, samples // 4), (0.3, 0.5, 0.7, 0.9)
    fitted = {"num_elites": elites, "smoothing": smoothing, "std": (0.5, 0.8)}
    tried = {**fitted, "covariance": ce.COVARIANCES}
    return population(ce.GestureCEM, rounds, samples, tried, in_quick)


def make_amortised(
    kind: str, assets: PlannerAssets, settings: Mapping[str, Any]
) -> AmortisedOptimizer:
    """A planner from the trained model of a kind."""
    model = load_amortised(assets.path(kind), kind)
    return AmortisedOptimizer(assets.action_spec, model, Sampling(seed=assets.seed, **settings))


def make_retrieval(assets: PlannerAssets, settings: Mapping[str, Any]) -> RetrievalOptimizer:
    """Retrieval from the training split."""
    transitions = open_trajectories(assets.path("latents"), assets.action_spec, "train")
    memory = Memory.of(transitions, settings["features"], seed=assets.seed)
    return RetrievalOptimizer(assets.action_spec, memory, settings["num_neighbours"])


def retrieval(num_neighbours: int) -> Planner:
    """The nearest transitions; a single one is not ranked and sees no world model."""
    return Planner(
        f"retrieval-{num_neighbours}",
        make_retrieval,
        {"features": FEATURES},
        with_cost=num_neighbours > 1,
        in_quick=False,
        fixed={"num_neighbours": num_neighbours},
        needs=("latents",),
    )


def amortised(kind: str, num_candidates: int) -> Planner:
    """What an amortised model draws; a single one is not ranked and sees no world model."""
    one, ranked = TRIED[kind]
    return Planner(
        f"{kind}-{num_candidates}",
        partial(make_amortised, kind),
        ranked if num_candidates > 1 else one,
        with_cost=num_candidates > 1,
        in_quick=False,
        fixed={"num_candidates": num_candidates},
        needs=(kind,),
    )


make_random = partial(make_search, sampling.RandomGesturesOptimizer, sampling.RandomGestures)
RANKED = ddim(16)
ADAM = gradient_descent("adam", 10, in_quick=True)
GESTURE_CEM = gesture_cem(8, 16, in_quick=True)

# fmt: off
REGISTRY: tuple[Planner, ...] = (
    RANKED,
    ddim(16, "-robust-2", num_robust=2),
    ddim(16, "-refined-2", num_refinements=2, in_quick=False),
    ddim(16, "-ranker-1", num_ranked=1),
    ddim(16, "-ranker-4", num_ranked=4, in_quick=False),
    ddim(1),
    student(1),
    student(16),
    student(16, "-ranker-1", num_ranked=1),
    student(16, "-ranker-4", num_ranked=4),
    Planner("ddim-16-cem", make_ddim_cem, in_quick=False, needs=("bundle",)),
    Planner("ddim-16-adam-10", make_ddim_adam, in_quick=False, needs=("bundle",)),
    Planner("regression", partial(make_amortised, "regression"),
            with_cost=False, needs=("regression",)),
    Planner("gaussian-prior-16", partial(make_amortised, "gaussian"),
            {"std_scale": (0.25, 0.5, 1.0, 1.5)},
            fixed={"num_candidates": 16}, needs=("gaussian",)),
    retrieval(16),
    gradient_descent("sgd", 10),
    gradient_descent("sgd", 10, "-x16", num_restarts=16, tried=("gestures",)),
    gradient_descent("sgd", 200),
    ADAM,
    gradient_descent("adam", 10, "-zeros", tried=("zeros",)),
    gradient_descent("adam", 10, "-gestures", tried=("gestures",)),
    gradient_descent("adam", 10, "-x16", num_restarts=16, tried=("gestures",), in_quick=True),
    gradient_descent("adam", 50),
    gradient_descent("adam", 200),
    population(ce.CEM, 8, 32, {"num_elites": (4, 8), "smoothing": (0.1, 0.4, 0.7),
                               "num_knots": (None, 10), "start": sampling.POPULATION_STARTS}),
    population(ce.ICEM, 8, 60, {"noise_beta": (1.0, 2.0, 3.0, 4.0), "std": (0.25, 0.5, 1.0),
                                "start": sampling.POPULATION_STARTS}),
    population(sampling.MPPI, 8, 32, {"temperature": (1e-6, 1e-5, 1e-4, 1e-3),
                             "noise_std": (0.1, 0.25, 0.5), "num_knots": (None, 25),
                             "start": sampling.POPULATION_STARTS}),
    population(sampling.PredictiveSampling, 8, 32, {"noise_std": (0.02, 0.05, 0.1, 0.2, 0.4)}),
    GESTURE_CEM,
    gesture_cem(8, 64),
    Planner("random-gestures-16", make_random, fixed={"num_candidates": 16}),
)
# fmt: on
RIVALS = (  # nothing of them is shipped: they race where they are given
    amortised("regression", 16),
    *(
        amortised(kind, num)
        for kind in ("mixture", "flow", "mip", "inverse-dynamics")
        for num in (1, 16)
    ),
)
WITH_RIVALS = (*REGISTRY, *RIVALS)


def planners_of(
    names: Sequence[str] | None = None, *, quick: bool = False, latents: bool = False,
    rows: Sequence[Planner] = REGISTRY,
) -> tuple[Planner, ...]:  # fmt: skip
    """Rows of the registry, in its order: those named, or all that there are the assets for.

    `NAME@true-dynamics` is the row with the screen itself as its model, in place of a learned one.
    """
    if not names:
        usable = (planner for planner in rows if latents or "latents" not in planner.needs)
        return tuple(planner for planner in usable if planner.in_quick or not quick)
    known = {planner.name: planner for planner in rows}
    for planner in rows:
        if planner.with_cost:
            name = f"{planner.name}{TRUE}"
            known[name] = planner.variant(name, true_dynamics=True)
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(
            f"planner {unknown[0]!r} is unknown; use one of "
            f"{', '.join(planner.name for planner in rows)}, with {TRUE} after it where a cost "
            f"ranks its candidates"
        )
    return tuple(planner for name, planner in known.items() if name in names)
