"""Adapters are found by name; one that is broken is reported, and nothing heavy is imported."""

import inspect
import json
import re
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from builders.runtime import HOOK, run
from builders.training import vj2_ddim

from vj2_ddim_plugin.adapters import (
    GROUP,
    Adapter,
    dino_wm,
    find_adapters,
    jepa_wms,
    load_adapter,
    stable_worldmodel,
    vj2_gui,
    vjepa2,
)
from vj2_ddim_plugin.errors import ConfigError

MODULES = (dino_wm, jepa_wms, stable_worldmodel, vj2_gui, vjepa2)
OURS = {module.__name__.rpartition(".")[2]: module.ADAPTER for module in MODULES}
ROOT = Path(__file__).parents[2]
THIRD_PARTY = """
from vj2_ddim_plugin.adapters import Adapter

GOOD = Adapter("Gym", "its planner", "metres", "Gym('bundle')", "third_party:Planner", ())
ABSENT = Adapter("Gym", "it", "metres", "Gym()", "third_party:Planner", ("no_such_module",))
GONE = Adapter("Gym", "it", "metres", "Gym()", "third_party:Moved", ())
FAILS = Adapter("Gym", "it", "metres", "Gym()", "third_party_broken:Planner", ())
QUITS = Adapter("Gym", "it", "metres", "Gym()", "third_party_quits:Planner", ())
NOT_ONE = {"host": "Gym"}

class Planner:
    pass
"""
MISTYPED = """
from vj2_ddim_plugin.adapters import Adapter
ADAPTER = Adapter("Gym", "it", "metres", "Gym()", "third_party:Planner", requires=None)
"""
ENTRIES = {name: f"third_party:{name.upper()}" for name in ("good", "absent", "gone", "fails")}
ENTRIES |= {"quits": "third_party:QUITS", "missing": "third_party:NOWHERE"}
ENTRIES |= {"not-one": "third_party:NOT_ONE", "vj2_gui": "third_party:GOOD"}
FILES = {"raises": "broken", "exits": "quits", "mistyped": "mistyped"}
ENTRIES |= {name: f"third_party_{file}:ADAPTER" for name, file in FILES.items()}


@pytest.fixture
def third_party(tmp_path, monkeypatch):
    """An installed package with entry points, some of them broken, one named like ours."""
    (tmp_path / "third_party.py").write_text(THIRD_PARTY)
    (tmp_path / "third_party_broken.py").write_text("1 / 0")
    (tmp_path / "third_party_quits.py").write_text("import sys; sys.exit('needs a license')")
    (tmp_path / "third_party_mistyped.py").write_text(MISTYPED)
    info = tmp_path / "third_party-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    lines = [f"[{GROUP}]", *(f"{name} = {value}" for name, value in ENTRIES.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in [name for name in sys.modules if name.startswith("third_party")]:
        del sys.modules[name]


def test_ours_are_installed_under_the_names_of_their_files():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    assert declared[GROUP] == {name: f"vj2_ddim_plugin.adapters.{name}:ADAPTER" for name in OURS}
    found = find_adapters()
    assert {name: found[name].adapter for name in OURS} == OURS


@pytest.mark.parametrize("name", OURS)
def test_each_of_ours_says_all_leads_to_a_planner_and_is_documented(name):
    adapter = OURS[name]
    for text in (adapter.host, adapter.replaces, adapter.units, adapter.usage):
        assert text
        assert "\n" not in text
    planner = adapter.load()
    assert inspect.isclass(planner)
    assert planner.__name__ in adapter.usage
    assert planner.__doc__
    assert planner.host == adapter.host
    pages = [page.read_text() for page in (ROOT / "docs").rglob("*.md")]
    assert any(f"| `{name}` | {adapter.host} |" in page for page in pages)
    headed = [page for page in pages if re.search(rf"\n##+ {adapter.host}\n", page)]
    assert any(adapter.target.partition(":")[2] in page for page in headed)


