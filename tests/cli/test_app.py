"""The command line: quick to help, exact about what is missing, short about what is wrong."""

import json
import subprocess
import sys
from importlib.metadata import metadata, version

import pytest
import typer
from test_bundle import make_bundle

from vj2_ddim_plugin import __version__
from vj2_ddim_plugin.cli import COMMANDS, main

HEAVY = ("torch", "onnx", "onnxscript", "matplotlib", "wandb", "scipy", "h5py")
# A finder that hides modules, as if they were not installed, and the command line after it.
BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
sys.argv = ["vj2-ddim", *{words!r}]
from vj2_ddim_plugin.cli import main
main()
"""


def run(*words, blocked=()):
    code = BLOCKED.format(blocked=set(blocked), words=words)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def in_process(*words):
    """Exit status of a call in this process."""
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return stop.value.code or 0


def test_help_lists_every_command_without_importing_anything_heavy():
    done = run("--help", blocked=HEAVY)
    assert done.returncode == 0, done.stderr
    for name, command in COMMANDS.items():
        assert name in done.stdout
        assert command.help.split()[0] in done.stdout


def test_no_arguments_is_a_call_for_help(capsys):
    in_process()
    captured = capsys.readouterr()
    assert "benchmark-tune" in captured.out + captured.err


def test_version(capsys):
    assert in_process("--version") == 0
    assert capsys.readouterr().out.split() == ["vj2-ddim-plugin", __version__]
    assert __version__ == version("vj2-ddim-plugin")


def test_a_missing_extra_gives_the_exact_install_line():
    done = run("train", "--help", blocked=["torch"])
    assert done.returncode == 1
    assert "'torch'" in done.stderr
    assert "pip install 'vj2-ddim-plugin[train]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_names_its_own_extra(name, monkeypatch, capsys):
    def missing(module):
        raise ModuleNotFoundError("No module named 'gizmo'", name="gizmo")

    monkeypatch.setattr("vj2_ddim_plugin.cli.app.importlib.import_module", missing)
    assert in_process(name, "--help") == 1
    message = capsys.readouterr().err
    assert f"'vj2-ddim {name}'" in message
    assert "'gizmo'" in message
    assert f"pip install 'vj2-ddim-plugin[{COMMANDS[name].extra}]'" in message


def test_every_extra_that_a_command_names_exists():
    extras = set(metadata("vj2-ddim-plugin").get_all("Provides-Extra"))
    assert {command.extra for command in COMMANDS.values()} <= extras


def test_without_typer_even_help_says_what_to_install():
    done = run("--help", blocked=["typer"])
    assert done.returncode == 1
    assert "pip install 'vj2-ddim-plugin[cli]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_planning_from_the_shell_needs_no_torch():
    done = run("plan", "--help", blocked=["torch", "onnx", "onnxscript", "wandb", "scipy", "h5py"])
    assert done.returncode == 0, done.stderr
    assert "BUNDLE" in done.stdout.upper()


def test_inspect_describes_a_bundle_without_torch(tmp_path):
    folder = make_bundle(tmp_path / "bundle")
    report = tmp_path / "report.json"
    done = run("inspect", str(folder), "--json", str(report), blocked=["torch", "onnx"])
    assert done.returncode == 0, done.stderr
    described = json.loads(report.read_text())
    assert "latents" in described["condition"]
    assert described["provenance"] == {"made_by": "hand"}
    assert described["runs on"].endswith("ExecutionProvider")


@pytest.mark.parametrize("option", ["--json_file", "--json-file"])
def test_an_option_that_does_not_exist_is_a_usage_error(tmp_path, option, capsys):
    assert in_process("inspect", tmp_path, option, "x") == 2
    assert "--json-file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["--data-dir", "a_b", "--d-model", "64"],
        ["--data_dir", "a_b", "--d_model", "64"],
        ["--data-dir=a_b", "--d_model=64"],
        ["--data_dir=a_b", "--d-model=64"],
    ],
)
def test_dashes_and_underscores_are_both_understood(words, monkeypatch):
    seen = []

    def train(data_dir: str = typer.Option(), d_model: int = typer.Option()) -> None:
        seen.append((data_dir, d_model))

    monkeypatch.setattr("vj2_ddim_plugin.cli.app._load", lambda name: train)
    assert in_process("train", *words) == 0
    assert seen == [("a_b", 64)]  # a value keeps its underscores


def test_a_command_that_is_an_app_keeps_its_own_commands(monkeypatch):
    app, seen = typer.Typer(), []
    app.command("generate")(lambda: seen.append("generate"))
    app.command("inspect")(lambda: seen.append("inspect"))
    monkeypatch.setattr("vj2_ddim_plugin.cli.app._load", lambda name: app)
    assert in_process("data", "inspect") == 0
    assert seen == ["inspect"]


def test_the_projects_errors_are_one_line_and_status_one(tmp_path, capsys):
    assert in_process("inspect", tmp_path / "nowhere") == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("vj2-ddim: error: ")
    assert "bundle.json is missing" in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert captured.out == ""


def test_other_errors_keep_their_traceback(tmp_path, monkeypatch):
    def broken(*words, **options):
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr("vj2_ddim_plugin.commands.read_bundle", broken)
    with pytest.raises(ZeroDivisionError, match="a bug of ours"):
        main(["inspect", str(tmp_path)])


def test_an_unknown_command_is_a_usage_error(capsys):
    assert in_process("banana") == 2
    assert "banana" in capsys.readouterr().err


def test_a_command_is_found_whatever_the_programs_own_arguments_are(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sys, "argv", ["another-program"])
    assert in_process("inspect", tmp_path / "nowhere") == 1
    assert "bundle.json is missing" in capsys.readouterr().err


def test_help_in_a_program_with_other_arguments_imports_no_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["another-program"])
    monkeypatch.setattr("vj2_ddim_plugin.cli.app.importlib.import_module", lambda name: 1 / 0)
    assert in_process("--help") == 0
    assert "benchmark-tune" in capsys.readouterr().out
