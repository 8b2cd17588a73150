"""One benchmark from end to end: build the planners, race, summarise, draw, report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vj2_ddim_benchmark.planners.entry import BuildAssets, Entry
from vj2_ddim_benchmark.protocol.competitors import build_competitors
from vj2_ddim_benchmark.protocol.pictures import draw_pictures
from vj2_ddim_benchmark.protocol.report import write_report
from vj2_ddim_benchmark.protocol.run import Progress, Race, read_cold
from vj2_ddim_benchmark.protocol.setup import claim_folder, environment, use_threads
from vj2_ddim_benchmark.protocol.summary import Row, summarise, write_summary
from vj2_ddim_benchmark.protocol.tuning import TUNED_DIR, read_tuned
from vj2_ddim_benchmark.world.problems import one_gesture_problems
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
        budget_ms: Deadline of each plan, or None.
        tuned: The folder of the recorded sweeps.
    """

    world_model: Path
    bundle: Path | None
    num_problems: int = 300
    split: str = "test"
    seed: int = 0
    threads: int = 1
    budget_ms: float | None = None
    tuned: Path = TUNED_DIR

    def run(
        self, out: Path, entries: Sequence[Entry], progress: Progress | None = None
    ) -> list[Row]:
        """Race the entries and write everything into a folder; a run cut short resumes.

        Returns:
            The rows of `summary.json`.

        Raises:
            ConfigError: The folder holds a run of other settings, or a planner is not tuned.
            VJ2DDIMError: A file is missing or broken.
        """
        use_threads(self.threads)
        settings = {entry.name: read_tuned(self.tuned, entry) for entry in entries}
        model = WorldModel.load(self.world_model)
        spec = ActionSpec() if self.bundle is None else read_bundle(self.bundle).action_spec
        problems = one_gesture_problems(
            self.num_problems, split=self.split, seed=self.seed, size=model.config.screen_size
        )
        fixed = self._fixed()
        noted = {**environment(), "tuned": settings, "world_model_report": model.report}
        claim_folder(out, fixed, noted)
        competitors = build_competitors(
            entries, BuildAssets(spec, self.bundle, self.threads, self.seed), settings
        )
        race = Race(model, problems, self.seed, self.budget_ms)
        records = race.run(out, competitors, progress)
        rows = summarise(records, read_cold(out))
        write_summary(out / "summary.json", rows)
        pictures = draw_pictures(out / "pictures", race, competitors, records, rows)
        write_report(out / "report.md", rows, records, {**fixed, **noted}, pictures)
        return rows

    def _fixed(self) -> dict[str, Any]:
        """What must be the same for the results in one folder to be comparable."""
        bundle = None if self.bundle is None else sha256_of(self.bundle / "bundle.json")
        return {
            "split": self.split,
            "seed": self.seed,
            "num_problems": self.num_problems,
            "threads": self.threads,
            "budget_ms": self.budget_ms,
            "world_model_sha256": sha256_of(self.world_model),
            "bundle_sha256": bundle,
        }
