"""Small world models: their configurations, and a toy world to train on."""

from dataclasses import replace

import numpy as np
import torch

from vj2_ddim_benchmark.world_model.config import WorldModelConfig
from vj2_ddim_benchmark.world_model.encoders import PatchEncoder
from vj2_ddim_benchmark.world_model.model import WorldModel
from vj2_ddim_benchmark.world_model.networks import Predictor

TINY = WorldModelConfig(
    num_trajectories=12, horizon=2, width=16, num_layers=1, num_heads=2, token_dim=8,
    num_epochs=1, batch_size=8, unchanged_share=1.0, num_report_problems=3,
)  # fmt: skip
TOY = replace(TINY, screen_size=16, token_dim=3, action_block=20)  # 2 x 2 tokens


def touched_cells(num, rng):
    """A toy world: a tap turns the touched one of 2 x 2 cells from 0 to 1."""
    before = rng.integers(0, 2, (num, 4)).astype(np.float32)
    places = rng.random((num, 2))
    cell = 2 * (places[:, 1] > 0.5) + (places[:, 0] > 0.5)
    after = before.copy()
    after[np.arange(num), cell] = 1
    actions = np.zeros((num, 1, 20, 3), np.float32)
    actions[:, 0, 5:15, :2] = places[:, None]
    actions[:, 0, 5:15, 2] = 1
    latents = np.stack([before, after], axis=1)[..., None] * np.ones(3, np.float32)
    return torch.from_numpy(latents), torch.from_numpy(actions)


def toy_predictor(**changes):
    torch.manual_seed(0)
    return Predictor(replace(TOY, **changes))


def random_model(config):
    """Of a fitted encoder and a predictor that does not predict the same for every action."""
    shape = (20, config.screen_size, config.screen_size, 3)
    frames = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    encoder = PatchEncoder.fit(frames, patch_size=config.patch_size, token_dim=config.token_dim)
    torch.manual_seed(0)
    model = WorldModel(config, encoder).eval()
    torch.nn.init.normal_(model.predictor.write.weight)
    return model
