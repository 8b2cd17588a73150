"""The diffusion loss against its definition and its closed form on Gaussian data."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from builders.training import make_model, make_spec
from hypothesis import given, settings
from hypothesis import strategies as st

from vj2_ddim_plugin.ddim import to_x0_and_epsilon
from vj2_ddim_plugin.schedule import NoiseSchedule, target_of
from vj2_ddim_plugin.spec import ConditionSpec
from vj2_ddim_training.config import ModelConfig
from vj2_ddim_training.diffusion_model import PLAIN, diffusion_loss

PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")


class Recorder(torch.nn.Module):
    """Stands in for a model: keeps what it was asked, and answers with `answer`."""

    def __init__(self, schedule, answer=None, tokens=None):
        super().__init__()
        self.schedule, self.action_spec = schedule, make_spec()
        self.condition, self.config = ConditionSpec(), ModelConfig(condition="latents")
        self.answer = answer or (lambda sample, timesteps, condition: torch.zeros_like(sample))
        self.tokens = tokens
        self.num_encoded = 0

    def encode(self, inputs):
        self.num_encoded += 1
        return None if self.tokens is None else self.tokens

    def hide(self, condition, hidden):
        self.hidden = hidden
        if condition is None:
            return None
        return torch.where(hidden[:, None, None], torch.full_like(condition, -1.0), condition)

    def guess(self, condition):
        return condition[:, :1].expand(-1, *self.action_spec.diffused_shape)

    def forward(self, sample, timesteps, condition):
        self.sample, self.timesteps, self.tokens_seen = sample, timesteps, condition
        return self.answer(sample, timesteps, condition)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def schedule_of(prediction_type, beta_schedule="linear"):
    return NoiseSchedule(beta_schedule, prediction_type)


@given(
    prediction_type=st.sampled_from(PREDICTION_TYPES),
    beta_schedule=st.sampled_from(["linear", "cosine"]),
    timestep=st.integers(0, 998),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=25, deadline=None)
def test_target_holds_the_x0_and_epsilon_that_the_sampler_recovers(
    prediction_type, beta_schedule, timestep, seed
):
    schedule = schedule_of(prediction_type, beta_schedule)
    x0, epsilon = torch.randn(2, 2, 3, 1, generator=generator(seed), dtype=torch.float64)
    alpha = torch.full((2, 1, 1), schedule.alpha_cumprod(timestep), dtype=torch.float64)
    noisy = alpha.sqrt() * x0 + (1 - alpha).sqrt() * epsilon
    target = target_of(schedule.prediction_type, x0, epsilon, alpha)
    found = to_x0_and_epsilon(target.numpy(), noisy.numpy(), timestep, schedule)
    np.testing.assert_allclose(found[0], x0, atol=1e-7)
    np.testing.assert_allclose(found[1], epsilon, atol=1e-7)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_exact_denoiser_of_gaussian_data_has_the_closed_form_loss(prediction_type):
    std, schedule = 0.7, schedule_of(prediction_type, "cosine")
    alphas = torch.as_tensor(schedule.alphas_cumprod, dtype=torch.float32)

    def posterior_mean(sample, timesteps, condition):
        alpha = alphas[timesteps][:, None, None]
        x0 = alpha.sqrt() * std**2 / (alpha * std**2 + 1 - alpha) * sample
        epsilon = (sample - alpha.sqrt() * x0) / (1 - alpha).sqrt()
        return target_of(schedule.prediction_type, x0, epsilon, alpha)

    original = std * torch.randn(40_000, 2, 1, generator=generator(1))
    loss = diffusion_loss(Recorder(schedule, posterior_mean), original, {}, generator(2))
    # The posterior of x0 has variance std^2 (1 - a) / (a std^2 + 1 - a); that of epsilon is
    # a / (1 - a) times it; v = (sqrt(a) x_t - x0) / sqrt(1 - a), so 1 / (1 - a) times it.
    a = schedule.alphas_cumprod
    variance = std**2 * (1 - a) / (a * std**2 + 1 - a)
    weight = {"epsilon": a / (1 - a), "sample": 1.0, "v_prediction": 1 / (1 - a)}[prediction_type]
    assert float(loss) == pytest.approx(float(np.mean(weight * variance)), rel=0.02)


def test_zero_output_loses_the_mean_square_of_the_target():
    original = torch.full((5000, 1, 1), 3.0)
    zero = Recorder(schedule_of("sample"))
    assert float(diffusion_loss(zero, original, {}, generator())) == pytest.approx(9.0)
    zero = Recorder(schedule_of("epsilon"))
    assert float(diffusion_loss(zero, original, {}, generator())) == pytest.approx(1.0, rel=0.06)


def test_timesteps_are_uniform_over_all_of_the_schedule():
    model = Recorder(NoiseSchedule(num_train_timesteps=10))
    diffusion_loss(model, torch.zeros(20_000, 1, 1), {}, generator())
    counts = torch.bincount(model.timesteps, minlength=10)
    assert counts.shape == (10,)
    assert (counts - 2000).abs().max() < 5 * np.sqrt(2000 * 0.9)


def test_each_row_is_noised_to_its_own_timestep():
    schedule = NoiseSchedule()
    model = Recorder(schedule)
    diffusion_loss(model, torch.full((2000, 50, 1), 2.0), {}, generator())
    signal = np.sqrt(schedule.alphas_cumprod[model.timesteps.numpy()])
    means = model.sample.mean(dim=(1, 2)).numpy()
    std = np.sqrt(1 - signal**2) / np.sqrt(50)
    assert np.abs((means - 2.0 * signal) / std).max() < 5


def test_several_noises_for_an_example_encode_its_condition_once():
    tokens = torch.arange(3.0)[:, None, None].expand(3, 2, 4)
    model = Recorder(NoiseSchedule(), tokens=tokens)
    original = torch.arange(3.0)[:, None, None].expand(3, 4, 2) * 100
    diffusion_loss(model, original, {}, generator(), replace(PLAIN, noises_per_example=4))
    assert model.num_encoded == 1
    assert model.sample.shape == (12, 4, 2)
    rows = model.tokens_seen[:, 0, 0].tolist()
    assert rows == [0.0] * 4 + [1.0] * 4 + [2.0] * 4
    # the noise and the timestep of every repetition are its own
    assert len(set(model.timesteps.tolist())) > 8
    assert len({row[0, 0].item() for row in model.sample}) == 12


@pytest.mark.parametrize("share", [0.0, 0.2, 0.95])
def test_condition_dropout_hides_that_share(share):
    model = Recorder(NoiseSchedule(), tokens=torch.ones(5000, 1, 1))
    diffusion_loss(
        model, torch.zeros(5000, 1, 1), {}, generator(), replace(PLAIN, condition_dropout=share)
    )
    hidden = float((model.tokens_seen == -1.0).float().mean())
    assert abs(hidden - share) <= 5 * np.sqrt(share * (1 - share) / 5000)


def test_all_randomness_is_the_generators():
    model = make_model("sketch")
    inputs = {"sketch": torch.rand(4, 6, generator=generator(5))}
    original = torch.randn(4, *model.action_spec.diffused_shape, generator=generator(6))

    config = replace(PLAIN, condition_dropout=0.5, noises_per_example=2)

    def loss(seed):
        state = torch.get_rng_state()
        value = float(diffusion_loss(model, original, inputs, generator(seed), config).detach())
        assert torch.equal(torch.get_rng_state(), state)  # the global one is not touched
        torch.manual_seed(int(torch.randint(1000, ())))
        return value

    assert loss(1) == loss(1)
    assert loss(1) != loss(2)


@pytest.mark.parametrize("noises", [1, 3])
def test_auxiliary_loss_is_the_weighted_error_of_the_guess(noises):
    """x_0 guessed from each example's own tokens, once, however many noises it gets."""
    tokens = torch.arange(4.0)[:, None, None].expand(4, 2, 1)
    original = torch.arange(4.0)[:, None, None].expand(4, 6, 1) + 0.5  # each guess misses by 0.5

    def loss(weight):
        model = Recorder(NoiseSchedule(), tokens=tokens)
        settings = {"noises_per_example": noises, "auxiliary_weight": weight}
        return float(diffusion_loss(model, original, {}, generator(), replace(PLAIN, **settings)))

    assert loss(2.0) - loss(0.0) == pytest.approx(2.0 * 0.5**2, rel=1e-4)


def test_auxiliary_loss_reaches_a_real_latent_model_and_no_other():
    added = {}
    for condition in ("latents", "sketch"):
        model = make_model(condition)
        inputs = {name: torch.rand(3, *shape) for name, shape in model.condition.inputs.items()}
        original = torch.zeros(3, *model.action_spec.diffused_shape)
        without, with_it = (
            diffusion_loss(model, original, inputs, generator(), replace(PLAIN, auxiliary_weight=w))
            for w in (0.0, 1.0)
        )
        added[condition] = float((with_it - without).detach())
    assert added["latents"] > 1e-4
    assert added["sketch"] == 0.0
