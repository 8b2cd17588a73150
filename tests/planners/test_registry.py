"""The registry's rows, their sweeps and settings, and their way to a worker; wrong ones refused."""

import json
import pickle
from pathlib import Path

import pytest
from builders.planners import SPEC, sampler

from vj2_ddim_benchmark.amortised.base import AmortisedConfig, Sampling
from vj2_ddim_benchmark.assets import shipped_assets
from vj2_ddim_benchmark.planners.cross_entropy import CEM, ICEM, CandidateCEMSettings, GestureCEM
from vj2_ddim_benchmark.planners.description import Planner, PlannerAssets, read_tuned
from vj2_ddim_benchmark.planners.gradient_descent import STARTS, GradientDescent
from vj2_ddim_benchmark.planners.population import MPPI, PredictiveSampling, RandomGestures
from vj2_ddim_benchmark.planners.registry import (
    GESTURE_CEM,
    REGISTRY,
    RIVALS,
    WITH_RIVALS,
    ddim,
    gradient_descent,
    planners_of,
)
from vj2_ddim_benchmark.settings import AMORTISED, TUNED_DIR
from vj2_ddim_plugin.bundle import read_bundle
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_plugin.spec import ActionSpec

every_row = pytest.mark.parametrize("planner", REGISTRY, ids=lambda planner: planner.name)


def test_names_are_unique_and_say_which_see_the_world_model():
    names = [planner.name for planner in REGISTRY]
    assert len(set(names)) == len(names)
    without = [planner.name for planner in REGISTRY if not planner.with_cost]
    assert without == ["ddim-1", "student-1", "regression"]


def test_any_that_ranks_may_have_the_screen_itself_as_its_model():
    (planner,) = planners_of(["ddim-16@true-dynamics"])
    assert (planner.true_dynamics, planner.tuned_as) == (True, "ddim-16")
    assert not any(row.true_dynamics for row in planners_of())
    with pytest.raises(ConfigError, match=r"'ddim-1@true-dynamics' is unknown.*where a cost"):
        planners_of(["ddim-1@true-dynamics"])


@every_row
def test_a_row_can_be_sent_to_another_process_and_has_a_recorded_sweep_within_its_space(planner):
    assert pickle.loads(pickle.dumps(planner)).name == planner.name
    winner = read_tuned(TUNED_DIR, planner)
    assert set(winner) == set(planner.search_space)
    for name, value in winner.items():
        assert value in planner.search_space[name]


@every_row
def test_every_setting_of_a_search_space_builds_or_says_what_asset_to_give(planner):
    if planner.needs:
        (need,) = planner.needs
        files = {name: Path(name) for name in ("bundle", "latents", "student") if name != need}
        models = {name: Path(name) for name in AMORTISED if name != need}
        with pytest.raises(ConfigError, match=f"{need}=None; give {need}"):
            planner.build(
                PlannerAssets(SPEC, **files, amortised=models), read_tuned(TUNED_DIR, planner)
            )
        return
    for name, values in planner.search_space.items():
        first = {key: options[0] for key, options in planner.search_space.items()}
        for value in values:
            how = planner.build(PlannerAssets(SPEC, seed=4), {**first, name: value}).settings
            assert getattr(how, name) == value
            assert how.seed == 4
            for fixed, expected in planner.fixed.items():
                assert getattr(how, fixed) == expected


def test_rows_are_chosen_by_name_in_the_order_of_the_registry():
    chosen = planners_of(["random-gestures-16", "ddim-1"])
    assert [planner.name for planner in chosen] == ["ddim-1", "random-gestures-16"]
    assert planners_of(latents=True) == REGISTRY
    assert planners_of() == tuple(each for each in REGISTRY if "latents" not in each.needs)
    quick = planners_of(quick=True)
    assert 0 < len(quick) < len(REGISTRY)
    assert all(planner.in_quick for planner in quick)
    with pytest.raises(ConfigError, match="'cem' is unknown"):
        planners_of(["cem"])


def test_what_is_not_shipped_races_only_where_it_is_asked_for_by_name():
    names = [planner.name for planner in WITH_RIVALS]
    assert len(set(names)) == len(names)
    assert [planner.name for planner in RIVALS if not planner.with_cost] == [
        "mixture-1", "flow-1", "mip-1", "inverse-dynamics-1",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="'flow-16' is unknown"):
        planners_of(["flow-16"])
    (flow,) = planners_of(["flow-16"], rows=WITH_RIVALS)
    assert pickle.loads(pickle.dumps(flow)).name == "flow-16"
    first = {name: values[0] for name, values in flow.search_space.items()}
    message = "give flow=FILE as amortised, of `vj2-ddim benchmark amortise flow`"
    with pytest.raises(ConfigError, match=message):
        flow.build(PlannerAssets(SPEC), first)
    with pytest.raises(
        ConfigError, match="for pages `vj2-ddim benchmark browser tune --planners f"
    ):
        read_tuned(TUNED_DIR, flow)
    for planner in RIVALS:
        for name, values in planner.search_space.items():
            for value in values:
                Sampling(**planner.fixed, **{name: value})


def test_a_variant_keeps_the_sweep_of_its_row_and_everything_it_does_not_change():
    row = ddim(16)
    variant = row.variant("ddim-16@half", world_model=Path("half.pt")).variant("again")
    found = variant.name, variant.tuned_as, variant.world_model
    assert found == ("again", "ddim-16", Path("half.pt"))
    assert (variant.make, variant.fixed, variant.needs) == (row.make, row.fixed, row.needs)
    assert read_tuned(TUNED_DIR, variant) == read_tuned(TUNED_DIR, row)


