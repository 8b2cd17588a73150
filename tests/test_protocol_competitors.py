"""Competitors are built from the registry's lines, each with its own settings, twins included."""

from types import SimpleNamespace

import pytest

from vj2_ddim_benchmark.planners.entry import BuildAssets, Entry
from vj2_ddim_benchmark.protocol import competitors
from vj2_ddim_benchmark.protocol.competitors import build_competitors
from vj2_ddim_plugin.actions import ActionSpec
from vj2_ddim_plugin.errors import ConfigError

ASSETS = BuildAssets(ActionSpec(), seed=5)


class Planner:
    """Remembers what it was built from."""

    def __init__(self, assets, settings):
        self.assets, self.settings = assets, settings

    def optimize(self, problem):
        raise NotImplementedError


def test_each_planner_gets_the_assets_and_its_own_settings():
    entries = (Entry("a", Planner, {"lr": (0.1,)}), Entry("b", Planner, with_cost=False))
    tuned = {"b": {}, "a": {"lr": 0.1}}
    first, second = build_competitors(entries, ASSETS, tuned)
    assert (first.name, second.name) == ("a", "b")
    assert (first.optimizer.settings, second.optimizer.settings) == ({"lr": 0.1}, {})
    assert first.optimizer.assets is second.optimizer.assets is ASSETS
    assert (first.with_cost, second.with_cost) == (True, False)
    assert first.settings == {"lr": 0.1}
    assert first.unprojected is None


def test_a_twin_is_built_alike_and_only_the_planner_is_timed(monkeypatch):
    clock = SimpleNamespace(now=10.0)
    monkeypatch.setattr(competitors, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    def build(assets, settings):
        clock.now += 0.25 if settings["project"] else 100.0
        return Planner(assets, settings)

    entry = Entry("a", build, fixed={"project": True}, unprojected={"project": False})
    for competitor in build_competitors((entry, entry), ASSETS, {"a": {"steps": 2}}):
        assert competitor.optimizer.settings == {"steps": 2, "project": True}
        assert competitor.unprojected.settings == {"steps": 2, "project": False}
        assert competitor.build_ms == 250.0


def test_a_planner_that_cannot_be_built_says_why():
    def build(assets, settings):
        return Planner(assets.path("bundle"), settings)

    with pytest.raises(ConfigError, match="bundle=None; give bundle"):
        build_competitors((Entry("a", build),), ASSETS, {"a": {}})
