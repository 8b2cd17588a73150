"""`vj2-ddim benchmark report`: the same tables again from raw results, as Markdown and HTML."""

import base64
import json
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from builders.race import CHAINS, PLAN, RECORDS, benchmark

from vj2_ddim_benchmark.race.records import record_log
from vj2_ddim_benchmark.report.page import Findings, print_rows, rebuild_report, write_page
from vj2_ddim_benchmark.report.summary import summarise, summarise_chains
from vj2_ddim_benchmark.studies import STUDIES
from vj2_ddim_plugin.errors import DataError

VOID = {"meta", "img"}
PNG = b"\x89PNG\r\n\x1a\n"


class Page(HTMLParser):
    """Text, cells and pictures of a page; refuses tags that do not close."""

    def __init__(self, text):
        super().__init__()
        self.open, self.cells, self.images, self.tags, self.words = [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")
        if tag == "img":
            self.images.append(dict(attributes)["src"])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data


def write_results(path, records):
    with record_log(path, type(records[0])) as log:
        for record in records:
            log.append(record)


@pytest.fixture
def run(tmp_path):
    """A run as `vj2-ddim benchmark run` leaves it."""
    folder = tmp_path / "run"
    write_results(folder / "results.jsonl", RECORDS)
    cold = {name: {"build_ms": 100.0, "first_plan_ms": 25.0} for name in ("ddim", "gd")}
    (folder / "cold.json").write_text(json.dumps(cold))
    setup = {"fixed": {"seed": 0, "num_problems": 4}, "noted": {"tuned": {"gd": {"lr": 0.05}}}}
    (folder / "run.json").write_text(json.dumps(setup))
    return folder


def test_the_report_is_made_from_the_raw_results_alone(run, tmp_path):
    out = tmp_path / "out"
    rows = rebuild_report(run, out)
    assert json.loads((out / "summary.json").read_text()) == rows
    assert "| ddim | 75.0% | 30.1% to 95.4% |" in (out / "report.md").read_text()
    page = Page((out / "report.html").read_text())
    assert {"ddim", "gd", "75.0%", "0.62"} <= set(page.cells)
    assert page.tags.count("h1") == 1
    assert not {"script", "link", "iframe"} & set(page.tags)
    (image,) = page.images
    picture = (out / "pictures" / "success_against_time.png").read_bytes()
    assert base64.b64decode(image.removeprefix("data:image/png;base64,")) == picture
    assert {path.name for path in run.iterdir()} == {"results.jsonl", "cold.json", "run.json"}


def test_the_report_tells_the_figures_and_the_settings(tmp_path):
    picture = tmp_path / "pictures" / "plans.png"
    picture.parent.mkdir()
    picture.write_bytes(PNG)
    found = Findings(summarise(RECORDS), RECORDS, {"seed": 0, "tuned": {"gd": {"lr": 0.05}}})
    write_page(tmp_path, found, [picture])
    text = (tmp_path / "report.md").read_text()
    assert "| ddim | 75.0% | 30.1% to 95.4% | 75.0% | 1.12 | 25.0 | 38.5 |" in text
    assert "| gd | 50.0% (9.5 to 90.5) | 0.0% (0.0 to 65.8) |" in text  # keypad, switch
    assert "| seed | 0 |" in text
    assert "| tuned.gd | lr = 0.05 |" in text
    assert "(pictures/plans.png)" in text
    assert "Every pair" not in text  # too wide for Markdown
    assert "Every pair" in (tmp_path / "report.html").read_text()


def test_several_budgets_are_drawn_as_curves(run, tmp_path):
    write_results(run / "results.jsonl", [replace(record, budget_ms=50.0) for record in RECORDS])
    lines = (run / "results.jsonl").read_text()
    (run / "results.jsonl").write_text(lines.replace('"budget_ms": null', '"budget_ms": 10.0'))
    rebuild_report(run, tmp_path / "out")
    assert (tmp_path / "out" / "pictures" / "curves.png").exists()
    text = (tmp_path / "out" / "report.md").read_text()
    assert "## Success at equal time" in text
    assert "| ddim | 0.0% (0.0 to 49.0) | 75.0% (30.1 to 95.4) |" not in text
    assert "| ddim | 25.0% (4.6 to 69.9) | 75.0% (30.1 to 95.4) |" in text


def test_chains_have_a_part_of_the_page(run, tmp_path):
    write_results(run / "chains" / "results.jsonl", CHAINS)
    rebuild_report(run, tmp_path)
    row = "| ddim | 50.0% (15.0 to 85.0) | 50.0% (9.5 to 90.5) |"
    assert row in (tmp_path / "report.md").read_text()
    written = json.loads((tmp_path / "chains" / "summary.json").read_text())
    assert written == summarise_chains(CHAINS)


@pytest.mark.parametrize(
    ("workers", "told"),
    [
        ((1,) * 8, None),
        ((2,) * 8, "2 problems were solved at once, which makes plans slower."),
        ((2,) * 6 + (1,) * 2, "who make plans slower: 2 plans by 1, 6 plans by 2."),
    ],
)
def test_the_report_says_how_many_workers_there_were_and_what_is_missing(tmp_path, workers, told):
    made = [replace(record, workers=num) for record, num in zip(RECORDS, workers, strict=True)]
    write_page(tmp_path, Findings(summarise(made), made))
    text = (tmp_path / "report.md").read_text()
    assert ("slower" in text) == (told is not None)
    assert told is None or told in text
    found = Findings(summarise(RECORDS[:-1]), RECORDS[:-1])
    write_page(tmp_path, found)
    assert "not finished: of 4 problems, gd has 3." in (tmp_path / "report.md").read_text()


def test_recorded_rows_are_read_without_the_raw_results(run, tmp_path):
    rows, chains = summarise(RECORDS), summarise_chains(CHAINS)
    named = [row | {"planner": f"{row['planner']}@{row['n']}"} for row in rows]
    studies = dict.fromkeys(STUDIES, named)
    for name, value in (("race", rows), ("chains", chains), ("studies", studies)):
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    assert rebuild_report(tmp_path / "race.json", tmp_path / "race") == rows
    assert "| ddim | 75.0% | 30.1% to 95.4% |" in (tmp_path / "race" / "report.md").read_text()
    assert rebuild_report(tmp_path / "chains.json", tmp_path / "chains") == chains
    assert "| ddim | 50.0% (15.0 to 85.0) |" in (tmp_path / "chains" / "report.md").read_text()
    assert rebuild_report(tmp_path / "studies.json", tmp_path / "studies") == named
    assert "## Noise on the goal" in (tmp_path / "studies" / "report.md").read_text()
    for text in ("{}", "[]", "garbage", '[{"task": "other"}]', "3"):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(DataError, match=r"other\.json: not a summary\.json"):
            rebuild_report(tmp_path / "other.json", tmp_path / "other")


def test_the_command_says_where_the_report_is_and_shows_planners_in_order(run, capsys):
    assert benchmark("report", run) == 0
    printed = capsys.readouterr().out
    assert "report.html" in printed
    assert "75.0%" in printed
    assert (run / "report.html").exists()
    assert benchmark("report", run / "nothing") == 1
    assert "missing or empty" in capsys.readouterr().err
    print_rows(summarise(RECORDS))
    print_rows(summarise_chains(CHAINS))
    plans, chains = capsys.readouterr().out.split("chain: ")
    for text in (plans, chains):
        assert 0 < text.index(" ddim ") < text.index(" gd ")


def test_text_is_escaped_marks_become_classes_and_what_is_no_picture_is_refused(tmp_path):
    name = "<b> a & b | 1 < 2"
    records = [replace(PLAN, planner=name, problem=i) for i in range(12)]
    records += [replace(PLAN, planner="bad", problem=i, success=False) for i in range(12)]
    write_page(tmp_path, Findings(summarise(records), records))
    html = (tmp_path / "report.html").read_text()
    page = Page(html)
    assert name in page.cells
    assert "b" not in page.tags
    assert '<td class="ahead">12 : 0' in html
    assert '<td class="behind">0 : 12' in html
    assert "| <b> a & b \\| 1 < 2 | 100.0% |" in (tmp_path / "report.md").read_text()
    path = tmp_path / "plans.png"
    path.write_bytes(b"BM")
    with pytest.raises(DataError, match=r"plans\.png is neither a PNG nor a GIF"):
        write_page(tmp_path, Findings(summarise(RECORDS)), [path])