def test_a_third_partys_adapter_is_found_and_loaded(third_party):
    found = find_adapters()["good"]
    assert (found.adapter.host, found.error) == ("Gym", "")
    assert load_adapter("good").__name__ == "Planner"
    assert find_adapters()["vj2_gui"].adapter == vj2_gui.ADAPTER  # no name of ours can be taken


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("missing", "AttributeError: .*NOWHERE"),
        ("raises", "ZeroDivisionError: division by zero"),
        ("exits", "SystemExit: needs a license"),
        ("mistyped", "ConfigError: requires must be a sequence, each text; found None"),
        ("not-one", "it is of type dict, not Adapter"),
    ],
)
def test_a_broken_one_is_reported_and_the_others_stand(third_party, name, error):
    found = find_adapters()
    assert set(found) >= set(ENTRIES)
    assert found[name].adapter is None
    with pytest.raises(ConfigError, match=rf"{name!r} \({ENTRIES[name]}\) is broken: {error}"):
        load_adapter(name)
    assert found["good"].adapter is not None


def test_what_cannot_be_loaded_says_why(third_party):
    for name, message in {
        "absent": "needs no_such_module, which is not installed",
        "gone": "no planner at 'third_party:Moved'",
        "fails": "does not load: .* ZeroDivisionError: division by zero",
        "quits": "does not load: .* SystemExit: needs a license",
        "nothing": "there is no adapter 'nothing'; found are .*good",
    }.items():
        with pytest.raises(ConfigError, match=message):
            load_adapter(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"requires": "torch"}, "requires must be a sequence, each text; found 'torch'"),
        ({"requires": ("",)}, r"requires must name modules; found \(''"),
        ({"requires": (None,)}, r"requires must be a sequence, each text; found \(None"),
        ({"host": None}, "host must be text; found None"),
        ({"package": None}, "package must be text; found None"),
        ({"target": "module"}, "must be 'module:name'; found 'module'"),
        ({"target": ":name"}, "must be 'module:name'"),
        ({"target": ""}, "must be 'module:name'"),
    ],
)
def test_an_adapter_of_wrong_fields_cannot_be_made(change, message):
    fields = {"host": "X", "replaces": "it", "units": "m", "usage": "X()", "target": "m:X"}
    Adapter(**fields)
    with pytest.raises(ConfigError, match=message):
        Adapter(**{**fields, **change})


def test_a_package_that_fails_is_missing(third_party):
    adapter = Adapter("X", "it", "units", "use", "m:X", ("third_party_broken.part", "json.tool"))
    assert adapter.missing == ("third_party_broken.part",)
    assert not replace(adapter, package="third_party_quits.part").host_is_here


def test_nothing_is_imported_to_know_what_is_missing():
    adapter = Adapter("X", "it", "units", "use", "colorsys:rgb_to_hsv", ("colorsys", "nowhere"))
    sys.modules.pop("colorsys", None)
    assert adapter.missing == ("nowhere",)
    assert "colorsys" not in sys.modules
    assert adapter.host_is_here  # a repository; nothing says it is not
    assert replace(adapter, package="numpy").host_is_here
    assert not replace(adapter, package="nowhere").host_is_here


ADAPTERS_ALONE = """
import importlib, pkgutil
from vj2_ddim_plugin import adapters
for module in pkgutil.iter_modules(adapters.__path__):
    importlib.import_module(f"vj2_ddim_plugin.adapters.{module.name}")
from vj2_ddim_plugin.adapters import find_adapters
find_adapters()
print(len([name for name in sys.modules if name.startswith("vj2_ddim_plugin.adapters.")]))
"""


def test_the_adapters_import_numpy_and_onnxruntime_alone():
    done = run(HOOK + ADAPTERS_ALONE)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(MODULES) + 1  # and their base


def test_the_command_lists_them(third_party, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert vj2_ddim("adapters", "--json", tmp_path / "adapters.json") == 0
    printed = capsys.readouterr().out
    rows = json.loads((tmp_path / "adapters.json").read_text())
    assert set(rows) >= {*OURS, *ENTRIES}
    for name in rows:
        assert name in printed
    assert rows["vj2_gui"]["here"] == "yes"
    assert rows["absent"]["here"] == "needs no_such_module"
    assert rows["raises"]["here"] == "broken: ZeroDivisionError: division by zero"
    assert "[0, 1]" in printed  # brackets are text, not markup
    assert rows["dino_wm"]["target"].endswith("dino_wm:DINOWMPlanner")
