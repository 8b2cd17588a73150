"""The command line: quick to help, exact about what is missing, short about what is wrong."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import distributions, metadata, version
from pathlib import Path
from typing import Annotated

import pytest
import typer
from builders.bundles import make_bundle

from vj2_ddim_plugin import __version__
from vj2_ddim_plugin.cli import COMMANDS, Command, main
from vj2_ddim_plugin.cli.app import GROUP, build_app, find_commands
from vj2_ddim_plugin.errors import ConfigError

ALL = (
    *("data", "train", "train-ranker", "distill", "evaluate", "export", "inspect"),
    *("plan", "serve", "doctor", "adapters", "benchmark"),
)
HEAVY = ("torch", "onnx", "onnxscript", "matplotlib", "wandb", "scipy", "h5py", "ray")
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


ROOT = Path(__file__).parents[2]
MARKUP = "[red]no[/red] [0, 1] \\[x"


def run(*words, blocked=(), **environment):
    """In an interpreter of its own; whatever happens there, no traceback is printed."""
    code = BLOCKED.format(blocked=set(blocked), words=words)
    settings = {"capture_output": True, "text": True, "timeout": 60}
    settings["env"] = {**os.environ, **environment}
    done = subprocess.run([sys.executable, "-c", code], **settings)
    assert "Traceback" not in done.stderr
    return done


def in_process(*words):
    """Exit status of a call in this process."""
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return stop.value.code or 0


@pytest.fixture
def added(tmp_path, monkeypatch):
    """Installs nothing but what it is called with: entry points of `GROUP`, by name."""

    def install(**points):
        info = tmp_path / "another-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: another\nVersion: 1.0\n")
        lines = [f"[{GROUP}]", *(f"{name} = {value}" for name, value in points.items())]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
        (theirs,) = (found.entry_points for found in distributions(path=[str(tmp_path)]))
        monkeypatch.setattr("vj2_ddim_plugin.cli.app.entry_points", lambda group: theirs)

    (tmp_path / "another.py").write_text(
        "import typer\napp = typer.Typer()\napp.command('run')(lambda: typer.echo('raced'))\n"
        "app.command('report')(lambda: typer.echo('told'))\n"
        "from vj2_ddim_plugin.errors import ConfigError\n"
        "def solo(how_often: int = 1):\n"
        "    if not how_often: raise ConfigError('how_often must be at least 1')\n"
        "    typer.echo('sung ' * how_often)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield install
    sys.modules.pop("another", None)


def test_no_help_imports_anything_heavy():
    """Of every command there is, one after the other in an interpreter of its own."""
    code = (
        "import sys\n"
        "from vj2_ddim_plugin.cli.app import _all_commands, build_app, main\n"
        "import contextlib, io, typer\n"
        "def ask(*words):\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as said:\n"
        "        try: main([*words, '--help'])\n"
        "        except SystemExit as stop: assert not stop.code, words\n"
        "    found = sorted(set(HEAVY) & set(sys.modules))\n"
        "    assert not found, (words, found)\n"
        "    print(*words, len(said.getvalue()))\n"
        "    return said.getvalue()\n"
        "def walk(*words):\n"
        "    said = ask(*words).partition('\\nCommands:\\n')[2]\n"
        "    for line in said.splitlines():\n"
        "        if line[:2] == '  ' and line[2:3].strip():\n"
        "            walk(*words, line.split()[0])\n"
        "walk()\n"
    )
    heavy = (*HEAVY, "numpy", "onnxruntime", "rich", "pandas", "gymnasium", "jinja2")
    done = subprocess.run(
        [sys.executable, "-c", f"HEAVY = {heavy}\n{code}"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    asked = {tuple(line.split()[:-1]) for line in done.stdout.splitlines()}
    assert {(), *((name,) for name in ALL), ("data", "generate"), ("benchmark", "run")} <= asked
    assert len(asked) > 28


def test_help_lists_every_command_without_importing_anything_heavy():
    done = run("--help", blocked=HEAVY)
    assert done.returncode == 0, done.stderr
    assert tuple(COMMANDS) == ALL
    for name, command in COMMANDS.items():
        assert name in done.stdout
        assert command.help.split()[0] in done.stdout


def test_without_a_command_help_or_the_version(capsys):
    in_process()
    captured = capsys.readouterr()
    assert "train-ranker" in captured.out + captured.err
    assert in_process("--version") == 0
    assert capsys.readouterr().out.split() == ["vj2-ddim-plugin", __version__]
    assert __version__ == version("vj2-ddim-plugin")
    assert in_process("banana") == 2
    assert "banana" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "module", "extra"),
    [(["evaluate", "a", "b"], "torch", "train"), (["--help"], "typer", "cli")],
)
def test_a_missing_extra_gives_the_exact_install_line(words, module, extra):
    done = run(*words, blocked=[module])
    assert done.returncode == 1
    assert f"'{module}'" in done.stderr
    assert f"pip install 'vj2-ddim-plugin[{extra}]'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_to_install(name, added, monkeypatch, capsys):
    def missing(module):
        raise ModuleNotFoundError("No module named 'gizmo'", name="gizmo")

    added(benchmark="another:app")
    monkeypatch.setattr("vj2_ddim_plugin.cli.app.importlib.import_module", missing)
    assert in_process(name, "--help") == 1
    message = capsys.readouterr().err
    assert f"'vj2-ddim {name}'" in message
    assert "'gizmo'" in message
    assert f"pip install {COMMANDS[name].install}" in message


def test_what_a_command_says_to_install_exists():
    extras = metadata("vj2-ddim-plugin").get_all("Provides-Extra")
    installs = {f"'vj2-ddim-plugin[{extra}]'" for extra in extras} | {"vj2-ddim-benchmark"}
    assert {command.install for command in COMMANDS.values()} <= installs
    project = tomllib.loads((ROOT / "benchmark" / "pyproject.toml").read_text())["project"]
    assert project["name"] == "vj2-ddim-benchmark"
    assert set(project["entry-points"][GROUP]) == {"benchmark"}


class TestCommandsOfOtherDistributions:
    def test_the_benchmark_is_in_the_help_and_says_what_to_install(self, added, capsys):
        added()
        assert in_process("--help") == 0
        assert "benchmark" in capsys.readouterr().out
        for words in (["benchmark"], ["benchmark", "--help"], ["benchmark", "run", "--quick"]):
            assert in_process(*words) == 1
            error = capsys.readouterr().err
            assert "'vj2-ddim benchmark' is not installed" in error
            assert "pip install vj2-ddim-benchmark" in error

    def test_the_benchmark_is_found_where_it_is_installed(self, added, capsys):
        added(benchmark="another:app")
        for word, said in (("run", "raced\n"), ("report", "told\n")):
            assert in_process("benchmark", word) == 0
            assert capsys.readouterr().out == said
        assert find_commands()["benchmark"].help == COMMANDS["benchmark"].help

    def test_a_command_of_anybodys(self, added, capsys):
        added(sing="another:solo", gone="nowhere:app")
        assert set(find_commands()) == {*ALL, "sing", "gone"}
        assert in_process("--help") == 0
        assert "Added by another" in capsys.readouterr().out
        assert in_process("sing", "--how_often", 2) == 0
        assert capsys.readouterr().out == "sung sung \n"
        assert in_process("gone") == 1
        assert "needs the module 'nowhere'" in (error := capsys.readouterr().err)
        assert "pip install another" in error

    def test_a_name_of_ours_cannot_be_taken(self, added):
        added(train="another:solo", benchmark="another:app")
        assert find_commands() == COMMANDS | {"benchmark": find_commands()["benchmark"]}


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


def test_dashes_and_underscores_are_both_understood(monkeypatch):
    seen = []

    def train(data_dir: str = typer.Option(), d_model: int = typer.Option()) -> None:
        seen.append((data_dir, d_model))

    monkeypatch.setattr("vj2_ddim_plugin.cli.app._load", lambda *_: train)
    assert in_process("train", "--data-dir", "a_b", "--d-model", "64") == 0
    assert in_process("train", "--data_dir", "a_b", "--d_model", "64") == 0
    assert in_process("train", "--data-dir=a_b", "--d_model=64") == 0
    assert in_process("train", "--data_dir=a_b", "--d-model=64") == 0
    assert seen == [("a_b", 64)] * 4  # a value keeps its underscores


def test_a_group_may_be_as_lazy_as_the_command_itself(added, tmp_path, capsys):
    commands = {
        "solo": Command("another:solo", "another", "Sing alone."),
        "gone": Command("another_gone:app", "another[more]", "Not here."),
        "lost": Command("another.lost:app", "another", "Forgotten."),
    }
    (tmp_path / "group.py").write_text(
        "from vj2_ddim_plugin.cli.app import Command, lazy_app\n"
        f"app = lazy_app({commands!r}, help='Many.')\n"
    )
    added(benchmark="group:app")
    assert in_process("benchmark", "--help") == 0
    printed = capsys.readouterr().out
    assert "another" not in sys.modules
    for words in ("Many.", "solo", "Sing alone.", "gone", "Not here."):
        assert words in printed
    assert in_process("benchmark", "solo", "--how-often", 2) == 0
    assert capsys.readouterr().out == "sung sung \n"
    assert in_process("benchmark", "gone", "--help") == 1
    error = capsys.readouterr().err
    assert "'vj2-ddim benchmark gone' needs the module 'another_gone'" in error
    assert "pip install another[more]" in error
    assert in_process("benchmark", "solo", "--how-often", 0) == 1
    assert capsys.readouterr().err == "vj2-ddim: error: --how-often must be at least 1\n"
    with pytest.raises(ModuleNotFoundError, match="another"):  # our mistake, not an install's
        main(["benchmark", "lost"])
    sys.modules.pop("group", None)


def test_the_projects_errors_are_one_line_and_status_one(tmp_path, capsys):
    assert in_process("inspect", tmp_path / "nowhere") == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("vj2-ddim: error: ")
    assert "bundle.json is missing" in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert captured.out == ""


RAISES = """
import os, signal, sys
from vj2_ddim_plugin import bundle
from vj2_ddim_plugin.cli import main
def read_bundle(path):
    {body}
