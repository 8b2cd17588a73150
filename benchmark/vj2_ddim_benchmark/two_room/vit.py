"""A small vision transformer that answers to the call LeWM makes of its encoder.

LeWM calls `encoder(pixels, interpolate_pos_encoding=True).last_hidden_state` and reads token 0. The
host takes a ViT from `transformers` for it; at 64 x 64 pixels on one core, this one does.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from vj2_ddim_training.denoisers.layers import TransformerLayer

__all__ = ["EncoderOutput", "SmallViT"]


class EncoderOutput(NamedTuple):
    """`last_hidden_state` is `[B, 1 + patches, width]`, the class token first."""

    last_hidden_state: Tensor


class SmallViT(nn.Module):
    """Patches and a class token through pre-norm transformer layers.

    Args:
        image_size: Side of the square image.
        patch_size: Side of a patch; must divide the image.
        width: Token width.
        depth: Layers.
        num_heads: Attention heads; must divide the width.
    """

    def __init__(
        self, image_size: int, patch_size: int, width: int, depth: int, num_heads: int
    ) -> None:
        super().__init__()
        patches = (image_size // patch_size) ** 2
        self.embed = nn.Conv2d(3, width, patch_size, stride=patch_size)
        self.class_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.position = nn.Parameter(0.5 * torch.randn(1, 1 + patches, width))
        self.layers = nn.ModuleList(TransformerLayer(width, num_heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, pixels: Tensor, interpolate_pos_encoding: bool = False) -> EncoderOutput:
        """Encode `[B, 3, H, W]`; images of the trained size only, so nothing is interpolated."""
        patches = self.embed(pixels).flatten(2).transpose(1, 2)
        first = self.class_token.expand(len(patches), -1, -1)
        tokens = torch.cat([first, patches], dim=1) + self.position
        for layer in self.layers:
            tokens = layer(tokens)
        return EncoderOutput(self.norm(tokens))
