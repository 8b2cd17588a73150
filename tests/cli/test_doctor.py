"""`vj2-ddim doctor`: what is said of a machine, and when it fails."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import onnxruntime
import pytest
import typer
from builders.bundles import make_bundle
from builders.training import vj2_ddim
from typer.testing import CliRunner

from vj2_ddim_plugin.cli import commands
from vj2_ddim_plugin.cli import doctor as findings_of
from vj2_ddim_plugin.cli.doctor import EXTRAS, RUNS, TINY_GRAPH, examine, time_one_plan
from vj2_ddim_plugin.errors import BundleError, ProviderError, VJ2DDIMError
from vj2_ddim_plugin.onnx.session import available_providers, why_not

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
MODULES = {"pyyaml": "yaml"}  # of packages that are called otherwise


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundles") / "bundle")


def run(*arguments):
    app = typer.Typer()
    app.command()(commands.doctor)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_it_says_which_providers_really_run():
    findings = examine()
    assert findings["built in"] == available_providers()
    assert findings["versions"]["python"].startswith("3.")
    assert findings["versions"]["vj2-ddim-plugin"] == version("vj2-ddim-plugin")
    assert findings["versions"]["vj2-ddim-benchmark"]
    assert findings["versions"].get("onnxruntime-gpu") or findings["versions"].get("onnxruntime")
    assert findings["providers"]["cpu"] == RUNS
    for name in ("cuda", "tensorrt"):
        if why_not(name):
            assert findings["providers"][name] == f"does not run: {why_not(name)}"
    running = "CUDA" if findings["providers"]["cuda"] == RUNS else "CPU"
    assert findings["auto takes"] == f"{running}ExecutionProvider"
    assert findings["extras"]["cli"] == "installed"
    assert findings["processor"]["cores"] >= 1
    assert "bundle" not in findings


def test_a_provider_that_nothing_lacks_and_that_still_fails_is_told(monkeypatch):
    monkeypatch.setattr(findings_of, "why_not", lambda name: "")

    def refuse(graph, settings="auto"):
        if settings != "auto" and settings.provider != "cpu":
            raise ProviderError("CUDA failure 35")
        return real(graph, settings)

    real = findings_of.OnnxGraph
    monkeypatch.setattr(findings_of, "OnnxGraph", refuse)
    assert examine()["providers"] == {
        "cpu": RUNS,
        "cuda": "does not run: CUDA failure 35",
        "tensorrt": "does not run: CUDA failure 35",
    }


def test_a_provider_that_computes_wrongly_does_not_run(monkeypatch):
    class Wrong(findings_of.OnnxGraph):
        def run(self, feeds):
            return [3 * feeds["x"]]

    monkeypatch.setattr(findings_of, "OnnxGraph", Wrong)
    assert "1 + 1 = [3.0, 3.0]" in examine()["providers"]["cpu"]
    tiny = onnxruntime.InferenceSession(TINY_GRAPH, providers=["CPUExecutionProvider"])
    (entry,) = tiny.get_inputs()
    assert (entry.name, entry.shape, entry.type) == ("x", [2], "tensor(float)")


def test_the_extras_are_those_of_the_project():
    declared = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]
    assert set(EXTRAS) == set(declared) - {"dev", "docs"}
    for extra, modules in EXTRAS.items():
        own = {re.split("[>=[]", line)[0] for line in declared[extra]}
        own = {MODULES.get(name, name) for name in own}
        assert {name for name in own if not name.startswith("vj2")} == set(modules)


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr(findings_of, "find_spec", lambda name: None if name == "wandb" else name)
    assert examine()["extras"]["train"] == "lacks wandb"


def test_the_environment_is_read(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    found = examine()["environment"]
    assert found["OMP_NUM_THREADS"] == "7"
    assert found["OMP_WAIT_POLICY"] == "not set"


def test_a_bundle_is_timed(folder, tmp_path):
    timed = time_one_plan(folder)
    assert (timed["folder"], timed["steps"]) == (str(folder), 10)
    assert 0 < timed["warm_plan_s"] < 10
    assert timed["first_plan_s"] > 0
    assert timed["load_s"] > 0
    with pytest.raises(BundleError, match="not a bundle"):
        time_one_plan(tmp_path)


def test_a_broken_bundle_does_not_hide_what_the_machine_can_do(tmp_path):
    done = run("--bundle", tmp_path)
    assert isinstance(done.exception, BundleError)
    assert "processor" in done.output


def test_the_table_and_the_file_say_the_same(folder, tmp_path):
    done = run("--bundle", folder, "--json", tmp_path / "found.json")
    assert done.exit_code == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert set(found) >= {"versions", "providers", "environment", "extras", "bundle"}
    for section, value in found.items():
        assert section in done.output
        for name in value if isinstance(value, dict) else ():
            assert name in done.output


def test_what_is_required_and_does_not_run_is_an_error_with_the_cause(monkeypatch):
    assert run("--require", "cpu").exit_code == 0
    monkeypatch.setattr(findings_of, "why_not", lambda name: f"no {name} here")
    done = run("--require", "cpu", "--require", "cuda")
    assert isinstance(done.exception, ProviderError)
    assert "require='cuda': it does not run: no cuda here" in str(done.exception)
    assert "no tensorrt here" in done.output  # the table is there all the same


@pytest.mark.parametrize(
    ("provider", "message"),
    [
        ("cuda", "error: --require cuda: it does not run: no cuda here"),
        ("gpu", "error: --require 'gpu' is unknown; use one of cpu, cuda, tensorrt"),
    ],
)
def test_on_the_command_line_errors_name_the_option(provider, message, monkeypatch, capsys):
    monkeypatch.setattr(findings_of, "why_not", lambda name: f"no {name} here")
    assert vj2_ddim("doctor", "--require", provider) == 1
    assert message in capsys.readouterr().err
    with pytest.raises(VJ2DDIMError, match=f"^require.*'{provider}'"):
        commands.doctor(require=[provider])


def test_a_bundle_is_timed_as_it_is_asked_for(folder):
    assert run("--bundle", folder, "--provider", "cpu", "--num-threads", 1).exit_code == 0
    done = run("--bundle", folder, "--num-threads", 0)
    assert "num_threads must be at least 1 and at most 1024; found 0" in str(done.exception)


def test_it_needs_no_torch_and_prints_nothing_but_its_table():
    code = """
import sys
for name in ("torch", "onnx", "scipy", "wandb"):
    sys.modules[name] = None
from vj2_ddim_plugin.cli.commands import doctor
doctor()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert "lacks torch" in done.stdout