bundle.read_bundle = read_bundle
sys.argv = ["vj2-ddim", "inspect", "b"]
main()
"""


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ("raise ZeroDivisionError('of ours')", 70, "vj2-ddim: fault: ZeroDivisionError: of ours ("),
        ("return read_bundle(path)", 70, "vj2-ddim: fault: RecursionError: maximum recursion"),
        ("raise MemoryError", 1, "vj2-ddim: error: there is not enough memory for this"),
        ("raise OSError(28, 'No space left')", 1, "vj2-ddim: error: No space left"),
        ("raise OSError(13, 'Denied', 'x/[b]')", 1, "vj2-ddim: error: x/[b]: Denied"),
        ("open('gone')", 1, "vj2-ddim: error: gone: No such file or directory"),
        ("os.kill(os.getpid(), signal.SIGINT)", 130, ""),
        (
            "sys.stdout = open('/dev/full', 'w'); print(1, flush=True)",
            1,
            "vj2-ddim: error: No space",
        ),
        ("raise bundle.BundleError('a\\n  b\\x1b[31m\\udcff')", 1, r"error: a b\x1b[31m\udcff"),
    ],
)
def test_whatever_goes_wrong_is_one_line(body, status, said):
    code = RAISES.format(body=body)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stderr
    assert said in done.stderr
    assert len(done.stderr.splitlines()) <= 1
    assert "Traceback" not in done.stderr
    if status == 70:
        assert "VJ2_DDIM_TRACEBACK=1" in done.stderr
        env = {**os.environ, "VJ2_DDIM_TRACEBACK": "1"}
        shown = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=60
        )
        assert "Traceback" in shown.stderr


@pytest.mark.parametrize("redirected", ["| head -1", "| true", ">&-", "2>&-", ">&- 2>&-", "<&-"])
@pytest.mark.parametrize("words", ["inspect {}", "--help"])
def test_outputs_that_end_early_or_are_closed(tmp_path, redirected, words):
    bundle = make_bundle(tmp_path / "bundle")
    code = "from vj2_ddim_plugin.cli import main; main()"
    command = f"{sys.executable} -c '{code}' {words.format(bundle)} {redirected}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_names_that_are_not_utf_8_or_look_like_markup(tmp_path):
    """The way into an error, a table's title and the last line, in two encodings."""
    strange = os.fsencode(tmp_path) + b"/[/x]\xff[b]\x1b[31m"
    os.makedirs(strange)
    bundle = os.path.join(strange, b"bundle")
    shutil.copytree(make_bundle(tmp_path / "bundle", conditional=False), os.fsdecode(bundle))
    code = "from vj2_ddim_plugin.cli import main; main()"
    out = os.path.join(strange, b"m[b]", b"y[/b].npy")
    shown = r"[/x]\udcff[b]\x1b[31m"
    for encoding in ("utf-8", "ascii"):
        env = {**os.environ, "PYTHONIOENCODING": encoding}
        for words in (
            [b"inspect", bundle], [b"inspect", strange], [b"plan", bundle, b"--out", out]
        ):  # fmt: skip
            done = subprocess.run(
                [sys.executable, "-c", code, *words], capture_output=True, text=True, env=env
            )
            assert done.returncode == (words[-1] == strange), done.stderr
            assert "Traceback" not in done.stderr
            assert shown in done.stdout + done.stderr
    assert os.path.isfile(out)


