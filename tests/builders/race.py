"""A small world model for the tests of the protocol."""

import torch

from vj2_ddim_benchmark.world.screen import TouchScreen
from vj2_ddim_benchmark.world_model.config import WorldModelConfig
from vj2_ddim_benchmark.world_model.encoder import PatchEncoder
from vj2_ddim_benchmark.world_model.model import WorldModel


def write_world_model(path, seed=0):
    """An untrained one that does not predict the same for every action."""
    pictures = TouchScreen.generate(40, split="train", seed=seed).render()
    torch.manual_seed(seed)
    encoder = PatchEncoder.fit(pictures, patch_size=8, token_dim=32)
    model = WorldModel.create(WorldModelConfig(width=32, num_layers=1, num_heads=2), encoder)
    torch.nn.init.normal_(model.predictor.write.weight, std=0.1)
    model.eval().save(path)
    return path
