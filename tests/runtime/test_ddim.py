"""DDIM against diffusers, against its paper, and against data whose denoiser is known exactly."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from builders.runtime import FREE as SPEC
from diffusers import DDIMScheduler

from vj2_ddim_plugin.ddim import (
    add_noise,
    classifier_free_guidance,
    clip_to,
    ddim_invert,
    ddim_sample,
    ddim_step,
    ddim_steps,
    to_x0_and_epsilon,
)
from vj2_ddim_plugin.errors import ScheduleError
from vj2_ddim_plugin.schedule import BETA_SCHEDULES, PREDICTION_TYPES, NoiseSchedule
from vj2_ddim_plugin.testing import GaussianModel

SHAPE = (4, 6, 2)
BOUNDS = (np.array([-1.0, -1.0]), np.array([1.0, 1.0]))


def make_schedule(prediction_type="epsilon", beta_schedule="linear", **changes):
    return NoiseSchedule(beta_schedule, prediction_type, **changes)


def normal(seed=0, shape=SHAPE, dtype=np.float64):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def make_denoiser(schedule, mean=0.4, std=0.3, conditional=False):
    model = GaussianModel(SPEC, schedule, mean, std, conditional)
    return lambda sample, timestep: model.denoise(sample, timestep, None)


def known_map(noise, schedule, mean, std, start=None):
    """The probability-flow map of Gaussian data, from timestep `start` to clean data."""
    alpha = schedule.alpha_cumprod(schedule.num_train_timesteps - 1 if start is None else start)
    spread = math.sqrt(alpha * std**2 + 1 - alpha)
    return mean + std * (noise - math.sqrt(alpha) * mean) / spread


def diffusers_like(schedule, num_inference_steps, clip):
    reference = DDIMScheduler(
        prediction_type=schedule.prediction_type,
        timestep_spacing=schedule.timestep_spacing,
        clip_sample=clip,
    )
    reference.alphas_cumprod = torch.tensor(schedule.alphas_cumprod, dtype=torch.float64)
    reference.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    reference.set_timesteps(num_inference_steps)
    return reference


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("beta_schedule", ["linear", "cosine"])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_every_step_equals_that_of_diffusers(spacing, beta_schedule, prediction_type, eta, clip):
    schedule = make_schedule(prediction_type, beta_schedule, timestep_spacing=spacing)
    reference = diffusers_like(schedule, 20, clip)
    sample = normal()
    for index, (timestep, prev_timestep) in enumerate(schedule.timesteps(20)):
        output, noise = normal(100 + index), normal(200 + index)
        wanted = reference.step(
            torch.from_numpy(output),
            timestep,
            torch.from_numpy(sample),
            eta=eta,
            use_clipped_model_output=clip,
            variance_noise=torch.from_numpy(noise) if eta else None,
        )
        step = ddim_step(
            output,
            sample,
            timestep,
            prev_timestep,
            schedule,
            eta=eta,
            correct=clip_to(BOUNDS) if clip else None,
            noise=noise if eta else None,
        )
        np.testing.assert_allclose(step.prev_sample, wanted.prev_sample, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(
            step.pred_original_sample, wanted.pred_original_sample, rtol=1e-9, atol=1e-9
        )
        sample = step.prev_sample


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_a_whole_run_equals_that_of_diffusers(prediction_type, eta):
    schedule = make_schedule(prediction_type, timestep_spacing="trailing")
    reference, denoiser = diffusers_like(schedule, 25, clip=False), make_denoiser(schedule)
    rng = np.random.default_rng(5)
    noises = [rng.standard_normal(SHAPE) for _ in range(25)]
    wanted = torch.from_numpy(normal())
    for timestep, noise in zip(reference.timesteps.tolist(), noises, strict=True):
        output = torch.from_numpy(denoiser(wanted.numpy(), timestep))
        variance_noise = torch.from_numpy(noise) if eta else None
        wanted = reference.step(
            output, timestep, wanted, eta=eta, variance_noise=variance_noise
        ).prev_sample
    queue = iter(noises)
    ours = ddim_sample(denoiser, normal(), schedule, 25, eta=eta, draw_noise=lambda: next(queue))
    np.testing.assert_allclose(ours, wanted.numpy(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("eta", [0.3, 1.0])
@pytest.mark.parametrize(("timestep", "prev_timestep"), [(999, 990), (500, 3), (7, 0)])
def test_the_added_noise_has_the_sigma_of_the_papers_equation_16(timestep, prev_timestep, eta):
    schedule = make_schedule()
    a, b = schedule.alphas_cumprod[[timestep, prev_timestep]]
    sigma = eta * math.sqrt((1 - b) / (1 - a)) * math.sqrt(1 - a / b)
    output, sample = normal(1), normal(2)
    with_noise, without = (
        ddim_step(output, sample, timestep, prev_timestep, schedule, eta=eta, noise=noise)
        for noise in (np.ones(SHAPE), np.zeros(SHAPE))
    )
    np.testing.assert_allclose(with_noise.prev_sample - without.prev_sample, sigma, rtol=1e-9)
    x0 = (sample - math.sqrt(1 - a) * output) / math.sqrt(a)  # eq. 12
    wanted = math.sqrt(b) * x0 + math.sqrt(1 - b - sigma**2) * output
    np.testing.assert_allclose(without.prev_sample, wanted, rtol=1e-9)


def test_eta_one_in_unit_strides_is_the_posterior_of_ddpm():
    schedule = make_schedule("sample")
    a, b = schedule.alphas_cumprod[[500, 499]]
    beta, x0, sample = 1 - a / b, normal(1), normal(2)
    step = ddim_step(x0, sample, 500, 499, schedule, eta=1.0, noise=np.zeros(SHAPE))
    # Ho et al. 2020, eq. 7
    mean = math.sqrt(b) * beta / (1 - a) * x0 + math.sqrt(1 - beta) * (1 - b) / (1 - a) * sample
    np.testing.assert_allclose(step.prev_sample, mean, rtol=1e-9)


@pytest.mark.parametrize("beta_schedule", BETA_SCHEDULES)
@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_nothing_is_nan_at_the_last_step(eta, spacing, beta_schedule):
    schedule = make_schedule("v_prediction", beta_schedule, timestep_spacing=spacing)
    rng = np.random.default_rng(0)
    for steps in (1, 2, 7, 1000):
        final = ddim_sample(
            make_denoiser(schedule),
            normal(shape=(1, 6, 2)),
            schedule,
            steps,
            eta=eta,
            draw_noise=lambda: rng.standard_normal((1, 6, 2)),
        )
        assert np.isfinite(final).all()


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_the_last_step_arrives_at_the_predicted_x0_and_adds_no_noise(prediction_type):
    schedule = make_schedule(prediction_type)
    step = ddim_step(normal(1), normal(2), 40, -1, schedule, eta=1.0, noise=1e6 * normal(3))
    np.testing.assert_allclose(step.prev_sample, step.pred_original_sample, rtol=1e-9)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_after_clipping_the_step_stays_on_the_line_through_x0_and_the_sample(prediction_type):
    schedule = make_schedule(prediction_type)
    bounds = (np.array([-0.2, -0.1]), np.array([0.3, 0.4]))
    sample = normal(2)
    step = ddim_step(normal(1), sample, 300, 200, schedule, correct=clip_to(bounds))
    free = ddim_step(normal(1), sample, 300, 200, schedule)
    assert (step.pred_original_sample >= bounds[0]).all()
    assert (step.pred_original_sample <= bounds[1]).all()
    assert not np.allclose(step.pred_original_sample, free.pred_original_sample)
    a, b = schedule.alphas_cumprod[[300, 200]]
    epsilon = (sample - math.sqrt(a) * step.pred_original_sample) / math.sqrt(1 - a)
    wanted = math.sqrt(b) * step.pred_original_sample + math.sqrt(1 - b) * epsilon
    np.testing.assert_allclose(step.prev_sample, wanted, rtol=1e-9)


def test_clipping_that_does_not_bite_changes_nothing():
    schedule, wide = make_schedule("v_prediction"), (np.full(2, -1e9), np.full(2, 1e9))
    clipped, free = (
        ddim_step(normal(1), normal(2), 300, 200, schedule, correct=correct)
        for correct in (clip_to(wide), None)
    )
    np.testing.assert_allclose(clipped.prev_sample, free.prev_sample, rtol=1e-9)


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
def test_eta_out_of_range_is_refused(eta):
    with pytest.raises(ScheduleError, match="eta must be in"):
        ddim_step(normal(), normal(), 5, 4, make_schedule(), eta=eta, noise=normal())


def test_eta_without_noise_is_refused():
    with pytest.raises(ScheduleError, match="noise"):
        ddim_step(normal(), normal(), 5, 4, make_schedule(), eta=0.5)
    with pytest.raises(ScheduleError, match="noise"):
        ddim_sample(make_denoiser(make_schedule()), normal(), make_schedule(), 5, eta=0.5)


@pytest.mark.parametrize("timestep", [0, 17, 500, 999])
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_every_prediction_type_gives_back_what_was_mixed(prediction_type, timestep):
    schedule = make_schedule(prediction_type)
    x0, epsilon = normal(1), normal(2)
    alpha = schedule.alphas_cumprod[timestep]
    output = {
        "epsilon": epsilon,
        "sample": x0,
        "v_prediction": math.sqrt(alpha) * epsilon - math.sqrt(1 - alpha) * x0,
    }[prediction_type]
    sample = add_noise(x0, epsilon, timestep, schedule)
    np.testing.assert_allclose(
        sample, math.sqrt(alpha) * x0 + math.sqrt(1 - alpha) * epsilon, rtol=1e-12
    )
    found = to_x0_and_epsilon(output, sample, timestep, schedule)
    np.testing.assert_allclose(found[0], x0, atol=1e-9)
    np.testing.assert_allclose(found[1], epsilon, atol=1e-9)


@pytest.mark.parametrize("beta_schedule", ["linear", "cosine"])
def test_sampling_converges_to_the_known_map_with_first_order(beta_schedule):
    schedule = make_schedule("v_prediction", beta_schedule)
    denoiser, noise = make_denoiser(schedule, 0.4, 0.3), normal()
    wanted = known_map(noise, schedule, 0.4, 0.3)
    steps = np.array([25, 50, 100, 200])
    errors = [np.abs(ddim_sample(denoiser, noise, schedule, int(n)) - wanted).max() for n in steps]
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert 0.8 < slope < 1.3
    assert errors[-1] < 0.02


@pytest.mark.parametrize(
    ("mean", "std", "rows", "steps", "eta", "tolerance"),
    [(0.4, 0.3, 4000, 200, 0.0, 0.01), (-0.2, 0.5, 1000, 400, 1.0, 0.02)],
)
def test_the_samples_have_the_mean_and_std_of_the_data(mean, std, rows, steps, eta, tolerance):
    schedule, rng, shape = make_schedule(), np.random.default_rng(1), (rows, 6, 2)
    denoiser, noise = make_denoiser(schedule, mean, std), normal(shape=shape)
    final = ddim_sample(
        denoiser, noise, schedule, steps, eta=eta, draw_noise=lambda: rng.standard_normal(shape)
    )
    assert final.mean() == pytest.approx(mean, abs=tolerance)
    assert final.std() == pytest.approx(std, abs=tolerance)


def test_the_prediction_types_agree_to_rounding():
    runs = [
        ddim_sample(
            make_denoiser(schedule), normal(), schedule, 30, eta=0.0, correct=clip_to(BOUNDS)
        )
        for schedule in map(make_schedule, PREDICTION_TYPES)
    ]
    for other in runs[1:]:
        np.testing.assert_allclose(runs[0], other, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("steps", [1, 3, 50])
def test_a_single_point_is_sampled_exactly(steps, prediction_type):
    schedule = make_schedule(prediction_type)
    point = normal(9, (6, 2))
    final = ddim_sample(make_denoiser(schedule, point, 0.0), normal(), schedule, steps)
    np.testing.assert_allclose(final, np.broadcast_to(point, SHAPE), atol=1e-9)


def test_guidance_is_linear_in_its_scale():
    def conditional(sample, timestep):
        return sample + timestep

    def unconditional(sample, timestep):
        return 3 * sample

    sample = normal()
    for scale in (0.0, 0.5, 1.0, 2.0, 7.5):
        guided = classifier_free_guidance(conditional, unconditional, scale)
        wanted = 3 * sample + scale * (sample + 4 - 3 * sample)
        np.testing.assert_allclose(guided(sample, 4), wanted, atol=1e-12)


def test_guidance_of_one_never_asks_the_unconditional_denoiser():
    def refuse(sample, timestep):
        raise AssertionError("the unconditional denoiser was asked")

    guided = classifier_free_guidance(lambda sample, timestep: sample, refuse, 1.0)
    assert guided(1.5, 3) == 1.5


@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize(("start", "steps"), [(100, 50), (400, 100), (800, 200)])
def test_sampling_from_a_given_timestep_follows_the_known_map(start, steps, spacing):
    schedule = make_schedule("v_prediction")
    noisy = add_noise(0.4 + 0.3 * normal(3), normal(4), start, schedule)
    wanted = known_map(noisy, schedule, 0.4, 0.3, start)
    final = ddim_sample(
        make_denoiser(schedule), noisy, schedule, steps, spacing=spacing, start_timestep=start
    )
    np.testing.assert_allclose(final, wanted, atol=0.02)


def test_the_steps_one_at_a_time_are_the_whole_run():
    schedule = make_schedule()
    steps = list(ddim_steps(make_denoiser(schedule), normal(), schedule.timesteps(9), schedule))
    assert len(steps) == 9
    final = ddim_sample(make_denoiser(schedule), normal(), schedule, 9)
    np.testing.assert_array_equal(steps[-1].prev_sample, final)


def test_the_noise_is_drawn_once_a_step_and_only_if_it_is_needed():
    schedule, drawn = make_schedule(), []

    def draw():
        drawn.append(1)
        return np.zeros(SHAPE)

    ddim_sample(make_denoiser(schedule), normal(), schedule, 9, eta=0.0, draw_noise=draw)
    assert not drawn
    ddim_sample(make_denoiser(schedule), normal(), schedule, 9, eta=0.1, draw_noise=draw)
    assert len(drawn) == 9


def round_trip_error(schedule, steps, iterations=0, spacing=None):
    denoiser, original = make_denoiser(schedule), 0.4 + 0.3 * normal(6)
    noise = ddim_invert(
        denoiser, original, schedule, steps, spacing=spacing, num_fixed_point_iterations=iterations
    )
    return np.abs(ddim_sample(denoiser, noise, schedule, steps, spacing=spacing) - original).max()


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_the_inversion_round_trip_improves_with_steps_and_with_iterations(prediction_type):
    schedule = make_schedule(prediction_type)
    by_steps = [round_trip_error(schedule, steps) for steps in (10, 40, 160)]
    assert by_steps[0] > 2 * by_steps[1] > 4 * by_steps[2]


def test_fixed_point_iterations_make_the_round_trip_exact():
    schedule = make_schedule("epsilon")
    errors = [round_trip_error(schedule, 50, iterations) for iterations in (0, 1, 3, 12)]
    assert errors[0] > errors[1] > errors[2] > errors[3]
    assert errors[3] < 1e-3 * errors[0]


def test_inversion_converges_to_the_inverse_of_the_known_map():
    schedule, original = make_schedule("v_prediction"), 0.4 + 0.3 * normal(6)
    noise = ddim_invert(make_denoiser(schedule), original, schedule, 400)
    np.testing.assert_allclose(known_map(noise, schedule, 0.4, 0.3), original, atol=0.02)


def test_zero_terminal_snr_cannot_be_inverted():
    schedule = make_schedule("v_prediction", "zero_terminal_snr")
    with pytest.raises(ScheduleError, match="'linear' or 'cosine'"):
        ddim_invert(make_denoiser(schedule), normal(), schedule, 10)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_float32_stays_float32(eta, prediction_type):
    schedule = make_schedule(prediction_type)
    seen = set()

    def denoiser(sample, timestep):
        seen.add(sample.dtype)
        return make_denoiser(schedule)(sample, timestep)

    final = ddim_sample(
        denoiser,
        normal(dtype=np.float32),
        schedule,
        5,
        eta=eta,
        correct=clip_to(BOUNDS),
        draw_noise=lambda: normal(1, dtype=np.float32),
    )
    inverted = ddim_invert(denoiser, normal(dtype=np.float32), schedule, 5)
    assert final.dtype == inverted.dtype == np.float32
    assert seen == {np.dtype(np.float32)}


def test_the_samplers_leave_their_input_alone():
    schedule, noise = make_schedule(), normal()
    ddim_sample(make_denoiser(schedule), noise, schedule, 5, correct=clip_to(BOUNDS))
    ddim_invert(make_denoiser(schedule), noise, schedule, 5)
    np.testing.assert_array_equal(noise, normal())


@pytest.fixture(scope="module")
def golden():
    folder = os.environ.get("VJ2_DDIM_GOLDEN")
    if folder is None:
        pytest.skip("VJ2_DDIM_GOLDEN does not name the folder of the original script's outputs")
    from vj2_ddim_training.checkpoint import load_checkpoint
    from vj2_ddim_training.diffusion_model import TorchSampler

    path = Path(folder) / "diffusion_checkpoint_epoch_2.pth"
    sampler = TorchSampler(load_checkpoint(path, nhead=2).model)
    with np.load(Path(folder) / "ddim_reference.npz") as file:
        return sampler, dict(file)


def relative_error(found, wanted):
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


def test_the_original_scripts_noise_predictions(golden):
    sampler, reference = golden
    rows = zip(reference["eps_t"].tolist(), reference["x_T"], reference["eps"], strict=True)
    for timestep, sample, wanted in rows:
        found = sampler.denoise(sample[None], timestep, None)[0]
        assert relative_error(found, wanted) < 1e-4


@pytest.mark.parametrize("steps", [10, 20, 50])
def test_the_original_scripts_samples(golden, steps):
    sampler, reference = golden
    final = ddim_sample(
        lambda sample, timestep: sampler.denoise(sample, timestep, None),
        reference["x_T"],
        sampler.schedule,
        steps,
    )
    assert relative_error(final, reference[f"x0_{steps}"]) < 1e-4
