"""The original script's training, written plainly in torch: the opponent of ours.

A post-norm transformer over all actions predicts the noise of linear betas; AdamW; the learning
rate follows a cosine, an epoch a step. Nothing of ours is called, so that it can be held against
us; its weights have the names of our `minimal`.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["OriginalTraining", "OriginalTransformer"]

NUM_TIMESTEPS, FIRST_BETA, LAST_BETA = 1000, 1e-4, 2e-2
WEIGHT_DECAY, CLIP_NORM = 1e-4, 1.0


class _Positions(nn.Module):
    """Adds sines and cosines of the position, frequency by frequency."""

    pe: Tensor

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        frequencies = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
        angles = torch.arange(length)[:, None] * frequencies
        table = torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)
        self.register_buffer("pe", table[None])

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + self.pe


class OriginalTransformer(nn.Module):
    """Predicts the noise in `[B, L, A]` at timesteps `[B]`."""

    def __init__(
        self, length: int, channels: int, d_model: int, num_layers: int, nhead: int, inner: int
    ) -> None:
        super().__init__()
        self.action_embedding = nn.Linear(channels, d_model)
        self.pos_encoder = _Positions(length, d_model)
        layer = nn.TransformerEncoderLayer(
            d_model, nhead, inner, dropout=0.1, activation="gelu", batch_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)
        self.output_projection = nn.Linear(d_model, channels)
        self.layer_norm = nn.LayerNorm(d_model)

    def forward(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """The noise, `[B, L, A]`."""
        half = self.action_embedding.out_features // 2
        frequencies = torch.exp(torch.arange(half) * (-math.log(10000.0) / (half - 1)))
        angles = timesteps[:, None] * frequencies
        time = torch.cat([angles.sin(), angles.cos()], dim=1)[:, None]
        tokens = self.layer_norm(self.pos_encoder(self.action_embedding(noisy)) + time)
        predicted: Tensor = self.output_projection(self.transformer(tokens))
        return predicted


class Draw(NamedTuple):
    """What one step is told: sequences `[B, L, A]`, timesteps `[B]` and noise `[B, L, A]`."""

    original: Tensor
    timesteps: Tensor
    noise: Tensor


class OriginalTraining:
    """Trains it on sequences `[n, L, A]`, epoch by epoch."""

    def __init__(
        self, model: OriginalTransformer, actions: Tensor, lr: float, num_epochs: int, batch: int
    ) -> None:
        self.model, self.actions, self.batch = model, actions, batch
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=WEIGHT_DECAY)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR
        self.learning_rate = cosine(self.optimizer, T_max=num_epochs)
        betas = torch.linspace(FIRST_BETA, LAST_BETA, NUM_TIMESTEPS)
        self.alphas_cumprod = torch.cumprod(1.0 - betas, dim=0)
        self.epoch_losses: list[float] = []

    def epoch(self) -> None:
        """One pass over the data, in a random order."""
        self.model.train()
        losses = []
        for rows in torch.split(torch.randperm(len(self.actions)), self.batch):
            original = self.actions[rows]
            timesteps = torch.randint(NUM_TIMESTEPS, (len(rows),))
            losses.append(self.step(Draw(original, timesteps, torch.randn_like(original))))
        self.end_epoch(losses)

    def step(self, draw: Draw) -> float:
        """One step of AdamW; its loss."""
        alpha = self.alphas_cumprod[draw.timesteps][:, None, None]
        noisy = alpha.sqrt() * draw.original + (1.0 - alpha).sqrt() * draw.noise
        loss = functional.mse_loss(self.model(noisy, draw.timesteps), draw.noise)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
        self.optimizer.step()
        return loss.item()

    def end_epoch(self, losses: list[float]) -> None:
        """The learning rate of the next one."""
        self.learning_rate.step()
        self.epoch_losses.append(sum(losses) / len(losses))
