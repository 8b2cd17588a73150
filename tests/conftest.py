"""What makes all tests faster and changes none."""

import functools
import gc
import os
import sys
from unittest import mock

import pytest

EXPORTER = "torch.onnx._internal.exporter._registration"
LONGEST = (
    *("adapters/test_recipes.py", "crash/test_crash_benchmark.py", "docs/test_pages.py"),
    *("golden/test_golden_benchmark.py", "assets/test_build.py", "crash/test_crash_export.py"),
    *("export/test_export.py", "crash/test_crash_training.py", "packaging/test_distributions.py"),
    *("golden/test_golden_training.py", "training/test_horizon.py", "training/test_commands.py"),
    *("training/test_ranker.py", "training/test_resume.py", "runtime/test_ranker_bundle.py"),
)


def pytest_collection_modifyitems(items):
    """Where each file goes whole to a process of its own, those that take longest begin."""
    place = {name: index for index, name in enumerate(LONGEST)}
    items.sort(key=lambda each: place.get(f"{each.path.parent.name}/{each.path.name}", len(place)))


def pytest_collection_finish():
    """What was imported stays: the collector need not look through it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture(scope="session")
def graphs(tmp_path_factory):
    """The folder of exported graphs, which all processes of a run of the tests share."""
    own = tmp_path_factory.getbasetemp()
    return (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "graphs"


@pytest.fixture(autouse=True)
def graphs_are_traced_once(graphs):
    """Each kind of model; and torch's exporter reads the source of its 1,000 operators once."""
    if "torch" in sys.modules:
        from builders.graphs import remember_graphs

        remember_graphs(graphs)
    yield
    if (exporter := sys.modules.get(EXPORTER)) is None:
        return
    registry = exporter.ONNXRegistry
    if not hasattr(registry.from_torchlib, "cache_info"):
        registry.from_torchlib = staticmethod(functools.cache(registry.from_torchlib))


@pytest.fixture(scope="module", autouse=True)
def pictures_of_runs_are_empty():
    """Drawing is much of a tiny run of training; a module that looks at them overrides this."""
    if (validation := sys.modules.get("vj2_ddim_training.validation")) is None:
        yield
        return
    from matplotlib.figure import Figure

    def draw(*what, **how):
        return Figure((1, 1))

    with mock.patch.multiple(validation, plot_sequences=draw, plot_noise=draw):
        yield
