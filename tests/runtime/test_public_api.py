"""`__all__` is the real public API, and every part of it is documented."""

import dataclasses
import importlib
import inspect
import pkgutil
from typing import get_origin

import pytest

import vj2_ddim_plugin
from vj2_ddim_plugin import errors
from vj2_ddim_plugin.errors import VJ2DDIMError

NAMES = [
    "vj2_ddim_plugin",
    *(
        f"vj2_ddim_plugin.{module.name}"
        for module in pkgutil.iter_modules(vj2_ddim_plugin.__path__)
    ),
]
every_module = pytest.mark.parametrize("name", NAMES)
# Not from a module's own `__all__`, and left out of it: parts that other modules of ours use.
INTERNAL = {"Command", "EncodedContext", "Step"}


def defined_in(module):
    """Public functions and classes whose home is this module."""
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
    }


@every_module
def test_every_name_of_all_exists_once_and_in_order(name):
    module = importlib.import_module(name)
    assert len(set(module.__all__)) == len(module.__all__)
    for public in module.__all__:
        assert hasattr(module, public)


@every_module
def test_all_holds_every_public_function_and_class(name):
    module = importlib.import_module(name)
    assert defined_in(module) - INTERNAL <= set(module.__all__)


@every_module
def test_every_module_class_function_and_method_is_documented(name):
    module = importlib.import_module(name)
    assert module.__doc__
    for public in module.__all__:
        value = getattr(module, public)
        if get_origin(value) or not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        assert inspect.getdoc(value), f"{name}.{public} is not documented"
        if not inspect.isclass(value):
            continue
        for attribute, member in vars(value).items():
            function = member.fget if isinstance(member, property) else member
            function = getattr(function, "func", getattr(function, "__func__", function))
            if attribute.startswith("_") or not inspect.isfunction(function):
                continue
            assert function.__doc__, f"{name}.{public}.{attribute} is not documented"


@every_module
def test_every_public_field_is_named_in_its_docstring(name):
    module = importlib.import_module(name)
    for public in module.__all__:
        value = getattr(module, public)
        if dataclasses.is_dataclass(value) and "Attributes:" in value.__doc__:
            for field in dataclasses.fields(value):
                assert f"{field.name}:" in value.__doc__, f"{public}.{field.name}"


def test_the_front_door():
    assert set(vj2_ddim_plugin.__all__) == {
        "ActionOptimizer",
        "ActionSpec",
        "CostFn",
        "DDIMOptimizer",
        "NoiseSchedule",
        "PlanConstraints",
        "PlanResult",
        "PlanningProblem",
        "SearchSettings",
        "SessionSettings",
        "__version__",
    }
    for name in vj2_ddim_plugin.__all__[:-1]:
        assert getattr(vj2_ddim_plugin, name).__module__.startswith("vj2_ddim_plugin.")


def test_every_error_is_ours_and_drawn_in_the_tree():
    kinds = [getattr(errors, name) for name in errors.__all__]
    kinds.remove(errors.escaped)
    assert all(issubclass(kind, VJ2DDIMError) for kind in kinds)
    for kind in kinds:
        assert kind.__name__ in errors.__doc__
    with pytest.raises(VJ2DDIMError):
        vj2_ddim_plugin.NoiseSchedule("banana")


def test_problems_and_results_cannot_be_changed():
    problem = vj2_ddim_plugin.PlanningProblem()
    with pytest.raises(dataclasses.FrozenInstanceError):
        problem.seed = 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        vj2_ddim_plugin.ActionSpec().horizon = 2
