"""`vj2-ddim report`: the same tables again from raw results, as Markdown and one HTML page."""

import base64
import json
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from test_protocol_records import PLAN, RECORDS

from vj2_ddim_benchmark.protocol.document import Document, Picture, Section, Table
from vj2_ddim_benchmark.protocol.html import to_html
from vj2_ddim_benchmark.protocol.json_lines import JsonLines
from vj2_ddim_benchmark.protocol.records import Record
from vj2_ddim_benchmark.protocol.report_command import rebuild_report
from vj2_ddim_benchmark.protocol.run_folder import read_run_folder
from vj2_ddim_plugin.cli import main
from vj2_ddim_plugin.errors import DataError

VOID = {"meta", "img"}


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


@pytest.fixture
def run(tmp_path):
    """A run as `vj2-ddim benchmark` leaves it."""
    folder = tmp_path / "run"
    with JsonLines(folder / "results.jsonl", Record) as log:
        for record in RECORDS:
            log.append(record)
    cold = {name: {"build_ms": 100.0, "first_plan_ms": 25.0} for name in ("ddim", "gd")}
    (folder / "cold.json").write_text(json.dumps(cold))
    setup = {"fixed": {"seed": 0, "num_problems": 4}, "noted": {"tuned": {"gd": {"lr": 0.05}}}}
    (folder / "run.json").write_text(json.dumps(setup))
    return folder


def test_the_report_is_made_from_the_raw_results_alone(run, tmp_path):
    rows = rebuild_report(run, tmp_path / "out")
    out = tmp_path / "out"
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


def test_several_budgets_are_drawn_as_curves(run, tmp_path):
    with JsonLines(run / "results.jsonl", Record) as log:
        for record in RECORDS:
            log.append(replace(record, budget_ms=50.0))
    (run / "results.jsonl").write_text(
        "".join(
            line.replace('"budget_ms": null', '"budget_ms": 10.0') + "\n"
            for line in (run / "results.jsonl").read_text().splitlines()
        )
    )
    rebuild_report(run, tmp_path / "out")
    assert (tmp_path / "out" / "pictures" / "curves.png").exists()


def test_the_command_says_where_the_report_is(run, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["report", str(run)])
    assert not ended.value.code
    assert "report.html" in capsys.readouterr().out
    assert (run / "report.html").exists()


def test_text_is_escaped_and_marks_become_classes():
    table = Table(("name", "<b>"), (("a & b", "1 < 2"),), {(0, 1): "ahead"})
    text = to_html(Document("<T>", ("p > q",), (Section("S", (table,)),)))
    page = Page(text)
    assert page.cells == ["name", "<b>", "a & b", "1 < 2"]
    assert '<td class="ahead">' in text
    assert "<T>" in page.words


def test_a_picture_that_is_none_is_refused(tmp_path):
    path = tmp_path / "plans.png"
    path.write_bytes(b"BM")
    document = Document("T", (), (Section("S", (Picture(path, "plans"),)),))
    with pytest.raises(DataError, match=r"plans\.png is neither a PNG nor a GIF"):
        to_html(document)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("results.jsonl", "", "missing or empty"),
        ("results.jsonl", "garbage\n", "line 1"),
        ("cold.json", "{", r"cold\.json, line 1: not JSON"),
        ("cold.json", '{"ddim": 3}', "build_ms and first_plan_ms"),
        ("run.json", "[]", "must hold a JSON object"),
        ("run.json", '{"seed": 0}', "under 'fixed' and 'noted'"),
    ],
)
def test_a_damaged_run_is_named_by_file_and_line(run, name, text, message):
    (run / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_run_folder(run)


def test_a_plan_that_is_there_twice_is_refused(run):
    with JsonLines(run / "results.jsonl", Record) as log:
        log.append(PLAN)
    with pytest.raises(DataError, match=r"line 9: ddim solves problem 0 a second time .*line 1"):
        read_run_folder(run)
