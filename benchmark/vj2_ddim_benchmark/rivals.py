"""`vj2-ddim benchmark rivals`: our denoiser and the amortised planners, trained alike, by seeds.

The same transitions, latents, batches, gradient steps and loop for all; the average of the last
weights plans. How each is sampled is chosen on validation screens, with the first seed's model.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vj2_ddim_benchmark.amortised.base import Sampling
from vj2_ddim_benchmark.amortised.training import load_amortised, train_amortised
from vj2_ddim_benchmark.assets import shipped_assets
from vj2_ddim_benchmark.assets.build import write_latents
from vj2_ddim_benchmark.assets.settings import AssetSettings, RivalSettings
from vj2_ddim_benchmark.assets.success import Screens
from vj2_ddim_benchmark.environment import environment, use_threads
from vj2_ddim_benchmark.planners.amortised import GUIDANCE, TRIED, WIDTHS, AmortisedOptimizer
from vj2_ddim_benchmark.planners.cross_entropy import GestureCEM
from vj2_ddim_benchmark.planners.description import SearchSpace
from vj2_ddim_benchmark.planners.prism import PrismOptimizer
from vj2_ddim_benchmark.planners.sweep import SPLIT, sweep
from vj2_ddim_benchmark.race.folder import RaceFolder
from vj2_ddim_benchmark.report.seeds import print_rivals, summarise_rivals
from vj2_ddim_benchmark.world.problems import TrueCost
from vj2_ddim_benchmark.world_model.model import LatentCost, WorldModel
from vj2_ddim_plugin.bundle import read_bundle
from vj2_ddim_plugin.cli.console import Progress, progress_bars
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.files import read_json, sha256_of, write_json
from vj2_ddim_plugin.gestures.segments import IntArray
from vj2_ddim_plugin.interface import ActionOptimizer
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_training.diffusion_model import TorchSampler
from vj2_ddim_training.examples import open_examples
from vj2_ddim_training.run import with_patch_size
from vj2_ddim_training.validation import SUCCESS

FULL = AssetSettings()
OURS, TUNED = "ddim", "tuned"
NUM_TIMED = 40  # plans, one at a time


@dataclass(frozen=True)
class Rival:
    """A method, and the settings that are tried of one sample and of ranked ones."""

    name: str
    one: SearchSpace | None = field(default_factory=dict)  # None: it always asks the world model
    ranked: SearchSpace = field(default_factory=dict)
    num_ranked: int = 16  # candidates, or cost evaluations in `rounds`
    rounds: int = 0  # of PRISM's search; 0 for others

    @property
    def kind(self) -> str:
        """The model that it trains."""
        return "gaussian" if self.rounds else self.name

    def build(self, path: Path, num: int, batched: bool, how: Mapping[str, Any]) -> ActionOptimizer:
        """From a trained model's file: in torch, the denoiser too."""
        model: Any = load_amortised(path, self.kind)
        if self.name == OURS:
            how = {"num_candidates": num, "num_inference_steps": 10, **how}
            return DDIMOptimizer(TorchSampler(model.network), **how)
        if self.rounds:
            rounds = self.rounds
            cem = GestureCEM(num_samples=num // rounds, num_iterations=rounds, **how)
            return PrismOptimizer(model.action_spec, model, cem)
        sampling = Sampling(num_candidates=num, batched=batched, **how)
        return AmortisedOptimizer(model.action_spec, model, sampling)


FUSED = {"std": (0.5, 0.8), "num_elites": (2, 4)}
OF_DDIM = {"guidance_scale": GUIDANCE, "temperature": WIDTHS}
RIVALS = {
    rival.name: rival
    for rival in (
        Rival(OURS, OF_DDIM, OF_DDIM),
        *(Rival(kind, *spaces) for kind, spaces in TRIED.items()),
        Rival("prism", None, FUSED, rounds=2),
        Rival("prism-128", None, FUSED, 128, rounds=8),
    )
}


def rivals(out: Path, settings: RivalSettings, json_file: Path | None = None) -> dict[str, Any]:
    """Train, tune and measure what is not there yet: all methods with one seed, then the next."""
    if unknown := [name for name in settings.methods if name not in RIVALS]:
        raise ConfigError(f"methods has {unknown[0]!r}; use some of {', '.join(RIVALS)}")
    use_threads(settings.threads)
    shipped = shipped_assets().world_model
    told = {name: of for name, of in settings.to_dict().items() if name not in ("seeds", "methods")}
    asked = {**told, "world_model_sha256": sha256_of(shipped)}
    RaceFolder(out).claim(asked, environment())
    with progress_bars() as progress:
        study, chosen = _Study(out, settings, WorldModel.load(shipped), progress), settings.methods
        found = [study.result(seed, name) for seed in settings.seeds for name in chosen or RIVALS]
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
        self.out, self.world_model, self.progress = out, world_model, progress
        model = replace(FULL.model, d_model=settings.d_model)
        training = replace(
            FULL.training, batch_size=settings.batch_size, num_threads=settings.threads
        )
        self.full = settings.applied_to(replace(FULL, model=model, training=training))
        self.validation = Screens.of(world_model, settings.num_validation, SPLIT, 7)
        self.test = Screens.of(world_model, settings.num_problems, "test", 0)

    def result(self, seed: int, name: str) -> dict[str, Any]:
        """Of one method and seed: read, or made and written."""
        path, rival = self.out / "results" / f"{name}-{seed}.json", RIVALS[name]
        if path.exists():
            return read_json(path, ConfigError)
        found: dict[str, Any] = {"method": name, "seed": seed}
        model = self.trained(rival.kind, seed)
        if rival.one is not None:
            found |= self.measured("one", rival, rival.one, partial(rival.build, model, 1))
        ranked = partial(rival.build, model, rival.num_ranked)
        found |= self.measured("ranked", rival, rival.ranked, ranked)
        write_json(_in_folder(path), found)
        return found

    def trained(self, kind: str, seed: int) -> Path:
        """The file of a model."""
        path, data = _in_folder(self.out / "models" / f"{kind}-{seed}.pt"), self.out / "latents"
        if not data.exists():
            write_latents(self.world_model, self.full, data, self.progress)
        if not path.exists():
            spec = read_bundle(shipped_assets().bundle).action_spec
            training = replace(self.full.training, seed=seed)
            examples = open_examples(data, spec, "latents", longest_goal=training.longest_goal)
            model = with_patch_size(self.full.model, spec)
            train_amortised(kind, examples, model, training, path, self.progress)
        return path

    def measured(
        self, what: str, rival: Rival, space: SearchSpace, build: Callable[..., ActionOptimizer]
    ) -> dict[str, Any]:
        """On test screens, with the best settings on validation screens: recorded, or tried now."""

        def cost_of(screens: Screens, rows: IntArray) -> LatentCost:
            return LatentCost(self.world_model, screens.state[rows], screens.goal[rows])

        tried, test = (
            None if what == "one" else partial(cost_of, of) for of in (self.validation, self.test)
        )
        path = _in_folder(self.out / TUNED / f"{rival.name}-{what}.json")
        if not path.exists():
            score = lambda how: (self.validation.reached(build(True, how), 0, tried)[SUCCESS], 0.0)  # noqa: E731
            sweep(space, score).write(path.parent, path.stem, {"split": SPLIT})
        winner = read_json(path, ConfigError)["winner"]
        best, alone = (build(batched, winner) for batched in (True, False))
        found: dict[str, Any] = {what: self.test.reached(best, 0, test)}
        if what == "ranked":
            truth = lambda rows: TrueCost(self.test.problems.select(rows))  # noqa: E731
            found["ranked_by_truth"] = self.test.reached(best, 0, truth)
        times = []
        for row in range(min(NUM_TIMED + 1, len(self.test.goal))):  # the first is slow
            begun = time.perf_counter()
            alone.optimize(self.test.ask(np.array([row]), row, test))
            times.append(1e3 * (time.perf_counter() - begun))
        return {**found, f"{what}_ms": float(np.median(times[1:]))}


def _in_folder(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
