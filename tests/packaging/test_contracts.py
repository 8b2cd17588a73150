"""The contracts on imports hold (`make contracts`), and each of them can fail."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = (
    *("vj2_ddim_plugin", "training/vj2_ddim_training"),
    *("export/vj2_ddim_export", "benchmark/vj2_ddim_benchmark"),
)
PROGRAM = "import sys; from importlinter.cli import lint_imports_command as run; run(sys.argv[1:])"


def lint(folder):
    """`lint-imports` of the packages in a folder, by the project's own contracts."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, "--no-cache"],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"},
        timeout=120,
    )


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The project's Python files, to be spoiled."""
    folder = tmp_path_factory.mktemp("packages")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package,
            folder / Path(package).name,
            ignore=lambda where, names: {
                name
                for name in names
                if not (name.endswith(".py") or (Path(where) / name).is_dir())
            },
        )
    return folder


def test_every_contract_is_kept(copy):
    done = lint(copy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("vj2_ddim_plugin/spec.py", "import vj2_ddim_plugin.gestures", "The layers of the runtime"),
        ("vj2_ddim_plugin/bundle.py", "import vj2_ddim_plugin.model", "The layers of the runtime"),
        ("vj2_ddim_plugin/optimizer.py", "import vj2_ddim_training", "The packages, one on top"),
        (
            "vj2_ddim_training/loop.py",
            "import vj2_ddim_benchmark.world",
            "The packages, one on top",
        ),
        ("vj2_ddim_plugin/onnx/session.py", "import torch", "The runtime needs numpy and ONNX"),
        (
            "vj2_ddim_benchmark/world/__init__.py",
            "if TYPE_CHECKING:\n    import vj2_ddim_benchmark.race",
            "No circles",
        ),
        (
            "vj2_ddim_benchmark/world/__init__.py",
            "import vj2_ddim_benchmark.planners",
            "The layers of the benchmark",
        ),
    ],
)
def test_a_contract_can_fail(copy, file, line, contract):
    path = copy / file
    sound = path.read_text()
    try:
        path.write_text(f"{sound}\nfrom typing import TYPE_CHECKING\n{line}\n")
        done = lint(copy)
    finally:
        path.write_text(sound)
    assert done.returncode == 1
    (broken,) = {row for row in done.stdout.splitlines() if row.startswith(contract)} & {
        row for row in done.stdout.splitlines() if row.endswith(" BROKEN")
    }
    assert broken
