"""One benchmark from end to end: race, study, draw, report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vj2_ddim_benchmark.chains.animation import animate_record, telling_chain
from vj2_ddim_benchmark.chains.records import CHAINS_DIR, ChainRecord
from vj2_ddim_benchmark.chains.stopping import stop_distance_of
from vj2_ddim_benchmark.chains.summary import summarise_chains
from vj2_ddim_benchmark.chains.worker import ChainSettings
from vj2_ddim_benchmark.planners.entry import BuildAssets, Entry
from vj2_ddim_benchmark.protocol.executors import in_this_process, over_processes, over_ray
from vj2_ddim_benchmark.protocol.gather import MapProblems, gather
from vj2_ddim_benchmark.protocol.pictures import draw_pictures
from vj2_ddim_benchmark.protocol.records import Record
from vj2_ddim_benchmark.protocol.report_command import rebuild_report
from vj2_ddim_benchmark.protocol.run import Progress, most_generous
from vj2_ddim_benchmark.protocol.setup import claim_folder, environment, use_threads
from vj2_ddim_benchmark.protocol.studies import STUDIES_DIR, StudySettings
from vj2_ddim_benchmark.protocol.summary import Row
from vj2_ddim_benchmark.protocol.tuning import TUNED_DIR, read_tuned
from vj2_ddim_benchmark.protocol.variants import Variant
from vj2_ddim_benchmark.protocol.worker import Worker, WorkerSettings
from vj2_ddim_benchmark.world.chains import chain_problems
from vj2_ddim_benchmark.world_model.model import WorldModel
from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.bundle import read_bundle
from vj2_ddim_plugin.files import sha256_of

__all__ = ["Benchmark"]


@dataclass(frozen=True)
class Benchmark:
    """What is compared, and how.

    Attributes:
        world_model: The world model's file.
        bundle: The exported denoiser's folder, or None when no planner needs it.
        num_problems: Problems to solve.
        split: Whose screens.
        seed: Seed of the problems and of the planners' randomness.
        threads: Threads of torch and of ONNX Runtime alike.
        budgets: Deadlines of a plan in ms, None for a planner's own full plan; all planners race
            under each.
        tuned: The folder of the recorded sweeps.
        latents: The denoiser's training data, or None when no planner needs it.
        regression: The amortised model of kind `regression`, or None likewise.
        gaussian: The amortised model of kind `gaussian`, or None likewise.
        workers: Problems solved at once, each in a process of its own if more than one.
        ray: Address of the Ray cluster that solves them, see `over_ray`; None for this machine.
    """

    world_model: Path
    bundle: Path | None
    num_problems: int = 300
    split: str = "test"
    seed: int = 0
    threads: int = 1
    budgets: tuple[float | None, ...] = (None,)
    tuned: Path = TUNED_DIR
    latents: Path | None = None
    regression: Path | None = None
    gaussian: Path | None = None
    workers: int = 1
    ray: str | None = None

    def run(
        self,
        out: Path,
        entries: Sequence[Entry],
        progress: Progress | None = None,
        others: Sequence[Variant] = (),
    ) -> list[Row]:
        """Race lines of the registry and write everything into a folder; a cut run resumes.

        Args:
            out: The folder.
            entries: The lines.
            progress: Told about every plan.
            others: Who races beside them.

        Returns:
            The rows of `summary.json`: all results of the folder, earlier ones too.

        Raises:
            ConfigError: The folder holds a run of other settings, or a planner is not tuned.
            VJ2DDIMError: A file is missing or broken.
        """
        use_threads(self.threads)
        variants = (*(Variant(entry.name, entry.name) for entry in entries), *others)
        settings = self._settings(variants, self.budgets)
        report = WorldModel.load(self.world_model).report
        claim_folder(out, self._fixed(), {**self._noted(settings), "world_model_report": report})
        worker = settings.make()  # it also draws the pictures
        names = [variant.name for variant in variants]
        records = gather(
            out,
            names,
            self.budgets,
            self.num_problems,
            self._executor(settings, worker),
            progress,
            kind=Record,
        )
        budget = most_generous(list(self.budgets))
        shown = [record for record in records if record.budget_ms == budget]
        competitors = list(worker.competitors.values())
        draw_pictures(out / "pictures", worker.race, competitors, shown, budget)
        return rebuild_report(out, out)

    def study(
        self,
        out: Path,
        names: Sequence[str],
        studies: StudySettings,
        num_problems: int | None = None,
        progress: Progress | None = None,
    ) -> list[Row]:
        """Make studies beside a race that was run, and write its report anew.

        Args:
            out: The race's folder.
            names: Which studies.
            studies: What they need besides the race.
            num_problems: How many of the race's problems, the first ones; all unless told.
            progress: Told about every plan.

        Returns:
            The rows of the race's `summary.json`.

        Raises:
            ConfigError: A study is unknown or lacks something, or its folder holds results of other
                settings.
            VJ2DDIMError: A file is missing or broken.
        """
        num = min(num_problems or self.num_problems, self.num_problems)
        variants = {name: studies.variants(name) for name in names}
        for name, chosen in variants.items():
            settings = self._settings(chosen, (None,))
            folder = out / STUDIES_DIR / name
            claim_folder(folder, {**self._fixed(), **_own_files(chosen)}, self._noted(settings))
            planners = [variant.name for variant in chosen]
            executor = self._executor(settings)
            gather(folder, planners, (None,), num, executor, progress, f"study {name}", kind=Record)
        return rebuild_report(out, out)

    def chains(
        self,
        out: Path,
        entries: Sequence[Entry],
        num_chains: int,
        progress: Progress | None = None,
    ) -> list[Row]:
        """Go through chains of gestures beside a race that was run, and write its report anew.

        Args:
            out: The race's folder.
            entries: Lines of the registry, each with its full plans; the first one's is animated.
            num_chains: How many.
            progress: Told about every chain.

        Returns:
            The rows of the chains' `summary.json`.

        Raises:
            ConfigError: The folder holds chains of other settings.
            VJ2DDIMError: A file is missing or broken.
        """
        model = WorldModel.load(self.world_model)
        size, names = model.config.screen_size, [entry.name for entry in entries]
        base = self._settings(tuple(Variant(name, name) for name in names), (None,))
        stop_distance = stop_distance_of(model, size=size)
        settings = ChainSettings.around(base, num_chains, stop_distance)
        folder = out / CHAINS_DIR
        fixed = {**self._fixed(), "num_chains": num_chains, "stop_distance": stop_distance}
        claim_folder(folder, fixed, self._noted(base))
        executor = self._executor(settings)
        records = gather(
            folder, names, base.budgets, num_chains, executor, progress, "chain", kind=ChainRecord
        )
        drawn = chain_problems(num_chains, split=self.split, seed=self.seed, size=size)
        animate_record(out / "pictures" / "chain.gif", drawn, telling_chain(records, names[0]))
        rebuild_report(out, out)
        return summarise_chains(records)

    def _settings(
        self, variants: tuple[Variant, ...], budgets: tuple[float | None, ...]
    ) -> WorkerSettings:
        spec = ActionSpec() if self.bundle is None else read_bundle(self.bundle).action_spec
        return WorkerSettings(
            variants=variants,
            tuned={variant.name: read_tuned(self.tuned, variant.line()) for variant in variants},
            world_model=self.world_model,
            assets=BuildAssets(
                spec,
                self.bundle,
                self.threads,
                self.seed,
                self.latents,
                self.regression,
                self.gaussian,
            ),
            num_problems=self.num_problems,
            split=self.split,
            seed=self.seed,
            budgets=budgets,
        )

    def _executor(self, settings: WorkerSettings, worker: Worker | None = None) -> MapProblems:
        if self.ray is not None:
            return over_ray(settings, self.ray, self.workers)
        if self.workers > 1:
            return over_processes(settings, self.workers)
        return in_this_process(worker or settings.make())

    def _fixed(self) -> dict[str, Any]:
        """What must be the same for the results in one folder to be comparable."""
        bundle = None if self.bundle is None else sha256_of(self.bundle / "bundle.json")
        return {
            "split": self.split,
            "seed": self.seed,
            "num_problems": self.num_problems,
            "threads": self.threads,
            "workers": self.workers,
            "on_ray": self.ray is not None,
            "world_model_sha256": sha256_of(self.world_model),
            "bundle_sha256": bundle,
        }

    def _noted(self, settings: WorkerSettings) -> dict[str, Any]:
        return {**environment(), "tuned": settings.tuned}


def _own_files(variants: Sequence[Variant]) -> dict[str, str]:
    """Hashes of what variants bring in place of the race's."""
    models = {v.world_model: v.name for v in variants if v.world_model is not None}
    bundles = {v.bundle: v.name for v in variants if v.bundle is not None}
    return {
        **{f"world_model_sha256 of {name}": sha256_of(path) for path, name in models.items()},
        **{f"bundle_sha256 of {n}": sha256_of(path / "bundle.json") for path, n in bundles.items()},
    }
