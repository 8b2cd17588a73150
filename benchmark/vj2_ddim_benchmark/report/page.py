"""`vj2-ddim benchmark report`: a run's tables and pictures; its words are in `templates`."""

import base64
import re
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from vj2_ddim_benchmark.race import records as results
from vj2_ddim_benchmark.race.folder import RaceFolder
from vj2_ddim_benchmark.race.records import ChainRecord, Record
from vj2_ddim_benchmark.race.tasks import SPARE_GESTURES
from vj2_ddim_benchmark.report import summary, tables
from vj2_ddim_benchmark.report.curves import draw_study, draw_success
from vj2_ddim_benchmark.report.summary import CHAIN, ONE_GESTURE, Row
from vj2_ddim_benchmark.report.tables import overall
from vj2_ddim_benchmark.studies import STUDIES, STUDIES_DIR
from vj2_ddim_plugin.cli.console import print_table
from vj2_ddim_plugin.errors import DataError
from vj2_ddim_plugin.files import atomic_path, read_json_value, write_json

CHAINS_DIR = "chains"
DRAWN_BY_THE_RACE = ("landscape.png", "plans.png", "chain.gif")  # they need the planners
SIGNATURES = {"png": (b"\x89PNG\r\n\x1a\n",), "gif": (b"GIF87a", b"GIF89a")}


@dataclass(frozen=True)
class Findings:
    """What a page tells of: rows of the summary, and whatever else is known."""

    rows: Sequence[Row]
    records: Sequence[Record] = ()
    setup: Mapping[str, Any] = field(default_factory=dict)
    chains: Sequence[Row] = ()
    studies: Mapping[str, Sequence[Row]] = field(default_factory=dict)


def rebuild_report(run: Path, out: Path) -> list[Row]:
    """Write the report, its pictures, and `summary.json`, of chains and studies too."""
    if run.is_file():
        recorded = _read_recorded(run)
        rows = list(recorded.rows)
        write_page(out, recorded, [_draw(out, rows)] if rows else [])
        return rows or [*recorded.chains, *next(iter(recorded.studies.values()), ())]
    found = RaceFolder(run).read()
    rows = summary.summarise(found.records, found.cold)
    chains: list[Row] = []
    in_chains = RaceFolder(run / CHAINS_DIR)
    if in_chains.begun:
        chains = summary.summarise_chains(results.read_records(in_chains.results, ChainRecord))
        write_json(out / CHAINS_DIR / "summary.json", chains)
    studies = {}
    for name in STUDIES:
        if (folder := RaceFolder(run / STUDIES_DIR / name)).begun:
            of_study = folder.read()
            studies[name] = summary.summarise(of_study.records, of_study.cold)
            write_json(out / STUDIES_DIR / name / "summary.json", studies[name])
    write_json(out / "summary.json", rows)
    pictures = [_draw(out, rows), *_taken(run / "pictures", out / "pictures")]
    write_page(out, Findings(rows, found.records, found.setup, chains, studies), pictures)
    return rows


def write_page(out: Path, found: Findings, pictures: Sequence[Path] = ()) -> None:
    """Write `report.md` and `report.html`; pictures are PNG or GIF files below the folder."""
    plans = overall(found.rows)
    budgets = {row["budget_ms"] for row in plans}
    asked = int(found.setup.get("num_problems", max((row["n"] for row in plans), default=0)))
    made = Counter(record.workers for record in found.records)
    plain, further = tables.setting_tables(found.setup)
    drawn = {name: out / "pictures" / f"study-{name}.png" for name in found.studies}
    for name, picture in drawn.items():
        draw_study(picture, STUDIES[name], found.studies[name])
    words = {
        "found": found,
        "num_planners": len({row["planner"] for row in plans}),
        "asked": asked,
        "missing": [f"{row['planner']} has {row['n']}" for row in plans if row["n"] != asked],
        "made": [f"{num} plans by {workers}" for workers, num in sorted(made.items())],
        "most_workers": max(made, default=1),
        "tables": tables,
        "plain": plain,
        "further": further,
        "budgets": budgets,
        "pairs": [
            _pairs(same, f", {tables.budget_name(budget)}" if len(budgets) > 1 else "")
            for budget, same in summary.by_budget(found.records).items()
            if len({record.planner for record in same}) > 1
        ],
        "studies": [(STUDIES[name], rows, drawn[name]) for name, rows in found.studies.items()],
        "pictures": pictures,
        "tolerance": f"{results.TOLERANCE_MS:g} ms or {results.TOLERANCE_SHARE:.0%} of it",
        "spare_gestures": SPARE_GESTURES,
    }
    for name, spelling in (("report.md", "markdown"), ("report.html", "html")):
        with atomic_path(out / name) as temporary:
            temporary.write_text(_render(out, spelling, words), encoding="utf-8")


