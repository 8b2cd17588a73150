"""The networks and the condition encoders."""

import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from builders.training import LATENTS, make_model

from vj2_ddim_plugin.ddim import ddim_sample
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_training.checkpoint import load_checkpoint
from vj2_ddim_training.condition_encoders import (
    FoldedLatentEncoder,
    LatentEncoder,
    SketchEncoder,
)
from vj2_ddim_training.denoisers.dit import Attention, DiTDenoiser
from vj2_ddim_training.denoisers.minimal import MinimalDenoiser, sinusoidal_embedding
from vj2_ddim_training.diffusion_model import TorchSampler

GOLDEN = os.environ.get("VJ2_DDIM_GOLDEN")
needs_golden = pytest.mark.skipif(not GOLDEN, reason="VJ2_DDIM_GOLDEN names no folder")


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@needs_golden
class TestAgainstTheOriginalScript:
    @pytest.fixture
    def loaded(self):
        return load_checkpoint(Path(GOLDEN) / "diffusion_checkpoint_epoch_2.pth", nhead=2)

    @pytest.fixture
    def reference(self):
        return np.load(Path(GOLDEN) / "ddim_reference.npz")

    def test_epsilon_of_each_row_at_its_timestep(self, loaded, reference):
        sample = torch.from_numpy(reference["x_T"])
        with torch.no_grad():
            found = loaded.model(sample, torch.from_numpy(reference["eps_t"]), None)
        np.testing.assert_allclose(found, reference["eps"], atol=1e-4)

    @pytest.mark.parametrize("steps", [10, 20, 50])
    def test_whole_sampling_loop(self, loaded, reference, steps):
        denoise = partial(TorchSampler(loaded.model).denoise, condition=None)
        found = ddim_sample(denoise, reference["x_T"], loaded.model.schedule, steps)
        expected = reference[f"x0_{steps}"]
        assert np.abs(found - expected).max() / np.abs(expected).max() < 1e-4

    def test_sizes_read_off_the_weights(self, loaded):
        config = loaded.model.config
        assert (config.d_model, config.num_layers, config.nhead) == (32, 2, 2)
        assert (config.architecture, config.condition) == ("minimal", "none")
        spec = loaded.model.action_spec
        assert (spec.length, spec.num_channels, spec.representation) == (250, 3, "raw")
        assert not spec.normalized


def test_minimal_has_the_names_and_shapes_of_the_original_weights():
    layer = {"self_attn.out_proj": (8, 8), "linear1": (256, 8), "linear2": (8, 256)}
    layer |= {"norm1": (8,), "norm2": (8,)}
    modules = {"action_embedding": (8, 3), "layer_norm": (8,), "output_projection": (3, 8)}
    expected = {"pos_encoder.pe": (1, 20, 8)}
    for i in (0, 1):
        modules |= {f"transformer.layers.{i}.{name}": shape for name, shape in layer.items()}
        expected[f"transformer.layers.{i}.self_attn.in_proj_weight"] = (24, 8)
        expected[f"transformer.layers.{i}.self_attn.in_proj_bias"] = (24,)
    for name, shape in modules.items():
        expected |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    weights = MinimalDenoiser(20, 3, 8, 2, 2).state_dict()
    assert {name: tuple(weight.shape) for name, weight in weights.items()} == expected


def test_minimal_drops_out_only_while_training():
    denoiser = MinimalDenoiser(20, 3, 8, 1, 2)
    sample, timesteps = noise(2, 20, 3), torch.tensor([3, 700])
    assert not torch.equal(denoiser(sample, timesteps), denoiser(sample, timesteps))
    denoiser.eval()
    assert torch.equal(denoiser(sample, timesteps), denoiser(sample, timesteps))


def test_sinusoidal_embedding_by_hand():
    # width 4: frequencies 1 and 1/10000
    found = sinusoidal_embedding(torch.tensor([0, 2]), 4)
    expected = [[0, 0, 1, 1], [np.sin(2), np.sin(2e-4), np.cos(2), np.cos(2e-4)]]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("make", [MinimalDenoiser, DiTDenoiser])
@pytest.mark.parametrize(
    ("d_model", "nhead", "named"),
    [(10, 4, "nhead 4 and d_model 10"), (10, 0, "nhead 0"), (9, 3, "even"), (2, 1, "at least 4")],
)
def test_sizes_that_cannot_work_are_refused(make, d_model, nhead, named):
    with pytest.raises(ConfigError, match=named):
        make(20, 3, d_model, 1, nhead)


