"""The comparison as one JSON file and one Markdown table."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from vj2_ddim_benchmark.protocol.setup import environment
from vj2_ddim_benchmark.two_room.collect import recording_path
from vj2_ddim_benchmark.two_room.compare import verdict
from vj2_ddim_benchmark.two_room.episodes import load_episodes
from vj2_ddim_benchmark.two_room.evaluation import Problems
from vj2_ddim_benchmark.two_room.lewm import load_lewm
from vj2_ddim_benchmark.two_room.prepare import Preparation
from vj2_ddim_benchmark.two_room.quality import prediction_error
from vj2_ddim_benchmark.two_room.solvers import HOST_SOLVERS
from vj2_ddim_benchmark.two_room.tuning import Row, read_rows
from vj2_ddim_plugin.files import sha256_of, write_json

__all__ = ["markdown_table", "write_results"]

HEADINGS = ("solver", "settings", "success", "95 % interval", "median ms a plan", "p95 ms")


def write_results(
    path: Path,
    rows: Sequence[Row],
    folder: Path,
    what: Preparation,
    problems: Problems,
    validation: Problems,
) -> None:
    """Write everything that was measured, and what it was measured with.

    Args:
        path: The JSON file.
        rows: What `compare` returned.
        folder: The comparison's folder.
        what: How it was prepared.
        problems: Test problems.
        validation: Tuning problems.
    """
    write_json(
        path,
        {
            "host": f"stable-worldmodel {version('stable-worldmodel')}",
            "date": time.strftime("%Y-%m-%d"),
            "environment": environment(),
            "preparation": json.loads(json.dumps(asdict(what))),
            "lewm_error_px": _lewm_error(folder, what),
            "lewm_sha256": sha256_of(folder / "lewm.pt"),
            "test": {"episodes": problems.episodes, "starts": problems.starts},
            "validation": {"episodes": validation.episodes, "starts": validation.starts},
            "timing": json.loads((folder / "timing.json").read_text(encoding="utf-8")),
            "rows": list(rows),
            "verdict": verdict(list(rows)),
            "tuning": {
                "spaces": {name: dict(kind.space) for name, kind in HOST_SOLVERS.items()},
                "rows": read_rows(folder / "tuning.json"),
            },
        },
    )


def _lewm_error(folder: Path, what: Preparation) -> dict[str, list[float]]:
    """Of the world model's predictions on validation episodes."""
    known, held_out = (
        load_episodes([recording_path(folder, name)]) for name in ("test", "validation")
    )
    world_model = load_lewm(folder / "lewm.pt")
    return prediction_error(world_model, known, held_out, what.evaluation.horizon)


def markdown_table(rows: Sequence[Row]) -> str:
    """One line a solver and variant; the highest success first, then the fastest."""
    ordered = sorted(rows, key=lambda row: (-row["success"], row["median_plan_s"]))
    lines = ["| " + " | ".join(HEADINGS) + " |", "| --- | --- | ---: | ---: | ---: | ---: |"]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in ordered]
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> list[str]:
    low, high = row["wilson_95"]
    settings = ", ".join(f"{name} {value}" for name, value in row["settings"].items())
    variant = row["variant"] if row["variant"] != "tuned" else f"tuned: {settings}"
    return [
        row["solver"],
        variant,
        f"{row['success']:.1%}",
        f"{low:.1%} to {high:.1%}",
        f"{1e3 * row['median_plan_s']:.1f}",
        f"{1e3 * row['p95_plan_s']:.1f}",
    ]
