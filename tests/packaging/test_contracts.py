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
    environment = {**os.environ, "PYTHONPATH": str(folder), "COLUMNS": "200"}
    settings = {"capture_output": True, "text": True, "timeout": 120}
    command = [sys.executable, "-c", PROGRAM, "--no-cache"]
    return subprocess.run(command, cwd=folder, env=environment, **settings)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The project's Python files, to be spoiled."""
    folder = tmp_path_factory.mktemp("packages")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for package in map(Path, PACKAGES):
        for file in (ROOT / package).rglob("*.py"):
            target = folder / file.relative_to(ROOT / package.parent)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    return folder


def test_every_contract_is_kept(copy):
    done = lint(copy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


WORLD = "vj2_ddim_benchmark/world/__init__"
FOR_TYPES = "if TYPE_CHECKING:\n    import vj2_ddim_benchmark.race"


TOGETHER = [
    ("vj2_ddim_plugin/spec", "import vj2_ddim_plugin.gestures", "The layers of the runtime"),
    ("vj2_ddim_plugin/bundle", "import vj2_ddim_plugin.model", "The layers of the runtime"),
    ("vj2_ddim_plugin/optimizer", "import vj2_ddim_training", "The packages, one on top"),
    ("vj2_ddim_training/loop", "import vj2_ddim_benchmark.world", "The packages, one on top"),
    ("vj2_ddim_plugin/onnx/session", "import torch", "The runtime needs numpy and ONNX"),
    (WORLD, "import vj2_ddim_benchmark.planners", "The layers of the benchmark"),
]


@pytest.mark.parametrize("spoiled", [TOGETHER, [(WORLD, FOR_TYPES, "No circles")]])
def test_each_contract_can_fail_and_names_the_import(copy, spoiled):
    sound = {module: (copy / f"{module}.py").read_text() for module, *_ in spoiled}
    try:
        for module, line, _ in spoiled:
            added = f"\nfrom typing import TYPE_CHECKING\n{line}\n"
            (copy / f"{module}.py").write_text(sound[module] + added)
        done = lint(copy)
    finally:
        for module, text in sound.items():
            (copy / f"{module}.py").write_text(text)
    assert done.returncode == 1
    said = " ".join(done.stdout.split())
    for module, line, contract in spoiled:
        rows = [row for row in done.stdout.splitlines() if row.startswith(contract)]
        assert len([row for row in rows if row.endswith(" BROKEN")]) == 1, contract
        if spoiled is TOGETHER:
            name = module.removesuffix("/__init__").replace("/", ".")
            assert f"{name} -> {line.removeprefix('import ')} (l." in said, line
