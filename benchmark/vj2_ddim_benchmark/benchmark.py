"""`vj2-ddim benchmark run`: one benchmark from end to end: race, study, draw, report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vj2_ddim_benchmark.assets import shipped_assets
from vj2_ddim_benchmark.assets.build import build_assets
from vj2_ddim_benchmark.assets.settings import AssetSettings
from vj2_ddim_benchmark.environment import environment, use_threads
from vj2_ddim_benchmark.planners.description import Planner, PlannerAssets, read_tuned
from vj2_ddim_benchmark.planners.registry import planners_of
from vj2_ddim_benchmark.race import workers
from vj2_ddim_benchmark.race.folder import RaceFolder, gather
from vj2_ddim_benchmark.race.records import ChainRecord, R, Record
from vj2_ddim_benchmark.race.tasks import most_generous, stop_distance_of
from vj2_ddim_benchmark.race.workers import Worker, WorkerSettings
from vj2_ddim_benchmark.report.page import CHAINS_DIR, rebuild_report
from vj2_ddim_benchmark.report.pictures import animate_record, draw_pictures, telling_chain
from vj2_ddim_benchmark.report.summary import Row, summarise_chains
from vj2_ddim_benchmark.settings import RaceSettings
from vj2_ddim_benchmark.studies import STUDIES_DIR, StudySettings
from vj2_ddim_benchmark.world.problems import chain_problems
from vj2_ddim_benchmark.world_model.model import WorldModel
from vj2_ddim_plugin.bundle import read_bundle
from vj2_ddim_plugin.cli.console import Progress, progress_bars, silent
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.files import sha256_of
from vj2_ddim_plugin.spec import ActionSpec


@dataclass(frozen=True)
class Benchmark:
    """A race in a folder, its chains and its studies; each resumes where it was cut short."""

    settings: RaceSettings
    out: Path
    progress: Progress = silent

    def race(self, planners: Sequence[Planner]) -> list[Row]:
        """Race planners, draw and report; returns the summary's rows."""
        given = self.settings
        use_threads(given.threads)
        settings = self._worker_settings(planners, given.budgets, given.total_problems)
        report = WorldModel.load(settings.world_model).report
        folder = self._folder(self.out, settings, {}, world_model_report=report)
        worker = settings.make()  # it also draws the pictures
        records = self._gather(folder, settings, Record, "plan", worker)
        budget = most_generous(given.budgets)
        shown = [record for record in records if record.budget_ms == budget]
        ready = list(worker.planners.values())
        draw_pictures(self.out / "pictures", worker.race, ready, shown, budget)  # type: ignore[arg-type]
        return rebuild_report(self.out, self.out)

    def study(self, studies: StudySettings) -> list[Row]:
        """Make studies beside a race that was run, and write its report anew."""
        total = self.settings.total_problems
        for name, planners in {name: studies.variants(name) for name in studies.study}.items():
            settings = self._worker_settings(planners, (None,), total)
            where, files = self.out / STUDIES_DIR / name, _own_files(planners)
            folder, num = self._folder(where, settings, files), studies.study_problems or total
            self._gather(folder, settings, Record, f"study {name}", num=min(num, total))
        return rebuild_report(self.out, self.out)

    def go_through_chains(self, planners: Sequence[Planner]) -> list[Row]:
        """Go through chains beside a race, and write its report anew; returns the chains' rows."""
        given, num = self.settings, self.settings.total_chains
        settings = self._worker_settings(planners, (None,), num)
        model = WorldModel.load(settings.world_model)
        size = model.config.screen_size
        settings = replace(settings, stop_distance=stop_distance_of(model, size))
        fixed = {"num_chains": num, "stop_distance": settings.stop_distance}
        folder = self._folder(self.out / CHAINS_DIR, settings, fixed)
        records = self._gather(folder, settings, ChainRecord, "chain")
        drawn = chain_problems(num, split=given.split, seed=given.seed, size=size)
        shown = telling_chain(records, planners[0].name)
        animate_record(self.out / "pictures" / "chain.gif", drawn, shown)
        rebuild_report(self.out, self.out)
        return summarise_chains(records)

    def _worker_settings(
        self, planners: Sequence[Planner], budgets: tuple[float | None, ...], num: int
    ) -> WorkerSettings:
        given = self.settings
        if given.world_model is None:
            raise ConfigError("a race needs a world model; found world_model=None")
        spec = ActionSpec() if given.bundle is None else read_bundle(given.bundle).action_spec
        amortised = {"regression": given.regression, "gaussian": given.gaussian}
        parts = given.latents, given.student, amortised
        assets = PlannerAssets(spec, given.bundle, given.threads, given.seed, *parts)
        tuned = {planner.name: read_tuned(given.tuned, planner) for planner in planners}
        raced = tuple(planners), tuned, given.world_model, assets
        return WorkerSettings(*raced, num_problems=num, split=given.split, budgets=budgets)

    def _folder(
        self, path: Path, settings: WorkerSettings, fixed: Mapping[str, Any], **noted: object
    ) -> RaceFolder:
        """The folder, whose results must share what is fixed to be comparable.

        Not the number of workers: each result has its own, and the report tells of it.
        """
        given, folder = self.settings, RaceFolder(path)
        shared = {
            "split": given.split,
            "seed": given.seed,
            "num_problems": given.total_problems,
            "threads": given.threads,
            "on_ray": given.ray is not None,
            "world_model_sha256": sha256_of(settings.world_model),
            "bundle_sha256": given.bundle and sha256_of(given.bundle / "bundle.json"),
        }
        others = {"workers": given.workers, "tuned": settings.tuned, **noted}
        folder.claim({**shared, **fixed}, {**environment(), **others})
        return folder

    def _gather(
        self, folder: RaceFolder, settings: WorkerSettings, kind: type[R], phase: str,
        worker: Worker | None = None, num: int | None = None,
    ) -> list[R]:  # fmt: skip
        """Results of the planners under the budgets on the first `num` problems."""
        given = self.settings
        if given.ray is not None:
            executor = workers.over_ray(settings, given.ray, given.workers)
        elif given.workers > 1:
            executor = workers.over_processes(settings, given.workers)
        else:
            executor = workers.in_this_process(worker or settings.make())
        names, num = [planner.name for planner in settings.planners], num or settings.num_problems
        asked = folder, names, settings.budgets, num, executor, self.progress, phase
        return gather(*asked, kind=kind, workers=given.workers)