def test_a_planner_with_its_own_bundle_plans_what_that_bundle_says():
    bundle = shipped_assets().bundle
    seen = []
    planner = Planner("own", lambda *given: seen.append(given), bundle=bundle, fixed={"a": 1})
    planner.build(PlannerAssets(ActionSpec(), Path("races"), seed=3), {"b": 2})
    ((assets, settings),) = seen
    assert (assets.bundle, assets.seed, settings) == (bundle, 3, {"a": 1, "b": 2})
    assert assets.action_spec == read_bundle(bundle).action_spec != ActionSpec()


def test_only_samplers_need_a_twin_to_show_its_plan_before_projection(monkeypatch):
    built = []
    monkeypatch.setattr(DDIMOptimizer, "from_bundle", lambda path, **given: built.append(given))
    assets = PlannerAssets(SPEC, Path("bundle"), student=Path("student"))
    for planner in REGISTRY:
        if planner.unprojected is None:
            assert planner.build_unprojected(assets, {}) is None
        else:
            assert planner.name.startswith(("ddim", "student"))
            planner.build_unprojected(assets, {"temperature": 0.5})
            assert (built[-1]["project"], built[-1]["temperature"]) == (False, 0.5)
            planner.build(assets, {})
            assert "project" not in built[-1]
    assert len(built) == 20


def test_what_begins_at_ddims_plan_reuses_the_recorded_sweeps_of_its_parents(monkeypatch):
    """Nothing of their own is tuned, and what is reused is the winner on file."""
    monkeypatch.setattr(DDIMOptimizer, "from_bundle", lambda path, **settings: sampler())
    assets = PlannerAssets(SPEC, bundle=TUNED_DIR)
    cem, adam = planners_of(["ddim-16-cem", "ddim-16-adam-10"])
    assert not cem.search_space | adam.search_space
    winner = json.loads((TUNED_DIR / "gesture-cem-8x16.json").read_text())["winner"]
    how = cem.build(assets, {}).improve.settings
    for name in ("num_elites", "smoothing", "covariance"):
        assert getattr(how, name) == winner[name]
    assert (how.num_samples, how.num_iterations) == (16, 4)
    winner = json.loads((TUNED_DIR / "gradient-descent-adam-10.json").read_text())["winner"]
    how = adam.build(assets, {}).improve.optimizer.settings
    assert (how.lr, how.num_iterations, how.method) == (winner["lr"], 10, "adam")
    assert {"num_elites", "smoothing", "covariance", "std"} == set(GESTURE_CEM.search_space)


def test_what_a_descent_fixes_is_in_its_name_and_a_fixed_start_is_the_only_one_tried():
    for planner in REGISTRY:
        if planner.name.startswith("gradient-descent"):
            _, _, method, steps, *rest = planner.name.split("-")
            assert planner.fixed["method"] == method
            assert planner.fixed["num_iterations"] == int(steps)
            num, tried = planner.fixed["num_restarts"], planner.search_space["start"]
            assert rest == ([f"x{num}"] if num > 1 else list(tried) if len(tried) == 1 else [])
            assert tried == (("gestures",) if num > 1 else (rest[0],) if rest else STARTS)
    with pytest.raises(ConfigError, match="'nowhere' is unknown"):
        gradient_descent("adam", 10).build(PlannerAssets(SPEC), {"lr": 0.1, "start": "nowhere"})


NAN = float("nan")
POPULATION = {"num_samples": [0], "num_iterations": [0], "seed": [-1], "start": ["centre"]}
ELITES = {**POPULATION, "num_elites": [0, 97], "std": [0.0, NAN], "smoothing": [1.0]}
FITTED = {**ELITES, "min_std": [-0.1], "covariance": ["spherical"]}
WRONG = {
    CEM: {**FITTED, "num_elites": [0, 33], "num_knots": [1]},
    ICEM: {**FITTED, "num_elites": [0, 49], "noise_beta": [-1.0], "decay": [0.9],
           "keep_share": [1.1, NAN]},
    GestureCEM: {**FITTED, "num_elites": [0, 17]},
    CandidateCEMSettings: {**FITTED, "num_elites": [0]},
    MPPI: {**POPULATION, "temperature": [0.0, NAN], "noise_std": [0.0], "num_knots": [1]},
    PredictiveSampling: {**POPULATION, "noise_std": [0.0, -1.0, NAN]},
    GradientDescent: {"method": ["lbfgs"], "start": ["middle"], "lr": [0.0, NAN],
                      "num_restarts": [0], "num_iterations": [-1], "seed": [-1]},
    RandomGestures: {"num_candidates": [0], "seed": [-1]},
    Sampling: {"num_candidates": [0], "std_scale": [-0.1, NAN], "seed": [-1]},
    AmortisedConfig: {"kind": ["vae"], "head_width": [0], "condition_layers": [-1]},
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_settings_that_cannot_work_are_refused(kind):
    needed = {"lr": 0.1} if kind is GradientDescent else {}
    for name, values in WRONG[kind].items():
        for value in values:
            with pytest.raises(ConfigError, match=f"^{name} "):
                kind(**{**needed, name: value})
