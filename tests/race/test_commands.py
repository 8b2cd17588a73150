"""What the benchmark's commands pass on, print and refuse, and what is imported for them."""

import inspect
import subprocess
import sys

import pytest
import torch
from builders.race import benchmark

from vj2_ddim_benchmark import benchmark as benchmark_module
from vj2_ddim_benchmark.assets import Assets
from vj2_ddim_benchmark.assets.settings import AssetSettings
from vj2_ddim_benchmark.commands import COMMANDS, run, tune
from vj2_ddim_benchmark.settings import RaceSettings
from vj2_ddim_benchmark.studies import StudySettings


@pytest.fixture(autouse=True)
def same_threads():
    """The commands set torch's threads; the other tests get theirs back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Stop(Exception):
    """Ends a command where it would begin to train or to race."""


@pytest.mark.parametrize("threads", [1, 3])
def test_what_is_trained_first_uses_the_same_threads(tmp_path, monkeypatch, threads):
    asked = []

    def build_assets(*arguments):
        asked.append(arguments)
        raise Stop

    monkeypatch.setattr(benchmark_module, "build_assets", build_assets)
    shipped = Assets(tmp_path / "shipped")
    monkeypatch.setattr(benchmark_module, "shipped_assets", lambda: shipped)
    options = ("--out", tmp_path, "--planners", "random-gestures-16", "--threads", threads)
    for how in ("--retrain", "--small-sampler"):
        with pytest.raises(Stop):
            benchmark("run", *options, how)
    (folder, settings, _, given), (small_folder, small, _, small_given, world_model) = asked
    assert (folder, settings) == (tmp_path / "assets", AssetSettings())
    assert (small_folder, small) == (tmp_path / "small", AssetSettings.small())
    assert world_model == tmp_path / "shipped" / "world_model.pt"
    assert (given, small_given) == (threads, threads)


def test_only_what_is_not_given_is_taken_from_the_shipped_parts(tmp_path):
    made, given = Assets(tmp_path / "shipped"), tmp_path / "given"
    parts = ("world_model", "bundle", "student", "regression", "gaussian")
    for chosen in ((), ("world_model",), ("bundle",), ("regression", "gaussian"), parts):
        settings = made.fill(RaceSettings(**dict.fromkeys(chosen, given), threads=2))
        for part in parts:
            wanted = given if part in chosen else getattr(made, part)
            assert getattr(settings, part) == wanted
        assert settings.threads == 2


def test_options_reach_the_race_its_chains_and_its_studies(tmp_path, monkeypatch, capsys):
    called = []

    class Benchmark:
        def __init__(self, settings, out, progress):
            called.append((settings, out))

        def race(self, planners):
            called.append([planner.name for planner in planners])

        go_through_chains = race

        def study(self, studies):
            called.append(studies)
            raise Stop

    monkeypatch.setattr(benchmark_module, "Benchmark", Benchmark)
    with pytest.raises(Stop):
        benchmark(
            "run", "--out", tmp_path, "--planners", "ddim-1,random-gestures-16", "--quick",
            "--budget-ms", "50,10,50", "--full-plan", "--workers", 2, "--study", "steps",
            "--study-problems", 3, "--chain-planners", "ddim-16",
        )  # fmt: skip
    (settings, out), raced, chains, studies = called
    assert out == tmp_path
    assert settings.budgets == (10.0, 50.0, None)
    assert (settings.total_problems, settings.total_chains, settings.workers) == (60, 10, 2)
    assert raced == ["ddim-1", "random-gestures-16"]
    assert chains == ["ddim-16"]
    assert studies == StudySettings(study=("steps",), study_problems=3)


def test_budgets_are_each_once_the_full_plan_last():
    assert RaceSettings().budgets == (None,)
    assert RaceSettings(budget_ms=(50.0, 10.0, 50.0)).budgets == (10.0, 50.0)
    assert RaceSettings(budget_ms=(50.0,), full_plan=True).budgets == (50.0, None)
    assert (RaceSettings().total_problems, RaceSettings().total_chains) == (600, 150)
    assert RaceSettings(quick=True, chains=0, num_problems=7).total_problems == 7
    for command in (run, tune):
        assert inspect.signature(command).parameters["threads"].default == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--tuned", "nowhere", "--planners", "gradient-descent-sgd-10"), "benchmark tune"),
        (("--study", "stepps"), "unknown; use one of steps, candidates"),
        (("--study", "world-model"), "--study-world-model"),
        (("--workers", 0), "--workers must be at least 1"),
        (("--split", "tset"), "--split 'tset' is unknown; use one of train"),
    ],
)
def test_errors_speak_the_commands_options_before_anything_is_trained(
    tmp_path, capsys, options, message
):
    assert benchmark("run", "--out", tmp_path / "run", *options) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_help_imports_neither_torch_nor_pandas():
    code = (
        "import sys; from vj2_ddim_benchmark.commands import app; "
        "app(args=['--help'], standalone_mode=False); "
        "sys.exit(bool({'torch', 'pandas', 'matplotlib', 'scipy', 'joblib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f" {name} " in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_be_imported_and_helps(name, capsys):
    assert benchmark(name, "--help") == 0
    assert name in capsys.readouterr().out