def test_other_errors_keep_their_traceback(tmp_path, monkeypatch):
    def broken(*words, **options):
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr("vj2_ddim_plugin.bundle.read_bundle", broken)
    with pytest.raises(ZeroDivisionError, match="a bug of ours"):
        main(["inspect", str(tmp_path)])


def test_the_programs_own_arguments_do_not_matter_and_help_imports_no_command(
    monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(sys, "argv", ["another-program"])
    assert in_process("inspect", tmp_path / "nowhere") == 1
    assert "bundle.json is missing" in capsys.readouterr().err
    monkeypatch.setattr("vj2_ddim_plugin.cli.app.importlib.import_module", lambda name: 1 / 0)
    assert in_process("--help") == 0
    assert "train-ranker" in capsys.readouterr().out


class TestErrors:
    """Of a command with options of its own, some of a group's."""

    def run(self, monkeypatch, capsys, message, *words):
        def fails(
            num_threads: int = 1,
            seed: int = 0,
            out: Path = Path("x"),
            project: bool = True,
            json_file: Annotated[Path | None, typer.Option("--json")] = None,
        ) -> None:
            raise ConfigError(message)

        app = typer.Typer()
        app.command("first")(fails)
        app.command("second")(lambda: None)
        monkeypatch.setattr("vj2_ddim_plugin.cli.app._load", lambda *_: app)
        assert in_process("data", "first", *words) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        return captured.err.removeprefix("vj2-ddim: error: ").removesuffix("\n")

    @pytest.mark.parametrize(
        ("message", "spoken"),
        [
            ("num_threads must be 1; found 0", "--num-threads must be 1; found 0"),
            ("seed must be at least 0", "--seed must be at least 0"),
            ("json_file is a folder", "--json is a folder"),
            ("leave project=False, or project=True", "leave --no-project, or --project"),
            *[(literal, literal) for literal in ("out of memory", "caf\u00e9 \u2026", MARKUP)],
        ],
    )
    def test_they_speak_the_options_of_the_command(self, monkeypatch, capsys, message, spoken):
        assert self.run(monkeypatch, capsys, message) == spoken

    def test_they_stay_the_errors_that_they_are(self, monkeypatch):
        def fails(num_threads: int = 1) -> None:
            raise ConfigError("num_threads must be 1") from KeyError("cause")

        monkeypatch.setattr("vj2_ddim_plugin.cli.app._load", lambda *_: fails)
        with pytest.raises(ConfigError, match=r"^--num-threads must be 1$") as raised:
            build_app()(args=["train"], prog_name="vj2-ddim")
        assert isinstance(raised.value.__cause__, KeyError)


@pytest.mark.parametrize("words", [["--help"], ["adapters"], ["plan", "--help"], ["inspect", "/é"]])
def test_an_output_without_our_characters_is_written_to_all_the_same(words):
    done = run(*words, PYTHONIOENCODING="ascii", COLUMNS="80")
    assert done.returncode == (1 if words[-1] == "/é" else 0)
    assert (done.stdout + done.stderr).isascii()
