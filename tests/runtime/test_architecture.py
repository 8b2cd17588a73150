"""One direction: what the runtime's modules import of one another, types included."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from builders.runtime import run

import vj2_ddim_plugin

PACKAGE = "vj2_ddim_plugin"
FOLDER = Path(vj2_ddim_plugin.__file__).parent
SOURCES = {
    ".".join([PACKAGE, *path.relative_to(FOLDER).with_suffix("").parts]).removesuffix(
        ".__init__"
    ): path.read_text()
    for path in FOLDER.rglob("*.py")
}
SHIMS = {name for name, text in SOURCES.items() if text.startswith('"""SHIM')}
# A part may import of those above it, and within itself.
LAYERS = [
    {"errors"},
    {"files", "process"},
    {"arrays"},
    {"settings", "interface"},
    {"protocol"},
    {"schedule", "spec", "graph_file"},
    {"gestures", "bundle", "ddim"},
    {"constraints", "onnx"},
    {"model"},
    {"planning", "testing"},
    {"optimizer"},
    {"remote", "serving"},
    {"", "doctor", "adapters", "commands", "cli"},  # the first is the package itself
]
MOST_FILES = 26


def imports_of(text, known):
    """The modules of ours that a source imports, wherever in it, also for types alone."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (parts & known) or {node.module}
    return found & known


def graph_of(sources):
    return {name: imports_of(text, set(sources)) for name, text in sources.items()}


def circle_in(sources):
    """Modules that import one another in a circle, or None."""
    try:
        TopologicalSorter(graph_of(sources)).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def part_of(name):
    return name.partition(".")[2].partition(".")[0]


def upward(sources):
    """The imports that go up: from a part to one that may import it, or is beside it."""
    rank = {part: index for index, layer in enumerate(LAYERS) for part in layer}
    return [
        (name, imported)
        for name, others in graph_of(sources).items()
        for imported in others
        if part_of(name) != part_of(imported)
        and not (rank[part_of(imported)] < rank[part_of(name)])
        and rank[part_of(name)] < len(LAYERS) - 1
    ]


def test_no_module_imports_itself_by_way_of_others():
    assert circle_in(SOURCES) is None


def test_every_part_has_its_place_and_imports_go_down():
    sources = {name: text for name, text in SOURCES.items() if name not in SHIMS}
    assert {part_of(name) for name in sources} <= set().union(*LAYERS)
    assert upward(sources) == []


@pytest.mark.parametrize("guard", ["", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    "])
def test_the_checks_can_fail(guard):
    spec, gestures = SOURCES[f"{PACKAGE}.spec"], SOURCES[f"{PACKAGE}.gestures"]
    circle = {
        f"{PACKAGE}.spec": f"{spec}\n{guard}from {PACKAGE}.gestures import encode",
        f"{PACKAGE}.gestures": gestures,
    }
    assert {f"{PACKAGE}.spec", f"{PACKAGE}.gestures"} == set(circle_in(circle))
    assert upward(circle) == [(f"{PACKAGE}.spec", f"{PACKAGE}.gestures")]
    manifest = {f"{PACKAGE}.bundle": f"{guard}from {PACKAGE} import model", f"{PACKAGE}.model": ""}
    assert circle_in(manifest) is None
    assert upward(manifest) == [(f"{PACKAGE}.bundle", f"{PACKAGE}.model")]


def test_the_import_of_the_package_reads_few_files():
    show = "import sys; print(*sys.modules)"
    assert "numpy" not in run(f"import {PACKAGE}.errors; {show}").stdout.split()
    done = run(f"from {PACKAGE} import *; {show}")
    assert done.returncode == 0, done.stderr
    read = [name for name in done.stdout.split() if PACKAGE in name]
    assert f"{PACKAGE}.optimizer" in read
    assert len(read) <= MOST_FILES, read
