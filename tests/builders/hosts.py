"""A tiny bundle, world models with known costs, and environments made of nothing."""

from types import SimpleNamespace

import numpy as np
import torch
from gymnasium.spaces import Box

from vj2_ddim_benchmark.two_room import import_stable_worldmodel
from vj2_ddim_export.export import export_bundle
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.checkpoint import Checkpoint, save_checkpoint
from vj2_ddim_training.config import ModelConfig
from vj2_ddim_training.diffusion_model import DiffusionModel

LATENT = 8


def make_bundle(folder, length=10, channels=2):
    """Export an untrained denoiser with random weights: `[length, channels]`, bounds -1 to 1."""
    spec = ActionSpec(
        action_block=length,
        channels=tuple(f"a{i}" for i in range(channels)),
        action_low=(-1.0,) * channels,
        action_high=(1.0,) * channels,
        press_channel=None,
        representation="raw",
    )
    config = ModelConfig(
        d_model=16, num_layers=1, nhead=2, condition="latents", condition_layers=1,
        condition_tokens=2, patch_size=1,
    )  # fmt: skip
    torch.manual_seed(0)
    inputs = {"state": (1, LATENT), "goal": (1, LATENT)}
    schedule = NoiseSchedule(beta_schedule="cosine", prediction_type="v_prediction")
    model = DiffusionModel(config, spec, schedule, inputs)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * torch.randn_like(weight)
    model.eval()
    checkpoint = Checkpoint(model, model.state_dict(), {}, "f" * 16, {}, {"made_by": "a test"})
    save_checkpoint(checkpoint, folder / "checkpoint.pt")
    export_bundle(folder / "checkpoint.pt", folder / "bundle")
    return folder / "bundle"


class QuadraticModel(torch.nn.Module):
    """Cost: squared distance of all actions to a target that each problem's info dict brings.

    Like the host's models it writes into the dict it is given; it refuses one that was used before.
    """

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones((), dtype=dtype))
        self.calls = []

    def encode(self, info):
        pixels = info["pixels"].flatten(2)[..., :LATENT]
        return {**info, "emb": pixels * self.weight}

    def get_cost(self, info, candidates):
        assert "used" not in info
        info["used"] = True
        assert candidates.dtype == self.weight.dtype
        self.calls.append(tuple(candidates.shape))
        return self.cost(info["target"], candidates)

    def cost(self, target, candidates):
        return (candidates - target).square().sum(dim=(-1, -2))


def make_info(batch, horizon, width, seed=0, dtype=np.float32):
    """An info dict as the host's policy makes it, after its transforms."""
    rng = np.random.default_rng(seed)
    return {
        "pixels": torch.tensor(rng.standard_normal((batch, 1, 3, 2, 2)), dtype=torch.float32),
        "goal": torch.tensor(rng.standard_normal((batch, 1, 3, 2, 2)), dtype=torch.float32),
        "target": torch.tensor(rng.uniform(-1, 1, (batch, horizon, width)), dtype=torch.float32),
        "action": torch.full((batch, 1, 2), float("nan")),
        "step": np.arange(batch)[:, None],
        "env_name": [["TwoRoom"]] * batch,
    }


def box(num_envs, channels=2):
    return Box(-1.0, 1.0, (num_envs, channels), np.float32)


def make_env(num_envs, channels=2):
    """What the host's policy asks of an environment pool."""
    return SimpleNamespace(
        num_envs=num_envs,
        action_space=box(num_envs, channels),
        single_action_space=Box(-1.0, 1.0, (channels,), np.float32),
    )


def plan_config(horizon, action_block, **settings):
    settings = {"receding_horizon": 1, **settings}
    return import_stable_worldmodel().PlanConfig(
        horizon=horizon, action_block=action_block, **settings
    )
