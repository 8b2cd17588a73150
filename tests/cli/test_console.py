"""What commands print: whole values, literal text, nothing that a pipe or an encoding breaks."""

import os
import re
import subprocess
import sys

import pytest

from vj2_ddim_plugin.cli.console import print_table, progress_bars, say

LONG = "/a/very/long/path" * 20
TABLES = {
    "texts": {"rows": [("name", LONG), ("[bold]b[/bold]", None)], "headings": ("[i]", "where")},
    "numbers": {"rows": [("a row", 0.5, 12345), (LONG, 1, None)], "numbers": True},
    "lines": {"rows": [("part", f"one\n{LONG}"), ("more", 3)], "lines": True},
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_in_a_pipe_every_value_is_whole(table, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    print_table(**table, title=f"of [red]{LONG}[/red]")
    printed = capsys.readouterr().out
    assert f"of [red]{LONG}[/red]" in printed
    for row in (*table["rows"], table.get("headings", ())):
        for cell in row:
            for line in str(cell).split("\n") if cell is not None else ():
                assert line in printed
    assert "…" not in printed
    assert "None" not in printed


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize(("terminal", "width"), [("xterm", 40), ("dumb", 80)])
def test_on_a_terminal_texts_are_folded_and_nothing_is_cut(
    table, terminal, width, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")  # to Rich, a terminal
    monkeypatch.setenv("TERM", terminal)
    print_table(**table)
    printed = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    widest = max(len(line) for line in printed.splitlines())
    assert (widest <= width) is not table.get("numbers", False)
    assert "…" not in printed
    letters = sum(character.isalpha() for row in table["rows"] for character in str(row[0]))
    assert sum(character.isalpha() for character in printed) >= letters


def test_a_table_may_be_empty(capsys):
    print_table([], title="nothing")
    print_table([], ("a", "b"))
    assert "nothing" in capsys.readouterr().out


def test_a_line_is_printed_as_it_is(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    for text in (LONG, "[red]x[/red] [0, 1] 3.5 'a' [/", "", 5):
        say(text)
        assert capsys.readouterr().out == f"{text}\n"
        say(text, style="bold red", error=True)
        assert capsys.readouterr() == ("", f"{text}\n")


def test_a_bar_a_phase_on_the_standard_error(capsys):
    with progress_bars() as progress:
        for done in range(3):
            progress("train [b]", done + 1, 3)
        progress("judge", 1, 2, "loss [i] 0.5")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "train [b]" in captured.err
    assert "3/3" in captured.err
    assert "1/2" in captured.err
    assert "loss [i] 0.5" in captured.err


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_tables_and_bars_need_no_unicode(encoding):
    code = (
        "from vj2_ddim_plugin.cli.console import *\n"
        "print_table([('a', 1)], ('x', 'y'), title='t')\n"
        "print_table([('a', 1)], numbers=True, title='t')\n"
        "with progress_bars() as progress: progress('phase', 1, 2)\n"
    )
    done = subprocess.run(
        [sys.executable, "-X", "utf8=0", "-c", code],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        timeout=60,
    )
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
    assert (done.stdout + done.stderr).isascii()
