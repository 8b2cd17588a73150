"""README and documentation say what is true: links, code and figures."""

import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from builders.training import vj2_ddim

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [
    README,
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
GENERATED = {"commands.md", "settings.md"}  # made when the site is built
SHIPPED = ROOT / "benchmark/vj2_ddim_benchmark/assets/shipped/bundle"
RESULTS = ROOT / "benchmark/results/touch_screen.json"


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def run(command, folder):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_readme_is_read_in_five_minutes():
    text = README.read_text()
    assert len(text.splitlines()) < 150
    assert len(text.split()) < 1000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target and Path(target).name not in GENERATED:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_promise_names_tests_that_are_there():
    promises = [
        row for row in (ROOT / "docs/promises.md").read_text().splitlines() if row.startswith("| ")
    ]
    held = {row: re.findall(r"`(tests/\S+\.py)`", row.split("|")[2]) for row in promises}
    empty = [row for row, tests in held.items() if not tests and "held by" not in row]
    assert [row for row in empty if not row.startswith("| ---")] == []
    assert all((ROOT / test).exists() for tests in held.values() for test in tests)


def test_the_plan_on_paper_is_what_its_program_prints(tmp_path):
    page = ROOT / "docs/how-to/large.md"
    printed = run([sys.executable, "-c", blocks(page, "python")[0]], tmp_path).splitlines()
    assert len(printed) == 7
    assert set(printed) <= set(page.read_text().splitlines())


def test_the_readmes_figures_are_the_recorded_ones():
    rows = [row for row in json.loads(RESULTS.read_text()) if row["task"] == "one-gesture"]
    recorded = {(row["planner"], row["budget_ms"]): row for row in rows}
    rows = re.findall(r"\(`([\w-]+)`\) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", README.read_text())
    assert len(rows) == 6
    for planner, at_50, at_500, milliseconds in rows:
        shown = (float(at_50), float(at_500), float(milliseconds))
        found = (
            100 * recorded[planner, 50.0]["success"],
            100 * recorded[planner, 500.0]["success"],
            recorded[planner, 500.0]["p50_ms"],
        )
        assert shown == tuple(round(value, 1) for value in found), planner


def test_the_readmes_plan_runs_as_it_stands(tmp_path):
    (code,) = blocks(README, "python")
    shutil.copytree(SHIPPED, tmp_path / "bundle")
    assert "(1, 250, 3)" in run([sys.executable, "-c", code], tmp_path)


def test_the_tutorial_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    """Its commands, each of one program, in this process."""
    page = ROOT / "docs/tutorial.md"
    monkeypatch.chdir(tmp_path)
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            program, *words = shlex.split(line)
            if program == "vj2-ddim":
                assert vj2_ddim(*words) == 0, line
            else:
                assert [program, words[0], len(words)] == ["python", "-c", 2]
                exec(words[1], {})
    assert (tmp_path / "plan.npy").exists()
    assert (tmp_path / "plan.png").exists()
    exec(blocks(page, "python")[0], {})
    assert "(1, 250, 3)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem
)
def test_an_example_runs(example, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(example.parent)
    monkeypatch.setattr(sys, "argv", [str(example)])
    runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out
