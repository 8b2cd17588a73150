"""A predictor of VJ2-GUI's signature and size, with random weights: for its time, not its answers.

Each of T frames is its patches and one token that holds its action block, so that 8 frames of 256
patches are 2,056 tokens. A token attends to its own frame and to those before. Where VJ2-GUI
rotates queries and keys by their position, a learned position is added here, which costs less.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from vj2_ddim_plugin.errors import ActionError, ConfigError, ContextError

__all__ = ["PredictorSize", "ScalePredictor"]


@dataclass(frozen=True)
class PredictorSize:
    """How large; VJ2-GUI's is the default.

    Attributes:
        depth: Transformer layers.
        width: Width of a token, of latents and inside alike.
        num_heads: Attention heads; must divide `width`.
        num_frames: States T that it sees.
        num_tokens: Tokens of all frames, `T * (patches + 1)`.
        action_width: Numbers of an action block, `L * A`.

    Raises:
        ConfigError: On construction, for sizes that do not fit one another.
    """

    depth: int = 24
    width: int = 1024
    num_heads: int = 16
    num_frames: int = 8
    num_tokens: int = 2056
    action_width: int = 750

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        for name, value in vars(self).items():
            if value < 1:
                raise ConfigError(f"{name} must be at least 1; found {value}")
        if self.width % self.num_heads:
            raise ConfigError(
                f"num_heads must divide width; found {self.num_heads} and {self.width}"
            )
        if self.num_tokens % self.num_frames or self.num_patches < 1:
            raise ConfigError(
                f"num_tokens must be num_frames * (patches + 1); found {self.num_tokens} for "
                f"{self.num_frames} frames"
            )

    @property
    def num_patches(self) -> int:
        """Patches N of one frame."""
        return self.num_tokens // self.num_frames - 1


class ScalePredictor(nn.Module):
    """`(z [B, T, N, D], actions [B, T, L * A]) -> z`, with random weights.

    Args:
        size: How large.
    """

    mask: Tensor

    def __init__(self, size: PredictorSize) -> None:
        super().__init__()
        self.size, width = size, size.width
        self.read = nn.Linear(width, width)
        self.action_encoder = nn.Linear(size.action_width, width)
        self.position = nn.Parameter(0.02 * torch.randn(size.num_tokens, width))
        self.blocks = nn.ModuleList(_Block(width, size.num_heads) for _ in range(size.depth))
        self.norm = nn.LayerNorm(width)
        self.write = nn.Linear(width, width)
        frame = torch.arange(size.num_tokens) // (size.num_patches + 1)
        self.register_buffer("mask", frame[:, None] >= frame[None, :], persistent=False)

    def forward(self, z: Tensor, actions: Tensor) -> Tensor:
        """Predict the latents after each step.

        Args:
            z: `[B, T, N, D]`.
            actions: `[B, T, L * A]`.

        Returns:
            `[B, T, N, D]`.

        Raises:
            ContextError: The latents are of another size.
            ActionError: The actions are.
        """
        size = self.size
        expected = (size.num_frames, size.num_patches, size.width)
        if z.ndim != 4 or tuple(z.shape[1:]) != expected:
            raise ContextError(f"latents must be [B, {expected}]; found {list(z.shape)}")
        if tuple(actions.shape) != (len(z), size.num_frames, size.action_width):
            raise ActionError(
                f"actions must be [{len(z)}, {size.num_frames}, {size.action_width}]; found "
                f"{list(actions.shape)}"
            )
        action_tokens = self.action_encoder(actions).unsqueeze(2)
        hidden = torch.cat([action_tokens, self.read(z)], dim=2).flatten(1, 2) + self.position
        for block in self.blocks:
            hidden = block(hidden, self.mask)
        patches = hidden.reshape(len(z), size.num_frames, -1, size.width)[:, :, 1:]
        predicted: Tensor = self.write(self.norm(patches))
        return predicted


class _Block(nn.Module):
    """A pre-norm transformer layer; the feed-forward part is four times as wide."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.read = nn.Linear(width, 3 * width)
        self.write = nn.Linear(width, width)
        self.mix = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Tokens `[B, S, W]` to tokens; `mask` `[S, S]` is True where one may look."""
        heads = self.read(self.norms[0](hidden)).reshape(*hidden.shape[:2], 3, self.num_heads, -1)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        hidden = hidden + self.write(seen.transpose(1, 2).flatten(2))
        mixed: Tensor = hidden + self.mix(self.norms[1](hidden))
        return mixed
