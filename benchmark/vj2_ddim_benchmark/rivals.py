"""`vj2-ddim benchmark rivals`: our denoiser and the amortised planners, trained alike, by seeds.

The same transitions, latents, batches and gradient steps for all; the average of the last weights
plans. How each is sampled is chosen on validation screens, with the first seed's model.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vj2_ddim_benchmark.amortised import load_amortised, train_amortised
from vj2_ddim_benchmark.amortised.model import Sampling
from vj2_ddim_benchmark.amortised.training import fit
from vj2_ddim_benchmark.assets import shipped_assets
from vj2_ddim_benchmark.assets.build import write_latents
from vj2_ddim_benchmark.assets.settings import AssetSettings, RivalSettings
from vj2_ddim_benchmark.assets.success import shares_reached
from vj2_ddim_benchmark.environment import environment, use_threads
from vj2_ddim_benchmark.planners.amortised import AmortisedOptimizer
from vj2_ddim_benchmark.planners.cross_entropy import GestureCEM
from vj2_ddim_benchmark.planners.description import SearchSpace
from vj2_ddim_benchmark.planners.prism import PrismOptimizer
from vj2_ddim_benchmark.planners.registry import GUIDANCE_SCALES, TEMPERATURES
from vj2_ddim_benchmark.race.folder import RaceFolder
from vj2_ddim_benchmark.report.seeds import print_rivals, summarise_rivals
from vj2_ddim_benchmark.tuning import SPLIT, sweep
from vj2_ddim_benchmark.world.problems import Problems, TrueCost, one_gesture_problems
from vj2_ddim_benchmark.world_model.model import LatentCost, WorldModel
from vj2_ddim_plugin.bundle import read_bundle
from vj2_ddim_plugin.cli.console import Progress, progress_bars
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.files import read_json, sha256_of, write_json
from vj2_ddim_plugin.interface import ActionOptimizer, FloatArray, PlanningProblem
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from vj2_ddim_training.diffusion_model import DiffusionModel, TorchSampler, diffusion_loss
from vj2_ddim_training.examples import Examples, open_examples
from vj2_ddim_training.run import with_patch_size
from vj2_ddim_training.validation import SUCCESS

NUM_RANKED = 16  # candidates, or cost evaluations where a planner searches
FULL = AssetSettings()
NUM_TIMED = 40  # plans, one at a time
OURS, TUNED = "ddim", "tuned"

Make = Callable[..., ActionOptimizer]  # from a trained file, and settings


def make_ours(path: Path, batched: bool, **how: Any) -> DDIMOptimizer:  # noqa: ANN401
    """DDIM in torch, as the rivals are."""
    sampler = TorchSampler(load_checkpoint(path).model)
    return DDIMOptimizer(sampler, num_inference_steps=10, **how)


def make_sampled(path: Path, batched: bool, **how: Any) -> AmortisedOptimizer:  # noqa: ANN401
    """Ranked samples of an amortised model."""
    model = load_amortised(path)
    return AmortisedOptimizer(model.action_spec, model, Sampling(batched=batched, **how))


def make_prism(path: Path, batched: bool, num_candidates: int, **how: Any) -> PrismOptimizer:  # noqa: ANN401
    """As many evaluations as others have candidates, in rounds."""
    model: Any = load_amortised(path, "gaussian")
    rounds = how.pop("num_rounds")
    settings = GestureCEM(num_samples=num_candidates // rounds, num_iterations=rounds, **how)
    return PrismOptimizer(model.action_spec, model, settings)


@dataclass(frozen=True)
class Rival:
    """A method: what it trains, how it plans, and the settings tried of one sample and ranked."""

    name: str
    make: Make
    one: SearchSpace | None = field(default_factory=dict)  # None: it always asks the world model
    ranked: SearchSpace = field(default_factory=dict)
    trains: str | None = None  # the kind of model, where it is another's
    num_ranked: int = NUM_RANKED


GUIDED = {"guidance_scale": GUIDANCE_SCALES}
NEAR = {"std_scale": (0.02, 0.05, 0.1, 0.2)}
FUSED = {"std": (0.5, 0.8), "num_elites": (2, 4)}
OF_DDIM = {**GUIDED, "temperature": TEMPERATURES}
OF_FLOW = {**GUIDED, "std_scale": TEMPERATURES}
OF_MIXTURE = {"std_scale": (0.25, 0.5, 1.0), "greedy": (True, False)}
RIVALS = {
    rival.name: rival
    for rival in (
        Rival(OURS, make_ours, OF_DDIM, OF_DDIM),
        Rival("regression", make_sampled, {}, NEAR),
        Rival("mixture", make_sampled, OF_MIXTURE, OF_MIXTURE),
        Rival("flow", make_sampled, OF_FLOW, OF_FLOW),
        Rival("mip", make_sampled, {}, {"std_scale": (0.5, 1.0, 2.0, 4.0)}),
        Rival("inverse-dynamics", make_sampled, {}, NEAR),
        Rival("gaussian", make_sampled, {}, {"std_scale": (0.25, 0.5, 1.0, 1.5)}),
        Rival("prism", make_prism, None, {**FUSED, "num_rounds": (2,)}, "gaussian"),
        Rival("prism-128", make_prism, None, {**FUSED, "num_rounds": (8,)}, "gaussian", 128),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Screens:
    """Problems as a world model sees them."""

    problems: Problems
    world_model: WorldModel
    state: FloatArray
    goal: FloatArray

    @classmethod
    def of(cls, world_model: WorldModel, num: int, split: str, seed: int) -> "Screens":
        """Draw and encode them."""
        problems = one_gesture_problems(num, split=split, seed=seed)
        return cls(problems, world_model, *map(world_model.see, (problems.start, problems.goal)))

    def learned_cost(self, rows: Any) -> LatentCost:  # noqa: ANN401
        """By the world model."""
        return LatentCost(self.world_model, self.state[rows], self.goal[rows])

    def true_cost(self, rows: Any) -> TrueCost:  # noqa: ANN401
        """By the screens themselves."""
        return TrueCost(self.problems.select(rows))

    def shares(self, optimizer: ActionOptimizer, cost: str | None = None) -> dict[str, float]:
        """What is reached, ranked by a cost or not at all."""
        found = None if cost is None else getattr(self, cost)
        return shares_reached(optimizer, self.problems, self.state, self.goal, 0, found)

    def milliseconds(self, optimizer: ActionOptimizer, ranked: bool) -> float:
        """The median of a plan, one problem at a time, after the first; latents are there."""
        times = []
        for row in range(min(NUM_TIMED + 1, len(self.problems))):
            rows = np.array([row])
            context = {"state": self.state[rows], "goal": self.goal[rows]}
            cost = self.learned_cost(rows) if ranked else None
            begun = time.perf_counter()
            optimizer.optimize(PlanningProblem(context, cost, seed=row))
            times.append(1e3 * (time.perf_counter() - begun))
        return float(np.median(times[1:]))


def rivals(out: Path, settings: RivalSettings, json_file: Path | None = None) -> dict[str, Any]:
    """Train, tune and measure what is not there yet: all methods with one seed, then the next."""
    if unknown := [name for name in settings.methods if name not in RIVALS]:
        raise ConfigError(f"methods has {unknown[0]!r}; use some of {', '.join(RIVALS)}")
    use_threads(settings.threads)
    chosen = [RIVALS[name] for name in settings.methods or RIVALS]
    shipped = shipped_assets().world_model
    told = {name: of for name, of in settings.to_dict().items() if name not in ("seeds", "methods")}
    asked = {**told, "world_model_sha256": sha256_of(shipped)}
    RaceFolder(out).claim(asked, environment())
    with progress_bars() as progress:
        study = _Study(out, settings, WorldModel.load(shipped), progress)
        found = [study.result(rival, seed) for seed in settings.seeds for rival in chosen]
    tuned = {path.stem: read_json(path, ConfigError) for path in sorted((out / TUNED).iterdir())}
    rows = summarise_rivals(found, OURS)
    summary = {"settings": asked, "methods": rows, "tuned": tuned, "results": found}
    write_json(json_file or out / "rivals.json", {**summary, "environment": environment()})
    print_rivals(rows)
    return summary


class _Study:
    """The folder of the comparison, filled one result at a time."""

    def __init__(
        self, out: Path, settings: RivalSettings, world_model: WorldModel, progress: Progress
    ) -> None:
        self.out, self.settings, self.progress = out, settings, progress
        model = replace(FULL.model, d_model=settings.d_model)
        training = replace(FULL.training, batch_size=settings.batch_size)
        self.full = settings.applied_to(replace(FULL, model=model, training=training))
        self.world_model = world_model
        self.validation = Screens.of(world_model, settings.num_validation, SPLIT, 7)
        self.test = Screens.of(world_model, settings.num_problems, "test", 0)

    def result(self, rival: Rival, seed: int) -> dict[str, Any]:
        """Of one method and seed: read, or made and written."""
        path = self.out / "results" / f"{rival.name}-{seed}.json"
        if path.exists():
            return read_json(path, ConfigError)
        trained = self.trained(rival, seed)
        found: dict[str, Any] = {"method": rival.name, "seed": seed}
        asked = {"one": (rival.one, 1, None), "ranked": (rival.ranked, rival.num_ranked, "learned")}
        for name, (space, num, kind) in asked.items():
            if space is None:
                continue
            cost = None if kind is None else f"{kind}_cost"
            make = partial(rival.make, trained, num_candidates=num)
            winner = self.winner(f"{rival.name}-{name}", make, space, cost)
            best = make(batched=True, **winner)
            found[name] = self.test.shares(best, cost)
            if cost is not None:
                found["ranked_by_truth"] = self.test.shares(best, "true_cost")
            alone = make(batched=False, **winner)
            found[f"{name}_ms"] = self.test.milliseconds(alone, cost is not None)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, found)
        return found

    def winner(
        self, name: str, make: Make, space: SearchSpace, cost: str | None
    ) -> Mapping[str, Any]:
        """The best settings on validation screens: recorded, or tried now; of equals, the first."""
        path = self.out / TUNED / f"{name}.json"
        if not path.exists():
            tried, total = 0, int(np.prod([len(values) for values in space.values()]))

            def score(how: Mapping[str, Any]) -> tuple[float, float]:
                nonlocal tried
                shares = self.validation.shares(make(batched=True, **how), cost)
                self.progress(f"tune {name}", tried := tried + 1, total)
                return shares[SUCCESS], 0.0

            path.parent.mkdir(parents=True, exist_ok=True)
            sweep(space, score).write(path.parent, name, {"split": SPLIT})
        winner: Mapping[str, Any] = read_json(path, ConfigError)["winner"]
        return winner

    def trained(self, rival: Rival, seed: int) -> Path:
        """The file of its trained model."""
        kind = rival.trains or rival.name
        path, data = self.out / "models" / f"{kind}-{seed}.pt", self.out / "latents"
        if path.exists():
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        if not data.exists():
            write_latents(self.world_model, self.full, data, self.progress)
        training = replace(self.full.training, seed=seed, num_threads=self.settings.threads)
        spec = read_bundle(shipped_assets().bundle).action_spec
        examples = open_examples(data, spec, "latents", longest_goal=training.longest_goal)
        model = with_patch_size(self.full.model, spec)
        if kind == OURS:
            _train_ours(
                path, examples, replace(self.full, model=model, training=training), self.progress
            )
        else:
            train_amortised(kind, examples, model, training, path, self.progress)
        return path


def _train_ours(
    path: Path, examples: Examples, settings: AssetSettings, progress: Progress
) -> None:
    """The denoiser's own loss in the loop that trains the rivals, to a checkpoint."""
    training, spec = settings.training, examples.action_spec
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        model = DiffusionModel(settings.model, spec, NoiseSchedule(), examples.input_shapes)
    encoder: Any = model.condition_encoder
    encoder.set_statistics(examples.latents())

    def loss(original: Tensor, inputs: Mapping[str, Tensor], chance: torch.Generator) -> Tensor:
        shown = {name: inputs[name] for name in ("state", "goal")}
        return diffusion_loss(model, original, shown, chance, training)

    made_of = {"config": settings.model.to_dict(), "data": examples.data_fingerprint}
    state = Path(f"{path}.training")
    steps = fit(model, loss, examples, training, state, made_of, OURS, progress)
    averaged: DiffusionModel = steps.model.cpu().eval()  # type: ignore[assignment]
    known = {"config": training.to_dict(), "step": steps.step, "epoch": steps.epoch}
    weights = averaged.state_dict()
    checkpoint = Checkpoint(averaged, weights, known, examples.data_fingerprint, {}, environment())
    save_checkpoint(checkpoint, path)
    state.unlink()