@pytest.mark.parametrize("size", [-1, 0, 3, 40])
def test_patch_size_must_divide_the_rows(size):
    with pytest.raises(ConfigError, match=f"patch_size must divide the 20 rows.*found {size}"):
        DiTDenoiser(20, 3, 8, 1, 2, patch_size=size)


def test_attention_in_half_precision_is_that_of_float32():
    attention, queries, context = Attention(16, 2), noise(3, 5, 16), noise(3, 7, 16, seed=1)
    expected = attention(queries, context)
    with torch.autocast("cpu", torch.bfloat16):
        found = attention(queries, context)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, atol=0.02, rtol=0.02)


class TestDiT:
    @pytest.mark.parametrize("rows", [1, 7, 20])
    @pytest.mark.parametrize("conditional", [False, True])
    def test_shape_and_zero_at_the_start(self, rows, conditional):
        denoiser = DiTDenoiser(rows, 3, 8, 2, 2, conditional=conditional)
        condition = noise(2, 5, 8) if conditional else None
        output = denoiser(noise(2, rows, 3), torch.tensor([0, 999]), condition)
        assert torch.equal(output, torch.zeros(2, rows, 3))

    @pytest.mark.parametrize("patch_size", [1, 2, 5, 20])
    def test_a_token_for_each_patch(self, patch_size):
        denoiser = DiTDenoiser(20, 3, 8, 1, 2, patch_size)
        assert denoiser.position.shape == (1, 20 // patch_size, 8)
        assert denoiser(noise(2, 20, 3), torch.tensor([1, 2])).shape == (2, 20, 3)

    def test_a_patch_is_consecutive_rows(self):
        # Only the embedding and the output are left: row i can depend on its own patch alone.
        denoiser = DiTDenoiser(6, 1, 8, 0, 2, patch_size=3)
        torch.nn.init.normal_(denoiser.output.weight)
        sample = noise(1, 6, 1)
        other = sample.clone()
        other[0, 2] += 1.0
        changed = denoiser(sample, torch.tensor([5])) != denoiser(other, torch.tensor([5]))
        assert changed[0, :, 0].tolist() == [True] * 3 + [False] * 3

    @pytest.mark.parametrize("condition", ["none", "sketch", "latents"])
    def test_rows_of_a_batch_do_not_see_each_other(self, condition):
        model = make_model(condition)
        inputs = {name: noise(4, *shape) for name, shape in model.condition.inputs.items()}
        sample, timesteps = noise(4, *model.action_spec.diffused_shape), torch.arange(4) * 300
        with torch.no_grad():
            together = model(sample, timesteps, model.encode(inputs))
            for row in range(4):
                one = slice(row, row + 1)
                told = model.encode({name: array[one] for name, array in inputs.items()})
                alone = model(sample[one], timesteps[one], told)
                torch.testing.assert_close(alone[0], together[row])

    def test_output_depends_on_sample_timestep_and_condition(self):
        model = make_model("sketch")
        sample, sketch = noise(1, *model.action_spec.diffused_shape), torch.full((1, 6), 0.3)
        with torch.no_grad():
            one = model(sample, torch.tensor([100]), model.encode({"sketch": sketch}))
            later = model(sample, torch.tensor([101]), model.encode({"sketch": sketch}))
            told = model(sample, torch.tensor([100]), model.encode({"sketch": sketch + 0.1}))
        assert not torch.allclose(one, later, atol=1e-6)
        assert not torch.allclose(one, told, atol=1e-6)

    def test_a_few_steps_of_training_make_it_use_the_condition(self):
        torch.manual_seed(0)
        denoiser = DiTDenoiser(2, 1, 8, 1, 2, conditional=True)
        tokens = noise(2, 3, 8)
        target = torch.tensor([[[1.0], [0.0]], [[0.0], [1.0]]])  # told apart by the tokens alone
        sample, timesteps = noise(1, 2, 1).expand(2, -1, -1), torch.tensor([7, 7])
        optimizer = torch.optim.Adam(denoiser.parameters(), lr=1e-2)
        for _ in range(60):
            loss = torch.nn.functional.mse_loss(denoiser(sample, timesteps, tokens), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert float(loss.detach()) < 0.02  # without the condition 0.25 is the best there is


class TestLatentEncoder:
    @pytest.fixture
    def encoder(self):
        torch.manual_seed(0)
        return LatentEncoder(LATENTS, width=8, num_layers=1, nhead=2, num_tokens=3).eval()

    def test_tells_start_from_goal_and_where(self, encoder):
        assert encoder(noise(2, 4, 5), noise(2, 4, 5)).shape == (2, 3, 8)
        state, goal = noise(1, 4, 5, seed=1), noise(1, 4, 5, seed=2)
        tokens = encoder(state, goal)
        assert not torch.allclose(tokens, encoder(goal, state), atol=1e-4)
        assert not torch.allclose(tokens[0, 0], tokens[0, 1], atol=1e-4)
        order = [2, 0, 3, 1]
        moved = encoder(state[:, order], goal[:, order])
        assert not torch.allclose(encoder(state, goal), moved, atol=1e-5)
        # the embedding and the places alone tell where: without them, patches are a set
        torch.nn.init.zeros_(encoder.position)
        encoder.grid.zero_()
        encoder.reader.centres.zero_()
        moved = encoder(state[:, order], goal[:, order])
        torch.testing.assert_close(encoder(state, goal), moved, atol=1e-5, rtol=1e-5)

    def test_patches_that_are_no_square_grid(self):
        encoder = LatentEncoder({"state": (6, 5), "goal": (6, 5)}, 8, 1, 2, 3)
        assert encoder(noise(2, 6, 5), noise(2, 6, 5)).shape == (2, 3, 8)

    def test_shapes_must_agree(self):
        with pytest.raises(ConfigError, match=r"\(4, 5\), 'goal': \(4, 6\)"):
            LatentEncoder({"state": (4, 5), "goal": (4, 6)}, 8)


class TestCorrespondences:
    def test_what_moved_is_told_where_it_went_and_where_it_came_from(self):
        """A patch of its own kind goes from the first place of nine to the last one."""
        torch.manual_seed(0)
        shape = (9, 40)
        encoder = LatentEncoder({"state": shape, "goal": shape}, 8, 1, 2, 3, correspondences=True)
        told = encoder.correspondences
        seen = []
        told.embed.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        state = noise(1, 1, 40).expand(1, 9, 40).clone()
        goal, thing = state.clone(), noise(1, 40, seed=1)
        state[:, 0], goal[:, 8] = thing, thing
        encoder(state, goal)
        found = seen[0][0]
        torch.testing.assert_close(found[0, :2], torch.full((2,), 2 / 3), atol=0.01, rtol=0)
        torch.testing.assert_close(found[8, 3:5], torch.full((2,), -2 / 3), atol=0.01, rtol=0)
        assert found[0, 2] > 0.98
        assert found[8, 5] > 0.98

    def test_they_are_part_of_what_is_learned_from_the_first_step_on(self):
        encoder = LatentEncoder(LATENTS, 8, 1, 2, 3, correspondences=True)
        encoder(noise(2, 4, 5), noise(2, 4, 5, seed=1)).square().sum().backward()
        assert encoder.correspondences.embed.weight.grad.abs().max() > 0


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize(("patches", "layers"), [(9, 2), (6, 0)])  # on a grid, and not
def test_what_is_exported_is_the_same_function_folded(patches, layers, told):
    shape = (patches, 5)
    encoder = LatentEncoder({"state": shape, "goal": shape}, 8, layers, 2, 3, told).eval()
    if told:
        torch.nn.init.normal_(encoder.correspondences.embed.weight)
    encoder.set_statistics([(3.0 + noise(40, 5) * torch.tensor([1.0, 0.1, 20.0, 1, 1])).numpy()])
    state, goal = 3.0 + noise(2, *shape), 3.0 + noise(2, *shape, seed=1)
    with torch.no_grad():
        expected = encoder.double()(state.double(), goal.double())
        found = FoldedLatentEncoder(encoder.float())(state, goal)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def test_sketch_tokens_tell_numbers_apart_by_value_and_place():
    torch.manual_seed(0)
    encoder = SketchEncoder({"sketch": (6,)}, 8)
    sketch = torch.tensor([[0.1, 0.1, 0.2, 0.2, 0.5, 0.7]])
    tokens = encoder(sketch)
    assert tokens.shape == (1, 6, 8)
    assert not torch.allclose(tokens[0, 0], tokens[0, 1], atol=1e-4)  # same number, other place
    moved = encoder(sketch + torch.tensor([[0, 0, 0, 0, 0.01, 0]]))
    changed = (tokens != moved).any(dim=2)[0]
    assert changed.tolist() == [False] * 4 + [True, False]


def test_hidden_rows_get_the_null_condition_and_no_other():
    model = make_model("sketch")
    tokens = noise(3, 6, 16)
    found = model.hide(tokens, torch.tensor([True, False, True]))
    assert torch.equal(found[1], tokens[1])
    assert torch.equal(found[0], model.null_condition[0])
    assert torch.equal(found[2], model.null_condition[0])
