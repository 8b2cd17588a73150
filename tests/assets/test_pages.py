"""The trained parts for a browser's pages: whole, small, and those that raced."""

import json
from pathlib import Path

from vj2_ddim_benchmark.planners.description import read_tuned
from vj2_ddim_benchmark.planners.registry import planners_of
from vj2_ddim_benchmark.settings import SHIPPED_PAGES, BrowserRaceSettings, BrowserWatchSettings
from vj2_ddim_benchmark.world_model.model import WorldModel
from vj2_ddim_plugin.bundle import read_bundle
from vj2_ddim_plugin.files import sha256_of

RESULTS = Path(__file__).parents[2] / "benchmark" / "results"
MOST_BYTES = 10_000_000


def test_every_file_is_the_one_that_was_recorded_and_all_are_small():
    files = [path for path in SHIPPED_PAGES.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MOST_BYTES
    provenance = json.loads((SHIPPED_PAGES / "provenance.json").read_text())
    hashes = {path.relative_to(SHIPPED_PAGES).as_posix(): sha256_of(path) for path in files}
    del hashes["provenance.json"]
    assert provenance["sha256"] == hashes
    for name in ("browser_race.json", "browser_chains.json"):
        raced = json.loads((RESULTS / name).read_text())
        assert raced["bundle_sha256"] == hashes["bundle/bundle.json"]
        assert raced["world_model_sha256"] == hashes["world_model.pt"]


def test_they_fit_together_and_every_planner_of_a_race_is_tuned():
    config = WorldModel.load(SHIPPED_PAGES / "world_model.pt").config
    bundle = read_bundle(SHIPPED_PAGES / "bundle")
    shape = (config.num_tokens, config.token_dim)
    assert config.encoder == "text-detector"
    assert {tuple(each) for each in bundle.condition.inputs.values()} == {shape}
    names = (*BrowserRaceSettings().planners, BrowserWatchSettings().planner, "retrieval-16")
    for planner in planners_of(names):
        assert set(read_tuned(SHIPPED_PAGES / "tuned", planner)) == set(planner.search_space)
