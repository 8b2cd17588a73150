"""What is installed with the plugin runs on Python 3.10; `make test-runtime` runs it there."""

import ast
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ("vj2_ddim_plugin", "training", "export")
BUNDLE = ROOT / "benchmark/vj2_ddim_benchmark/assets/shipped/bundle"
# What the standard library has gained since, and where.
NEWER = {
    "asyncio": {"Barrier", "Runner", "TaskGroup", "timeout"},
    "builtins": {"BaseExceptionGroup", "ExceptionGroup"},
    "contextlib": {"chdir"},
    "datetime": {"UTC"},
    "enum": {"EnumCheck", "ReprEnum", "StrEnum", "member", "nonmember", "verify"},
    "hashlib": {"file_digest"},
    "inspect": {"getmembers_static"},
    "itertools": {"batched"},
    "logging": {"getHandlerByName", "getLevelNamesMapping"},
    "math": {"cbrt", "exp2", "sumprod", "fma"},
    "operator": {"call"},
    "sys": {"exception"},
    "typing": {
        *("LiteralString", "Never", "NotRequired", "Required", "Self", "TypeVarTuple", "Unpack"),
        *("assert_never", "assert_type", "dataclass_transform", "override", "reveal_type"),
    },
    "warnings": {"deprecated"},
}
MODULES = {"tomllib", "wsgiref.types"}
METHODS = {"add_note"}


def newer(source):
    """Names of Python 3.11 and later that are used at run time."""
    tree = ast.parse(source, feature_version=(3, 10))
    for node in ast.walk(tree):  # what only a type checker sees is not there
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            node.body.clear()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ({alias.name for alias in node.names} & MODULES)
        elif isinstance(node, ast.ImportFrom):
            yield from {node.module} & MODULES
            yield from {alias.name for alias in node.names} & NEWER.get(node.module, set())
        elif isinstance(node, ast.Attribute):
            known = NEWER.get(ast.unparse(node.value), set()) | METHODS
            yield from {node.attr} & known
        elif isinstance(node, ast.AnnAssign):  # what it is of must be said
            yield from {ast.unparse(node.annotation)} & {"ClassVar", "Final"}
        elif isinstance(node, ast.Name):
            yield from {node.id} & NEWER["builtins"]


@pytest.mark.parametrize("part", PARTS)
def test_nothing_newer_than_python_310_is_used(part):
    sources = sorted((ROOT / part).rglob("*.py"))
    assert sources
    found = {path.name: sorted(set(newer(path.read_text()))) for path in sources}
    assert not {name: names for name, names in found.items() if names}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from typing import Any, Self", ["Self"]),
        ("import hashlib\nhashlib.file_digest(f, 'sha256')", ["file_digest"]),
        ("import tomllib", ["tomllib"]),
        ("error.add_note('x')", ["add_note"]),
        ("raise ExceptionGroup('x', [])", ["ExceptionGroup"]),
        ("error: ClassVar = 1", ["ClassVar"]),
        ("if TYPE_CHECKING:\n    from typing import Self\nprint()", []),
    ],
)
def test_the_check_can_fail(source, expected):
    assert list(newer(source)) == expected


PLAN = """
import numpy as np
from vj2_ddim_plugin import DDIMOptimizer, PlanningProblem
from vj2_ddim_plugin.adapters import find_adapters
optimizer = DDIMOptimizer.from_bundle(BUNDLE, provider="cpu", num_threads=1)
inputs = optimizer.model.condition.inputs
context = {name: np.zeros((2, *shape), np.float32) for name, shape in inputs.items()}
print(optimizer.optimize(PlanningProblem(context, seed=1)).actions.shape)
"""


def test_it_plans_there():
    python = shutil.which("python3.10")
    needed = [python or "", "-c", "import numpy, onnxruntime"]
    if python is None or subprocess.run(needed, capture_output=True).returncode:
        pytest.skip("no Python 3.10 with numpy and ONNX Runtime; `make test-runtime` makes one")
    script = PLAN.replace("BUNDLE", repr(str(BUNDLE)))
    words = [python, "-c", script]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout == "(2, 250, 3)\n", done.stderr
