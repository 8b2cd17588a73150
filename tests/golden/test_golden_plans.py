"""Plans of the shipped bundle, and what they rest on, are those that were recorded."""

import numpy as np
import pytest
import torch
from golden.recording import (
    Digest,
    Golden,
    bundle_fields,
    defaults,
    encode,
    make_optimizer,
    make_problem,
    make_problems,
    make_schedule,
    make_spec,
    open_optimizer,
    plan_of,
    plan_through_vj2_gui,
)

from vj2_ddim_plugin import gestures as gesture_rules

LENGTH, BATCH = 250, 3
SEED = 11
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def golden():
    golden = Golden("plans")
    yield golden
    golden.save()


def gestures(length=LENGTH):
    """float32 `[3, length, 3]`: a tap, a straight swipe, a bent one; drawn here, by hand."""
    ways = [
        (0.2, 0.3, [(0.25, 0.75)] * 3),
        (0.1, 0.5, [(0.2, 0.8), (0.5, 0.6), (0.8, 0.4)]),
        (0.4, 0.9, [(0.3, 0.3), (0.7, 0.35), (0.6, 0.9)]),
    ]
    actions = np.zeros((len(ways), length, 3), np.float32)
    for row, (first, last, knots) in enumerate(ways):
        start, stop = int(first * length), int(last * length)
        share = np.linspace(0.0, 1.0, stop - start)
        for axis in range(2):
            path = np.interp(share, [0.0, 0.5, 1.0], [knot[axis] for knot in knots])
            actions[row, start:stop, axis] = path
        actions[row, start:stop, 2] = 1.0
    return actions


def square_cost(targets):
    """Cost `[B, K]` of candidates by their distance to one gesture a row; any batch, same bits."""

    def cost(candidates):
        apart = candidates.astype(np.float64) - targets[:, None]
        return np.square(apart).reshape(*candidates.shape[:2], -1).mean(axis=2)

    return cost


def with_edge(cost):
    """The same, but it is bad to touch anywhere between 14 and 16 % of the width."""

    def edged(candidates):
        first = candidates[..., 2].argmax(axis=-1)[..., None]
        x = np.take_along_axis(candidates[..., 0], first, axis=-1)[..., 0]
        return cost(candidates) + 0.5 * ((x > 0.14) & (x < 0.16))

    return edged


def fixed_entries():
    """`[3, 250, 3]`: one gesture starts there, one passes by, one is not yet down."""
    fixed = np.full((BATCH, LENGTH, 3), np.nan, np.float32)
    fixed[0, 40] = 0.3, 0.6, 1.0
    fixed[1, 100:110, 0] = 0.5
    fixed[2, :60] = 0.0
    return fixed


TARGETS = gestures()
NEAR = np.roll(TARGETS, 8, axis=1)  # late, and a little aside
NEAR = np.minimum(NEAR + np.float32(0.04) * NEAR[..., 2:], np.float32(1.0))
BEGUN = NEAR[:, :70]
BOUNDS = {"action_low": np.array([0.25, 0.4, 0.0]), "action_high": np.array([0.6, 0.7, 1.0])}
BOTTOM, MIDDLE = (0.0, 0.9, 1.0, 1.0), (0.1, 0.28, 0.14, 0.32)
TUNED = {"guidance_scale": 1.25, "temperature": 0.5}

