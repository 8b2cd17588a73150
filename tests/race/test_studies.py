"""Studies: who takes part, what they see, and what is written and reported."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from builders.race import write_world_model

from vj2_ddim_benchmark.benchmark import Benchmark
from vj2_ddim_benchmark.planners import registry as ddim_module
from vj2_ddim_benchmark.planners.description import PlannerAssets
from vj2_ddim_benchmark.planners.registry import planners_of
from vj2_ddim_benchmark.report.page import rebuild_report
from vj2_ddim_benchmark.settings import RaceSettings
from vj2_ddim_benchmark.studies import STUDIES, StudySettings, split_name
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.spec import ActionSpec


def named(study, settings=None):
    return {planner.name: planner for planner in (settings or StudySettings()).variants(study)}


@pytest.mark.parametrize(
    ("study", "key", "values"),
    [
        ("steps", "num_inference_steps", (1, 2, 4, 8, 10, 16, 50)),
        ("candidates", "num_candidates", (1, 4, 16, 64)),
    ],
)
def test_what_is_varied_reaches_the_sampler(monkeypatch, study, key, values):
    built = []
    sampler = SimpleNamespace(from_bundle=lambda path, **settings: built.append(settings))
    monkeypatch.setattr(ddim_module, "DDIMOptimizer", sampler)
    variants = named(study)
    for name, planner in variants.items():
        assert planner.name == name
        planner.build(PlannerAssets(ActionSpec(), Path("bundle")), {})
        assert planner.with_cost == (built[-1]["num_candidates"] > 1)
    found = [(split_name(name)[1], settings[key]) for name, settings in zip(variants, built)]  # noqa: B905
    series = 2 if study == "steps" else 1
    assert found == [(str(value), value) for value in values] * series
    assert {settings["num_candidates"] for settings in built} == (
        {16, 1} if study == "steps" else set(values)
    )


def test_every_study_begins_or_ends_with_the_planners_as_they_are():
    files = {"study_world_model": ("half=half.pt",), "study_bundle": ("1 %=one",)}
    settings = StudySettings(study_planners=("ddim-16", "cem-8x32"), **files)
    noise = {n: p.goal_noise for n, p in named("goal-noise", settings).items() if n[:3] == "cem"}
    assert noise == {f"cem-8x32@{std:g}": std for std in (0.0, 0.1, 0.2, 0.5)}
    models = {name: planner.world_model for name, planner in named("world-model", settings).items()}
    assert models == {
        "ddim-16@own": None, "ddim-16@half": Path("half.pt"),
        "cem-8x32@own": None, "cem-8x32@half": Path("half.pt"),
    }  # fmt: skip
    bundles = {name: planner.bundle for name, planner in named("denoisers", settings).items()}
    assert bundles == {
        "ddim-16@1 %": Path("one"), "ddim-16@own": None,
        "ddim-1@1 %": Path("one"), "ddim-1@own": None,
    }  # fmt: skip


def test_files_are_given_with_their_names_and_what_a_study_lacks_is_named():
    for study, message in (
        ("world-model", "study_world_model="), ("denoisers", "study_bundle="),
        ("stepps", "unknown; use one of steps, candidates"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            StudySettings().variants(study)
    settings = StudySettings(study_world_model=("half=h.pt",), study_bundle=("1 %=a=b",))
    assert settings.world_models == {"half": Path("h.pt")}
    assert settings.bundles == {"1 %": Path("a=b")}
    with pytest.raises(ConfigError, match=r"must be NAME=FILE; found 'h\.pt'"):
        StudySettings(study_world_model=("h.pt",))
    for twice in (("a=x", "a=y"), ("own=x",), ("a@b=x",)):
        with pytest.raises(ConfigError, match=r"study_bundle: a NAME must be given once"):
            StudySettings(study_bundle=twice)
    with pytest.raises(ConfigError, match="NAME=DIR"):
        StudySettings(study_bundle=("bundle",))
    with pytest.raises(ConfigError, match="nobody"):
        StudySettings(study_planners=("nobody",))


def test_studies_are_raced_beside_the_race_and_rebuilt_from_their_raw_results(tmp_path):
    path = write_world_model(tmp_path / "world_model.pt")
    half = write_world_model(tmp_path / "half.pt", seed=1)
    run, out = tmp_path / "run", tmp_path / "out"
    settings = RaceSettings(
        world_model=path, num_problems=3, threads=1, budget_ms=(5000.0,), full_plan=True
    )
    planners, benchmark = ("random-gestures-16",), Benchmark(settings, run)
    benchmark.race(planners_of(planners))
    studies = StudySettings(
        study=("goal-noise", "world-model"),
        study_planners=planners,
        study_problems=2,
        study_world_model=(f"half={half}",),
    )
    benchmark.study(studies)
    rows = rebuild_report(run, out)
    assert [row["budget_ms"] for row in rows if row["task"] == "one-gesture"] == [5000.0, None]
    for name, num in (("goal-noise", 4 * 2), ("world-model", 2 * 2)):
        folder = run / "studies" / name
        assert len((folder / "results.jsonl").read_text().splitlines()) == num
        summary = json.loads((out / "studies" / name / "summary.json").read_text())
        assert {row["n"] for row in summary if row["task"] == "one-gesture"} == {2}
        assert (out / "pictures" / f"study-{name}.png").read_bytes().startswith(b"\x89PNG")
        for page in ("report.md", "report.html"):
            assert STUDIES[name].title in (out / page).read_text()
    # without noise and with its own world model it is the race again
    plain = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    for name, variant in (("goal-noise", "@0"), ("world-model", "@own")):
        lines = (run / "studies" / name / "results.jsonl").read_text().splitlines()
        again = [r for r in map(json.loads, lines) if r["planner"].endswith(variant)]
        costs = [r["final_cost"] for r in plain if r["budget_ms"] is None][:2]
        assert [r["final_cost"] for r in again] == costs
    write_world_model(half, seed=2)
    with pytest.raises(ConfigError, match="holds results of another run"):
        benchmark.study(studies)
