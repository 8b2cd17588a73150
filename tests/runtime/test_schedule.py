"""Noise schedules against diffusers, against their papers, and by hand."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from vj2_ddim_plugin.ddim import affine_step
from vj2_ddim_plugin.errors import ConfigError, ScheduleError
from vj2_ddim_plugin.schedule import (
    BETA_SCHEDULES,
    ORIGINAL_SCHEDULE,
    PREDICTION_TYPES,
    TIMESTEP_SPACINGS,
    NoiseSchedule,
    conversion,
    signal_and_noise,
    target_of,
)

DIFFUSERS = {
    "linear": {"beta_schedule": "linear"},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "zero_terminal_snr": {"beta_schedule": "linear", "rescale_betas_zero_snr": True},
}


def make_schedule(beta_schedule="linear", prediction_type="v_prediction", **changes):
    return NoiseSchedule(beta_schedule, prediction_type, **changes)


def visited(pairs):
    return [timestep for timestep, _ in pairs]


@pytest.mark.parametrize("num_train_timesteps", [10, 100, 1000])
@pytest.mark.parametrize("name", BETA_SCHEDULES)
def test_alphas_cumprod_equal_those_of_diffusers(name, num_train_timesteps):
    reference = DDIMScheduler(num_train_timesteps=num_train_timesteps, **DIFFUSERS[name])
    ours = make_schedule(name, num_train_timesteps=num_train_timesteps).alphas_cumprod
    assert ours.shape == (num_train_timesteps,)
    assert ours.dtype == np.float64
    np.testing.assert_allclose(ours, reference.alphas_cumprod.double().numpy(), atol=2e-6)


def test_other_betas_equal_those_of_diffusers():
    reference = DDIMScheduler(num_train_timesteps=50, beta_start=0.01, beta_end=0.3)
    ours = make_schedule(num_train_timesteps=50, beta_start=0.01, beta_end=0.3).alphas_cumprod
    np.testing.assert_allclose(ours, reference.alphas_cumprod.double().numpy(), atol=1e-6)


def test_linear_by_hand():
    schedule = make_schedule(num_train_timesteps=3, beta_start=0.1, beta_end=0.3)
    np.testing.assert_allclose(schedule.alphas_cumprod, [0.9, 0.9 * 0.8, 0.9 * 0.8 * 0.7])


def test_cosine_follows_the_closed_form_of_its_paper():
    def signal(share):
        return math.cos((share + 0.008) / 1.008 * math.pi / 2) ** 2

    ours = make_schedule("cosine").alphas_cumprod
    wanted = [signal((t + 1) / 1000) / signal(0.0) for t in range(1000)]
    np.testing.assert_allclose(ours[:-1], wanted[:-1], rtol=1e-9)
    assert ours[-1] == pytest.approx(ours[-2] * 0.001)  # the paper's cap of beta at 0.999


@pytest.mark.parametrize("name", BETA_SCHEDULES)
def test_alphas_cumprod_fall_strictly_within_zero_and_one(name):
    alphas = make_schedule(name).alphas_cumprod
    assert (np.diff(alphas) < 0).all()
    assert alphas[0] < 1
    assert alphas[-1] >= 0


def test_zero_terminal_snr_ends_in_pure_noise_and_begins_like_linear():
    rescaled, linear = (
        make_schedule("zero_terminal_snr").alphas_cumprod,
        make_schedule("linear").alphas_cumprod,
    )
    assert rescaled[-1] == 0.0
    assert rescaled[0] == pytest.approx(linear[0], rel=1e-12)
    assert linear[-1] > 0


def test_timestep_minus_one_is_the_end():
    schedule = make_schedule(final_alpha_cumprod=0.99995)
    assert schedule.alpha_cumprod(-1) == 0.99995
    assert schedule.alpha_cumprod(0) == pytest.approx(1 - 1e-4)
    assert type(schedule.alpha_cumprod(3)) is float


@pytest.mark.parametrize("num_inference_steps", [1, 2, 10, 50, 100, 1000])
@pytest.mark.parametrize("spacing", TIMESTEP_SPACINGS)
def test_timesteps_equal_those_of_diffusers(spacing, num_inference_steps):
    reference = DDIMScheduler(timestep_spacing=spacing)
    if spacing == "linspace" and num_inference_steps == 1:
        wanted = [999]  # diffusers visits timestep 0 only, which leaves noise as it is
    else:
        reference.set_timesteps(num_inference_steps)
        wanted = reference.timesteps.tolist()
    ours = visited(make_schedule().timesteps(num_inference_steps, spacing=spacing))
    # diffusers rounds linspace; the original script truncates it
    tolerance = 1 if spacing == "linspace" else 0
    assert len(ours) == len(wanted)
    assert np.abs(np.subtract(ours, wanted)).max() <= tolerance


@pytest.mark.parametrize(
    ("spacing", "num_inference_steps", "wanted"),
    [
        ("linspace", 3, [9, 4, 0]),  # 4.5 is truncated, as the original script does
        ("linspace", 4, [9, 6, 3, 0]),
        ("linspace", 1, [9]),
        ("leading", 3, [6, 3, 0]),
        ("leading", 4, [6, 4, 2, 0]),
        ("trailing", 3, [9, 6, 2]),
        ("trailing", 4, [9, 7, 4, 1]),
        ("trailing", 1, [9]),
    ],
)
def test_timesteps_by_hand_where_n_does_not_divide_t(spacing, num_inference_steps, wanted):
    schedule = make_schedule(num_train_timesteps=10, timestep_spacing=spacing)
    pairs = schedule.timesteps(num_inference_steps)
    assert pairs == list(zip(wanted, [*wanted[1:], -1], strict=True))


@pytest.mark.parametrize("num_train_timesteps", [7, 60])
@pytest.mark.parametrize("spacing", TIMESTEP_SPACINGS)
def test_pairs_are_consecutive_and_strictly_descend(spacing, num_train_timesteps):
    schedule = make_schedule(num_train_timesteps=num_train_timesteps)
    for steps in range(1, num_train_timesteps + 1):
        pairs = schedule.timesteps(steps, spacing=spacing)
        assert len(pairs) == steps
        assert pairs[-1][1] == -1
        assert all(type(number) is int for pair in pairs for number in pair)
        assert all(timestep > prev_timestep for timestep, prev_timestep in pairs)
        assert all(first[1] == second[0] for first, second in pairwise(pairs))
        assert min(visited(pairs)) >= 0
        if spacing == "linspace":
            assert pairs[0][0] == num_train_timesteps - 1
            assert steps == 1 or pairs[-1][0] == 0
        elif spacing == "trailing":
            assert pairs[0][0] == num_train_timesteps - 1
        elif steps < num_train_timesteps:
            assert num_train_timesteps - 1 not in visited(pairs)


def test_the_spacing_of_the_schedule_is_the_default():
    schedule = make_schedule(timestep_spacing="trailing")
    assert schedule.timesteps(7) == schedule.timesteps(7, spacing="trailing")
    assert schedule.timesteps(7) != schedule.timesteps(7, spacing="linspace")


@pytest.mark.parametrize("start", [0, 1, 399, 999])
@pytest.mark.parametrize("spacing", TIMESTEP_SPACINGS)
def test_a_run_from_a_given_timestep_begins_at_that_timestep(spacing, start):
    for steps in {1, min(4, start + 1), start + 1}:
        pairs = make_schedule().timesteps(steps, spacing=spacing, start_timestep=start)
        assert len(pairs) == steps
        assert pairs[0][0] == start
        assert pairs[-1][1] == -1
        assert all(timestep > prev_timestep for timestep, prev_timestep in pairs)


def test_starting_at_the_last_timestep_is_starting_nowhere_in_particular():
    schedule = make_schedule()
    for spacing in ("linspace", "trailing"):
        ordinary = schedule.timesteps(13, spacing=spacing)
        assert schedule.timesteps(13, spacing=spacing, start_timestep=999) == ordinary


@pytest.mark.parametrize(
    ("steps", "changes", "message"),
    [
        (1, {"start_timestep": -1}, "start_timestep must be in 0 to 999; found -1"),
        (1, {"start_timestep": -2}, "start_timestep must be in 0 to 999; found -2"),
        (1, {"start_timestep": 1000}, "start_timestep must be in 0 to 999; found 1000"),
        (-3, {}, "num_inference_steps must be in 1 to 1000.*-3"),
        (0, {}, "num_inference_steps must be in 1 to 1000.*0"),
        (1001, {}, "num_inference_steps must be in 1 to 1000.*1001"),
        (6, {"start_timestep": 4}, r"1 to 5, .*found 6"),
        (5, {"spacing": "banana"}, "'banana'"),
    ],
)
def test_a_run_that_does_not_fit_the_schedule_is_refused(steps, changes, message):
    with pytest.raises(ScheduleError, match=message):
        make_schedule().timesteps(steps, **changes)


def test_epsilon_with_zero_terminal_snr_is_refused_with_the_fix():
    with pytest.raises(ScheduleError, match="zero_terminal_snr") as caught:
        make_schedule("zero_terminal_snr", "epsilon")
    assert "'v_prediction' or 'sample'" in str(caught.value)
    assert isinstance(caught.value, ConfigError)


@pytest.mark.parametrize(
    ("field", "choices"),
    [
        ("beta_schedule", BETA_SCHEDULES),
        ("prediction_type", PREDICTION_TYPES),
        ("timestep_spacing", TIMESTEP_SPACINGS),
    ],
)
def test_an_unknown_name_is_refused_with_the_known_ones(field, choices):
    with pytest.raises(ScheduleError, match=f"{field} 'banana'") as caught:
        NoiseSchedule(**{field: "banana"})
    assert all(choice in str(caught.value) for choice in choices)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_train_timesteps": 1},
        {"num_train_timesteps": 0},
        *({"num_train_timesteps": size} for size in (100_001, 10**8, 10**400, 10**5000)),
        {"num_train_timesteps": 100_000},  # nothing is left of the signal long before the end
        {"beta_start": 1e-300, "beta_end": 1e-300},
        {"beta_start": 10**400},
        {"beta_end": 1.0 - 1e-15},
        {"beta_start": 0.0},
        {"beta_start": -0.1},
        {"beta_start": 0.5, "beta_end": 0.1},
        {"beta_end": 1.0},
        {"beta_end": math.nan},
        {"final_alpha_cumprod": 0.0},
        {"final_alpha_cumprod": 5e-324},
        {"final_alpha_cumprod": 0.99},  # below the first: the last step would add noise
        {"final_alpha_cumprod": 1.5},
        {"final_alpha_cumprod": math.nan},
    ],
)
def test_numbers_out_of_range_are_refused_by_name(changes):
    name = next(reversed(changes))
    with pytest.raises(ScheduleError, match=name):
        make_schedule(**changes)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("name", BETA_SCHEDULES)
@pytest.mark.parametrize(
    "changes",
    [
        *({"num_train_timesteps": size} for size in (2, 1000, 100_000)),
        *({"beta_start": start, "beta_end": 0.9} for start in (1e-14, 0.5)),
        {"beta_start": 1e-15, "beta_end": 1e-15},
    ],
)
def test_every_step_of_a_schedule_that_is_accepted_is_finite(name, prediction_type, changes):
    try:
        schedule = make_schedule(name, prediction_type, **changes)
    except ScheduleError:
        return
    for spacing in TIMESTEP_SPACINGS:
        for steps in {1, 2, min(50, schedule.num_train_timesteps)}:
            for pair in schedule.timesteps(steps, spacing=spacing):
                for eta in (0.0, 1.0):
                    assert np.isfinite(affine_step(schedule, *pair, eta)).all(), pair


@pytest.mark.parametrize("name", BETA_SCHEDULES)
def test_plain_values_survive_json(name):
    schedule = make_schedule(name, num_train_timesteps=77, timestep_spacing="trailing")
    assert NoiseSchedule.from_dict(json.loads(json.dumps(schedule.to_dict()))) == schedule


def test_from_dict_names_missing_and_unknown_fields():
    values = make_schedule().to_dict()
    del values["beta_end"]
    with pytest.raises(ScheduleError, match="beta_end"):
        NoiseSchedule.from_dict(values)
    with pytest.raises(ScheduleError, match="steps_offset"):
        NoiseSchedule.from_dict({**make_schedule().to_dict(), "steps_offset": 1})


def test_the_defaults_are_the_recommended_ones_and_the_originals_have_a_name():
    assert NoiseSchedule() == NoiseSchedule("cosine", "v_prediction", timestep_spacing="trailing")
    original = NoiseSchedule("linear", "epsilon", 1000, 1e-4, 2e-2, "linspace", 1.0)
    assert original == ORIGINAL_SCHEDULE


@pytest.mark.parametrize("make", [np.asarray, torch.as_tensor])
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_the_algebra_of_prediction_types_is_one_for_numbers_arrays_and_tensors(
    prediction_type, make
):
    rng = np.random.default_rng(0)
    x0, noise = make(rng.standard_normal((5, 3, 1))), make(rng.standard_normal((5, 3, 1)))
    alphas = make_schedule().alphas_cumprod[[0, 10, 300, 900, 999]]
    rows = make(alphas)[:, None, None]
    signal, rest = signal_and_noise(rows)
    output = target_of(prediction_type, x0, noise, rows)
    of_x0, of_noise = conversion(prediction_type, rows)
    sample = signal * x0 + rest * noise
    np.testing.assert_allclose(of_x0[0] * sample + of_x0[1] * output, x0, atol=1e-9)
    np.testing.assert_allclose(of_noise[0] * sample + of_noise[1] * output, noise, atol=1e-9)
    for row, alpha in enumerate(alphas.tolist()):
        alone = target_of(prediction_type, x0[row], noise[row], alpha)
        np.testing.assert_allclose(np.asarray(alone), np.asarray(output[row]), rtol=1e-14)
        for found, number in zip(conversion(prediction_type, alpha)[0], of_x0, strict=True):
            each = np.asarray(number).reshape(-1)[row if np.size(np.asarray(number)) > 1 else 0]
            assert found == pytest.approx(float(each), rel=1e-14)