# name: (settings of the optimizer, what is asked). `batch` is 1 unless told, `cost` is there.
TABLE = {
    "as it comes": ({}, {}),
    "as it comes, without a cost": ({}, {"cost": False}),
    "the bundle's own seed": ({"seed": 7}, {"seed": None}),
    "another seed": ({}, {"seed": 12345}),
    "one sample": ({"num_candidates": 1}, {"cost": False}),
    "one sample, tuned": ({"num_candidates": 1, **TUNED}, {"cost": False}),
    "one sample with a cost": ({"num_candidates": 1}, {}),
    "many candidates": ({"num_candidates": 64, "num_inference_steps": 2}, {}),
    "one step": ({"num_inference_steps": 1}, {}),
    "four steps": ({"num_inference_steps": 4}, {}),
    "fifty steps": ({"num_inference_steps": 50, "num_candidates": 4}, {}),
    "half way to DDPM": ({"eta": 0.5}, {}),
    "DDPM": ({"eta": 1.0, "num_inference_steps": 20}, {}),
    "guided": ({"guidance_scale": 1.25}, {}),
    "guided hard, with noise": ({"guidance_scale": 3.0, "eta": 0.3}, {}),
    "guided backwards": ({"guidance_scale": 0.0}, {}),
    "cool": ({"temperature": 0.5}, {}),
    "cold": ({"temperature": 0.0, "num_candidates": 2}, {}),
    "refined": ({"num_refinements": 2}, {}),
    "refined far": ({"num_refinements": 1, "refinement_strength": 0.7, "eta": 0.3}, {}),
    "four ranked": ({"num_ranked": 4}, {}),
    "one ranked": ({"num_ranked": 1}, {}),
    "the ranker's choice": ({"num_ranked": 4}, {"cost": False}),
    "ranked and refined": ({"num_ranked": 3, "num_refinements": 1}, {}),
    "robust": ({"num_robust": 2}, {"edge": True}),
    "robust, far": ({"num_robust": 8, "robust_radius": 0.05}, {"edge": True}),
    "robust, ranked": ({"num_robust": 2, "num_ranked": 4}, {}),
    "guided too hard": ({"guidance_scale": 8.0, "num_inference_steps": 4}, {}),
    "not projected": ({"guidance_scale": 8.0, "num_inference_steps": 4, "project": False}, {}),
    "leading": ({"timestep_spacing": "leading"}, {}),
    "linspace": ({"timestep_spacing": "linspace", "num_refinements": 1}, {}),
    "bounds": ({}, {"constraints": BOUNDS}),
    "fixed": ({"num_inference_steps": 4}, {"constraints": {"fixed": fixed_entries()[0]}}),
    "forbidden": ({}, {"constraints": {"forbidden": [BOTTOM, MIDDLE]}}),
    "all constraints": (
        {"num_inference_steps": 4, "num_refinements": 1},
        {"constraints": {**BOUNDS, "fixed": fixed_entries()[1], "forbidden": [MIDDLE]}},
    ),
    "warm": ({}, {"init": NEAR}),
    "warm, without a cost": ({}, {"init": NEAR, "cost": False}),
    "warm, a beginning": ({}, {"init": BEGUN}),
    "warm, nothing near it": ({"warm_start_share": 0.0}, {"init": NEAR}),
    "warm, nearly all near it": (
        {"warm_start_share": 0.9, "refinement_strength": 0.2, "num_refinements": 1},
        {"init": NEAR},
    ),
    "warm, ranked, robust": ({"num_ranked": 4, "num_robust": 2}, {"init": NEAR}),
    "begun": ({"num_inference_steps": 4}, {"frozen": BEGUN}),
    "begun, not yet down": ({"num_inference_steps": 4}, {"frozen": BEGUN[:, :20]}),
    "begun and warm": ({"num_inference_steps": 4}, {"frozen": BEGUN, "init": NEAR}),
    "begun, without a cost": ({"num_inference_steps": 4}, {"frozen": BEGUN, "cost": False}),
    "three": ({}, {"batch": 3}),
    "three, without a cost": ({**TUNED}, {"batch": 3, "cost": False}),
    "three, noisy, refined": ({"eta": 0.5, "num_refinements": 1}, {"batch": 3}),
    "three, ranked, robust": ({"num_ranked": 4, "num_robust": 2}, {"batch": 3}),
    "three, fixed": (
        {"num_inference_steps": 4},
        {"batch": 3, "constraints": {"fixed": fixed_entries()}},
    ),
    "three, begun, warm, forbidden": (
        {"num_inference_steps": 4, "guidance_scale": 1.5},
        {"batch": 3, "frozen": BEGUN[:, :20], "init": NEAR, "constraints": {"forbidden": [BOTTOM]}},
    ),
}


@pytest.fixture(scope="module")
def context(golden):
    """Latents of three screens and goals: as recorded, so that no encoder has a say in plans."""
    if "screens|state" not in golden.arrays:
        return latents()
    return {name: golden.arrays[f"screens|{name}"] for name in ("state", "goal")}


def latents():
    start, goal, *_ = make_problems(BATCH, "validation", 4)
    return {"state": encode(start), "goal": encode(goal)}


def ask(context, rows, *, init=None, frozen=None, seed=SEED, constraints=None, **asked):
    """The problem of some rows: those of the batch, or one of them alone."""
    cost = square_cost(TARGETS[rows])
    if asked.get("edge"):
        cost = with_edge(cost)
    constraints = dict(constraints or {})
    if np.ndim(constraints.get("fixed")) == 3:
        constraints["fixed"] = constraints["fixed"][rows]
    return make_problem(
        constraints or None,
        context={name: array[rows] for name, array in context.items()},
        cost=cost if asked.get("cost", True) else None,
        init_action=None if init is None else init[rows],
        frozen_action=None if frozen is None else frozen[rows],
        seed=seed,
    )


def test_the_pictures_of_the_screens_become_the_same_latents(golden):
    *_, actions, kinds = make_problems(BATCH, "validation", 4)
    golden.check("screens", {**latents(), "kinds": kinds}, **CLOSE)
    golden.check("gestures of the screens", {"actions": actions}, **CLOSE)


@pytest.mark.parametrize("name", TABLE)
def test_plan(golden, context, name):
    settings, asked = TABLE[name]
    batch = asked.get("batch", 1)
    optimizer = make_optimizer(**settings)
    found = plan_of(optimizer.optimize(ask(context, slice(0, batch), **asked)))
    golden.check(f"plan {name}", found, **CLOSE)
    for row in range(batch if batch > 1 else 0):
        alone = plan_of(optimizer.optimize(ask(context, slice(row, row + 1), **asked)))
        for part in ("actions", "cost", "projection_distance"):
            np.testing.assert_array_equal(alone[part][0], found[part][row], err_msg=part)
        np.testing.assert_array_equal(alone["history"][:, 0], found["history"][:, row])


