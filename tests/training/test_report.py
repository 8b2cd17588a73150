"""`report.html`: one page, of which a person understands the run."""

import re
from html.parser import HTMLParser

import pytest
from builders.training import make_settings, write_data

from vj2_ddim_plugin.errors import TrainingError
from vj2_ddim_training.report import _chart, course
from vj2_ddim_training.run import train_run

VOID = {"meta", "img", "line", "circle", "polyline"}


class Page(HTMLParser):
    """What a page says, what it shows, and where it would fetch something from."""

    def __init__(self, path):
        super().__init__()
        self.words, self.opened, self.sources, self.lines = [], [], [], []
        self.html = path.read_text()
        self.feed(self.html)
        assert self.opened == [], "left open"
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        told = dict(attributes)
        self.sources += [told[name] for name in ("src", "href") if name in told]
        self.lines += [told["points"]] if tag == "polyline" else []
        if tag not in VOID:
            self.opened.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.opened.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    write_data(root / "data")
    pages = []

    def judge(model):
        pages.append((root / "run" / "report.html").exists() and Page(root / "run" / "report.html"))
        return {"success": [0.25, 0.75, 0.5][len(pages) - 1]}

    changes = {"num_epochs": 3, "picture_every": 2, "log_every": 1, "run_name": "one & <two>"}
    train_run(make_settings(root, **changes), judge=judge)
    return pages, Page(root / "run" / "report.html")


def test_it_says_all_that_matters_and_needs_no_other_file(run):
    page = run[1]
    assert "one & <two> done" in page.text
    for words in (
        "step 9 of 9", "training examples 12,", "validation examples 12,", "parameters",
        "the validation data are the training data", "last checkpoint checkpoint.pt, epoch 3",
        "best success 0.75, epoch 2", "best checkpoint best.pt", "24 action blocks",
        "lr 0.001", "seed 0", "representation path", "epoch 0003 sequences", "epoch 0003 noise",
        "gesture_type_accuracy", "mean_snr_db",
    ):  # fmt: skip
        assert words in page.text, words
    assert "epoch 0002" not in page.text
    assert len(page.sources) == 2
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert not re.search(r"https?://|@import|<script", page.html)
    assert "refresh" not in page.html


def test_it_grows_while_the_run_does(run):
    first, second, third = run[0]
    assert first is False
    assert re.search(r"training ?, 2.*; the next page is due at about 2.*: --resume", second.text)
    assert "step 3 of 9" in second.text
    assert "left, about" in second.text
    assert 'http-equiv="refresh"' in second.html
    assert "step 6 of 9" in third.text
    points = [len(page.lines[0].split()) for page in (second, third, run[1])]
    assert points == [3, 6, 9]  # the loss of every step


@pytest.mark.parametrize("stop", [TrainingError("it is <bad>"), KeyboardInterrupt()])
def test_a_run_that_failed_or_was_stopped_says_so(tmp_path, stop):
    write_data(tmp_path / "data")

    def judge(model):
        raise stop

    with pytest.raises(type(stop)):
        train_run(make_settings(tmp_path), judge=judge)
    page = Page(tmp_path / "run" / "report.html")
    if isinstance(stop, TrainingError):
        assert "failed" in page.text
        assert "it is <bad>" in page.text
    else:
        assert "stopped" in page.text
        assert "--resume goes on from here" in page.text


def test_a_run_that_fails_before_it_replaces_another_leaves_its_report(tmp_path, monkeypatch):
    write_data(tmp_path / "data")
    settings = make_settings(tmp_path, num_epochs=1)
    train_run(settings)
    before = (tmp_path / "run" / "report.html").read_bytes()
    monkeypatch.setattr("vj2_ddim_training.trainer.Trainer.run", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train_run(make_settings(tmp_path, num_epochs=1, overwrite=True))
    assert (tmp_path / "run" / "report.html").read_bytes() == before


def test_curves_by_hand():
    lines = [{"epoch": 1, "a": {"b": 2.0}}, {"epoch": 2, "a": None}, {"epoch": 3, "a": {"b": 4}}]
    points = course(lines, "a", "b")
    assert points == [(1, 2.0), (3, 4)]
    chart = _chart("title", {"a": points, "none": []})
    assert [line[2] for line in chart["lines"]] == ["0.0,200.0 460.0,0.0"]
    assert chart["x"] == ["1", "3"]
    assert [label for _, label in chart["y"]] == ["2", "2.5", "3", "3.5", "4"]
    logarithmic = _chart("title", {"a": [(0, 0.0), (1, 1.0), (2, 10.0), (3, 100.0)]}, log=True)
    assert logarithmic["lines"][0][2] == "0.0,200.0 230.0,100.0 460.0,0.0"
    assert len(_chart("title", {"a": [(i, i) for i in range(10**5)]})["lines"][0][2].split()) <= 400
