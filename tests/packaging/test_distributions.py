"""Two distributions: what is in them, and that they install and run apart from this checkout."""

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
LARGEST_WHEEL = 400_000  # bytes: whoever plans downloads no benchmark
PLUGIN = {"vj2_ddim_plugin", "vj2_ddim_training", "vj2_ddim_export"}
PROJECTS = {"vj2_ddim_plugin": (ROOT, PLUGIN), "vj2_ddim_benchmark": (ROOT / "benchmark", None)}
BUNDLE = "vj2_ddim_benchmark/assets/shipped/bundle"


def build(source, out, *what):
    """Build with the backend that is here: nothing is downloaded."""
    words = ["-m", "build", "--no-isolation", "--skip-dependency-check", *what, "--outdir", out]
    done = subprocess.run([sys.executable, *words, source], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Wheels and sdists of both, by name and kind; wheels are made from the sdists."""
    out = tmp_path_factory.mktemp("built")
    for project, _ in PROJECTS.values():
        build(project, out)
    files = {}
    for name in PROJECTS:
        (files[name, "wheel"],) = out.glob(f"{name}-*.whl")
        (files[name, "sdist"],) = out.glob(f"{name}-*.tar.gz")
    return files


def names_in(path):
    """Paths in a wheel or an sdist, the latter's without its first folder."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    with tarfile.open(path) as archive:
        names = [member.name for member in archive.getmembers() if member.isfile()]
    return [name.partition("/")[2] for name in names]


@pytest.mark.parametrize("name", PROJECTS)
def test_a_wheel_holds_its_packages_and_nothing_else(built, name):
    names = names_in(built[name, "wheel"])
    packages = {entry.partition("/")[0] for entry in names if ".dist-info/" not in entry}
    assert packages == (PROJECTS[name][1] or {name})
    for package in packages:
        assert f"{package}/py.typed" in names
    assert not [entry for entry in names if "test" in Path(entry).name and "testing" not in entry]
    assert any(entry.endswith("licenses/LICENSE") for entry in names)
    folders = {"vj2_ddim_training": ROOT / "training", "vj2_ddim_export": ROOT / "export"}
    for package in packages:
        source = folders.get(package, PROJECTS[name][0])
        modules = {str(path.relative_to(source)) for path in (source / package).rglob("*.py")}
        assert modules == {
            entry for entry in names if entry.startswith(f"{package}/") and entry.endswith(".py")
        }


def test_the_plugin_is_small_and_has_no_pictures_and_no_results(built):
    assert built["vj2_ddim_plugin", "wheel"].stat().st_size < LARGEST_WHEEL
    assert built["vj2_ddim_plugin", "sdist"].stat().st_size < LARGEST_WHEEL
    for kind in ("wheel", "sdist"):
        names = names_in(built["vj2_ddim_plugin", kind])
        assert {Path(name).suffix for name in names} <= {
            *(".py", ".typed", ".md", ".toml", ""),
            *(".txt", ".jinja"),  # of the wheel's metadata, of a run's report
        }
        assert not [name for name in names if "benchmark" in name or name.startswith("tests")]


def test_the_benchmark_brings_its_trained_parts(built):
    for kind in ("wheel", "sdist"):
        names = names_in(built["vj2_ddim_benchmark", kind])
        for graph in ("bundle.json", "denoiser.onnx", "condition.onnx", "ranker.onnx"):
            assert f"{BUNDLE}/{graph}" in names
        assert not [name for name in names if name.startswith(("results", "vj2_ddim_plugin"))]


def test_both_have_the_one_version(built):
    from vj2_ddim_plugin import __version__

    assert __version__ == version("vj2-ddim-plugin")
    for path in built.values():
        assert f"-{__version__}" in path.name
    for project, _ in PROJECTS.values():
        assert __version__ not in (project / "pyproject.toml").read_text()


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """An environment of its own with what `vj2-ddim-plugin[cli]` needs, and the plugin's wheel."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    libraries = folder / "libraries"  # what is installed here, without this checkout
    libraries.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        ours = entry.name.startswith(("vj2_ddim", "__editable__", "_vj2_ddim", "torch"))
        if not ours and entry.suffix != ".pth":
            (libraries / entry.name).symlink_to(entry)
    (own,) = folder.glob("lib/python*/site-packages")
    (own / "libraries.pth").write_text(str(libraries))
    install(own, built["vj2_ddim_plugin", "wheel"])
    return folder, own


def install(site, wheel):
    words = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", site, wheel]
    subprocess.run([sys.executable, *words], check=True)


def run(folder, *words, status=0):
    """The command of that environment, run where no checkout is."""
    python = folder / "bin" / "python"
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [python, "-c", "from vj2_ddim_plugin.cli import main; main()", *map(str, words)]
    settings = {"capture_output": True, "text": True, "timeout": 60}
    done = subprocess.run(command, cwd=folder, env=clean, **settings)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_plugin_runs_by_itself(installed):
    folder, own = installed
    assert (own / "bin" / "vj2-ddim").exists()
    text = run(folder, "--help")
    assert "benchmark" in text
    hint = run(folder, "benchmark", "--help", status=1)
    assert "pip install vj2-ddim-benchmark" in hint
    assert "--num-epochs" in run(folder, "train", "--help")
    data = ("--data-dir", folder, "--val-data-dir", folder)
    assert "needs the module 'torch'" in run(folder, "train", *data, status=1)
    listed = run(folder, "adapters", "--json", folder / "adapters.json")
    assert "stable_worldmodel" in listed
    found = json.loads((folder / "adapters.json").read_text())
    assert {row["here"] for row in found.values()} == {"needs torch"}


def test_both_together_plan_with_the_shipped_bundle(installed, built):
    folder, own = installed
    install(own, built["vj2_ddim_benchmark", "wheel"])
    bundle = json.loads((own / BUNDLE / "bundle.json").read_text())
    inputs = bundle["condition"]["inputs"]
    zeros = {name: np.zeros((2, *described["shape"])) for name, described in inputs.items()}
    np.savez(folder / "c.npz", **zeros)
    words = ("plan", own / BUNDLE, "--conditions", folder / "c.npz", "--num-inference-steps", 2)
    assert "2 plans (250, 3)" in run(folder, *words, "--provider", "cpu")
    assert np.load(folder / "plan.npy").shape == (2, 250, 3)
    described = run(folder, "inspect", own / BUNDLE, "--provider", "cpu")
    assert "CPUExecutionProvider" in described