@pytest.mark.parametrize("name", ["as it comes", "ranked and refined", "three, noisy, refined"])
def test_plan_of_a_bundle_opened_for_it_alone(golden, context, name):
    settings, asked = TABLE[name]
    problem = ask(context, slice(0, asked.get("batch", 1)), **asked)
    with open_optimizer(**settings) as optimizer:
        golden.check(f"plan {name}", plan_of(optimizer.optimize(problem)), **CLOSE)


def test_the_table_tells_its_settings_apart(golden):
    """A row that comes out as another one would not notice that its setting is ignored.

    Only without a cost there is one sample, whatever else is asked.
    """
    plans = {}
    for name in TABLE:
        actions, cost = (golden.arrays[f"plan {name}|{part}"] for part in ("actions", "cost"))
        counts = golden.values[f"plan {name}"]
        told = actions.tobytes(), cost.tobytes(), counts["num_cost_evaluations"]
        plans.setdefault((*told, counts["num_denoiser_evaluations"]), []).append(name)
    alike = ["as it comes, without a cost", "one sample", "warm, without a cost"]
    assert [names for names in plans.values() if len(names) > 1] == [alike]


def test_plan_through_the_adapter_for_vj2_gui(golden, context):
    weight = np.random.default_rng(0).normal(size=(LENGTH * 3, 64 * 32)).astype(np.float32) / 50
    weight = torch.from_numpy(weight)

    def predictor(z, actions):
        return z + (actions @ weight).view(*actions.shape[:2], 64, 32)

    z, goal = (torch.from_numpy(context[name]) for name in ("state", "goal"))
    previous = torch.from_numpy(NEAR)
    cold = plan_through_vj2_gui(z[:, None], goal, predictor)
    golden.check("vj2_gui", cold, **CLOSE)
    warm = plan_through_vj2_gui(z[:, None], goal, predictor, previous)
    golden.check("vj2_gui, warm", warm, **CLOSE)
    assert (warm["cost"] <= cold["cost"] + 1e-6).all() or (warm["actions"] != cold["actions"]).any()


@pytest.mark.parametrize("representation", ["raw", "held", "path"])
@pytest.mark.parametrize("bent", [False, True])
def test_action_spec(golden, representation, bent):
    length = 60
    knots = 3 if bent else 2
    spec = make_spec(
        action_block=length,
        min_press_steps=5,
        max_press_steps=40,
        path_knots=knots,
        representation=representation,
    )
    actions = gestures(length)
    rng = np.random.default_rng(3)
    wild = (actions + 0.2 * rng.normal(size=actions.shape)).astype(np.float32)
    encoded = gesture_rules.encode(actions, spec)
    noisy = (encoded + 0.3 * rng.normal(size=encoded.shape)).astype(np.float32)
    low, high = gesture_rules.diffused_bounds(spec)
    found = {
        "encoded": encoded,
        "decoded": gesture_rules.decode(encoded, spec),
        "decoded_noise": gesture_rules.decode(noisy, spec),
        "projected": gesture_rules.project(wild, spec),
        "projected_decoded_noise": gesture_rules.project(gesture_rules.decode(noisy, spec), spec),
        "valid": gesture_rules.is_valid(np.concatenate([actions, wild]), spec),
        "low": np.asarray(low),
        "high": np.asarray(high),
        "shape": spec.diffused_shape,
        "fields": spec.to_dict(),
    }
    golden.check(f"spec {representation} {knots}", found, **CLOSE)


@pytest.mark.parametrize("beta_schedule", ["linear", "cosine", "zero_terminal_snr"])
def test_noise_schedule(golden, beta_schedule):
    schedule = make_schedule(beta_schedule=beta_schedule, prediction_type="v_prediction")
    alphas = schedule.alphas_cumprod
    pairs = {
        f"{spacing} {num} from {start}": schedule.timesteps(
            num, spacing=spacing, start_timestep=start
        )
        for spacing in ("linspace", "leading", "trailing")
        for num in (1, 3, 7, 10, 50)
        for start in (None, 400)
    }
    found = {
        "alphas_cumprod": Digest({"": alphas}),
        "some_alphas_cumprod": np.append(alphas[::37], alphas[-1]),
        "end": schedule.alpha_cumprod(-1),
        "timesteps": pairs,
        "fields": schedule.to_dict(),
    }
    golden.check(f"schedule {beta_schedule}", found, rtol=1e-12, atol=1e-15)


def test_manifest_and_defaults(golden):
    golden.check("bundle", {"fields": bundle_fields()}, **CLOSE)
    golden.check("defaults", {"of": defaults()}, **CLOSE)
