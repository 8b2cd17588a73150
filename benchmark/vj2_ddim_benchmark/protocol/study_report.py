"""What the report shows of each study: a table, the times behind it, and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from vj2_ddim_benchmark.protocol.curves import draw_line
from vj2_ddim_benchmark.protocol.document import Picture, Section, Table
from vj2_ddim_benchmark.protocol.run_folder import read_run_folder
from vj2_ddim_benchmark.protocol.studies import STUDIES_DIR, Study, split_name, studies_of
from vj2_ddim_benchmark.protocol.summary import TASK, Row, summarise, write_summary
from vj2_ddim_benchmark.protocol.tables import main_table, with_interval
from vj2_ddim_plugin.files import atomic_path

__all__ = ["draw_study", "report_studies", "study_table"]


def report_studies(run: Path, out: Path) -> list[Section]:
    """A section a study that the run has; its summary and picture are written.

    Args:
        run: The folder of the raw results.
        out: Where summaries and pictures go; may be the same.

    Raises:
        DataError: A file of a study is missing or damaged.
    """
    folders = (run / STUDIES_DIR).glob("*/")
    sections = []
    for study in studies_of([folder.name for folder in folders]):
        found = read_run_folder(run / STUDIES_DIR / study.name)
        rows = summarise(found.records, found.cold)
        write_summary(out / STUDIES_DIR / study.name / "summary.json", rows)
        picture = out / "pictures" / f"study-{study.name}.png"
        draw_study(picture, study, rows)
        caption = f"{study.title}: goals reached; bars are Wilson's 95 % intervals."
        shown = (study.meaning, study_table(study, rows), Picture(picture, caption))
        sections.append(Section(study.title, shown))
        sections.append(Section(f"{study.title}: every figure", (main_table(rows),), wide=True))
    return sections


def study_table(study: Study, rows: Sequence[Row]) -> Table:
    """Success with its interval and the median time: one row a planner, one column a value."""
    cells = {
        split_name(row["planner"]): f"{with_interval(row)}, {row['p50_ms']:.1f} ms"
        for row in _overall(rows)
    }
    values = _values(rows)
    body = [(name, *(cells.get((name, value), "") for value in values)) for name in _series(rows)]
    head, *rest = values
    return Table(("planner", f"{study.axis} = {head}", *rest), tuple(body))


def draw_study(path: Path, study: Study, rows: Sequence[Row]) -> None:
    """Success with its interval against what was changed, a line a planner."""
    figure = Figure(figsize=(8.5, 4.2), layout="constrained")
    axes = figure.subplots()
    values, numbers = _values(rows), _numbers(_values(rows))
    places = dict(zip(values, numbers or range(len(values)), strict=True))
    for index, name in enumerate(_series(rows)):
        points = sorted(
            (
                places[split_name(row["planner"])[1]],
                100 * row["success"],
                100 * row["success_low"],
                100 * row["success_high"],
            )
            for row in _overall(rows)
            if split_name(row["planner"])[0] == name
        )
        draw_line(axes, index, points, name)
    if study.log and numbers is not None:
        axes.set_xscale("log", base=2)
    axes.minorticks_off()
    axes.set_xticks(list(places.values()), values)
    axes.set(xlabel=study.axis, ylabel="goals reached (%), 95 % interval", title=study.title)
    figure.legend(loc="outside right upper", frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130)


def _overall(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["task"] == TASK]


def _series(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(split_name(row["planner"])[0] for row in rows))


def _values(rows: Sequence[Row]) -> list[str]:
    """In ascending order if they are numbers, or else as they appear."""
    values = list(dict.fromkeys(split_name(row["planner"])[1] for row in rows))
    return values if _numbers(values) is None else sorted(values, key=float)


def _numbers(values: Sequence[str]) -> list[float] | None:
    try:
        return [float(value) for value in values]
    except ValueError:
        return None