def print_rows(rows: Sequence[Row]) -> None:
    """The columns that fit 80 characters, of the whole task."""
    chains = overall(rows, CHAIN)
    table = tables.chain_table(rows) if chains else tables.main_table(rows)
    figures = ["gestures", "p50 ms a plan"] if chains else ["95 %", "p50 ms", "cost evals"]
    shown = table[["planner", "success", *figures]]
    title = f"{CHAIN if chains else ONE_GESTURE}: {max(row['n'] for row in rows)} problems"
    print_table(shown.itertuples(index=False), list(shown.columns), title=title, numbers=True)


def _render(out: Path, spelling: str, words: Mapping[str, Any]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("vj2_ddim_benchmark.report"),
        autoescape=spelling == "html",
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["link"] = lambda path: path.relative_to(out).as_posix()
    environment.filters["data_url"] = _data_url
    page = environment.get_template(f"{spelling}.jinja").module
    text = environment.get_template("report.jinja").render(words, page=page)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _data_url(path: Path) -> str:
    content = path.read_bytes()
    for kind, signatures in SIGNATURES.items():
        if content.startswith(signatures):
            return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
    raise DataError(f"{path} is neither a PNG nor a GIF picture; remove it, or draw it again")


def _pairs(records: Sequence[Record], where: str) -> dict[str, Any]:
    """Pairs with the first planner, and every pair, under one budget."""
    reference, pairs = records[0].planner, tables.pairs_of(records)
    matrix, marks = tables.matrix_table(pairs)
    level = f"{tables.SIGNIFICANT / max(len(pairs), 1):.2g}"
    return {
        "reference": reference,
        "where": where,
        "against": tables.against_table(tables.pairs_of(records, reference)),
        "matrix": matrix,
        "marks": marks,
        "limit": f"{level}: {tables.SIGNIFICANT:g} over {len(pairs)} pairs",
    }


def _draw(out: Path, rows: Sequence[Row]) -> Path:
    """Success against time, as curves where there are several budgets."""
    several = len({row["budget_ms"] for row in rows}) > 1
    drawn = out / "pictures" / ("curves.png" if several else "success_against_time.png")
    draw_success(drawn, rows)
    return drawn


def _taken(source: Path, target: Path) -> list[Path]:
    """Pictures of the race that are there, copied unless they are in place already."""
    pictures = [target / name for name in DRAWN_BY_THE_RACE if (source / name).exists()]
    if source.resolve() != target.resolve():
        for path in pictures:
            with atomic_path(path) as temporary:
                shutil.copyfile(source / path.name, temporary)
    return pictures


def _read_recorded(path: Path) -> Findings:
    """Rows that were recorded: of a race, of its chains, or of its studies by name."""
    try:
        value = read_json_value(path, DataError)
        studies = {} if isinstance(value, list) else {name: value[name] for name in STUDIES}
        rows = [] if studies else value
        chains = rows if overall(rows, CHAIN) else []
        found = Findings([] if chains else rows, chains=chains, studies=studies)
        if not (overall(found.rows) or chains or studies):
            raise ValueError("no rows of a whole task")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not a summary.json of a race ({error!r}); give one, or a run's folder"
        ) from error
    return found