def _own_files(planners: Sequence[Planner]) -> dict[str, str]:
    """Hashes of what variants bring in place of the race's."""
    models = {p.world_model: p.name for p in planners if p.world_model is not None}
    bundles = {p.bundle: p.name for p in planners if p.bundle is not None}
    return {
        **{f"world_model_sha256 of {name}": sha256_of(path) for path, name in models.items()},
        **{f"bundle_sha256 of {n}": sha256_of(path / "bundle.json") for path, n in bundles.items()},
    }


def run(
    settings: RaceSettings, studies: StudySettings, out: Path, *, retrain: bool, small_sampler: bool
) -> list[list[Row]]:
    """Compare planners; returns the rows of the race, or the last study, and of the chains."""
    planners = planners_of(
        settings.planners, quick=settings.quick, latents=settings.latents is not None
    )
    in_chains = planners_of(settings.chain_planners)
    for planner in planners:
        read_tuned(settings.tuned, planner)  # what is not there is better found out before training
    for name in studies.study:
        studies.variants(name)
    if settings.ray is not None:
        workers.import_ray()
    with progress_bars() as progress:
        if retrain:
            assets = build_assets(out / "assets", AssetSettings(), progress, settings.threads)
        settings = (assets if retrain else shipped_assets()).fill(settings)
        if small_sampler:  # trained here, beside the one that is raced
            how = AssetSettings.small(), progress, settings.threads, settings.world_model
            bundle = build_assets(out / "small", *how).bundle
            planners += (planners_of(["ddim-16"])[0].variant("ddim-16-small", bundle=bundle),)
        benchmark = Benchmark(settings, out, progress)
        rows = benchmark.race(planners)
        gone = benchmark.go_through_chains(in_chains) if settings.total_chains else []
        if studies.study:
            rows = benchmark.study(studies)
    return [rows, gone] if gone else [rows]
