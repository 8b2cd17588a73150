"""Condition encoders: what the denoiser is told, turned into tokens once a plan."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_training.denoisers import dit
from vj2_ddim_training.denoisers.dit import fourier_features
from vj2_ddim_training.survey import moments_of

__all__ = ["FoldedLatentEncoder", "LatentEncoder", "SketchEncoder"]

Shapes = Mapping[str, tuple[int, ...]]
SKETCH_FREQUENCIES = 7
GRID_FREQUENCIES = 4
LEAST_CHANGE = 1e-3  # squared difference, in variances of the latents, that counts as none
SHARPNESS = 10.0  # of correspondences, for a difference of a variance, to begin with
REACH = 0.125  # scale of a patch's offset to its centre, in screens


class SketchEncoder(nn.Module):
    """`sketch` `[B, n]` in [0, 1] to tokens `[B, n, width]`."""

    def __init__(self, input_shapes: Shapes, width: int) -> None:
        super().__init__()
        (size,) = input_shapes["sketch"]
        self.num_tokens = size
        self.embed = nn.Linear(1 + 2 * SKETCH_FREQUENCIES, width)
        self.position = nn.Parameter(0.02 * torch.randn(1, size, width))
        self.mix = nn.Sequential(nn.SiLU(), nn.Linear(width, width))

    def forward(self, sketch: Tensor) -> Tensor:
        """Encode `[B, n]` numbers as `[B, n, width]` tokens."""
        features = fourier_features(sketch.unsqueeze(-1), SKETCH_FREQUENCIES)
        tokens: Tensor = self.mix(self.embed(features) + self.position)
        return tokens


def _centres(num_patches: int) -> Tensor:
    """`[N, 2]`: x and y in [0, 1] of the centre of each patch of a square grid; else `[N, 0]`."""
    side = math.isqrt(num_patches)
    if side * side != num_patches:
        return torch.zeros(num_patches, 0)
    along = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(along, along, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=-1)


class _Reader(dit.Attention):
    """What each query gathers from the patches: their content, and the place it points to."""

    centres: Tensor

    def __init__(self, width: int, num_heads: int, centres: Tensor) -> None:
        super().__init__(width, num_heads)
        self.register_buffer("centres", 2.0 * centres - 1.0, persistent=False)
        num_places = num_heads * centres.shape[-1]
        self.offset = nn.Linear(width, num_places) if num_places else None
        self.place = nn.Linear(num_places, width) if num_places else None

    def read(self, queries: Tensor, tokens: Tensor, bias: Tensor) -> Tensor:
        """Queries `[B, S, D]` over tokens `[B, N, D]`, `bias` `[B, 1, S, N]`, to `[B, S, D]`."""
        query, key, value = self.split(queries, tokens)
        attention = self.weights(query, key, bias)
        gathered: Tensor = self.output((attention @ value).transpose(1, 2).flatten(2))
        if self.offset is None or self.place is None:
            return gathered
        offsets = self.offset(tokens).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        points = self.centres + 2.0 * REACH * offsets  # [B, heads, N, 2]
        place: Tensor = self.place((attention @ points).transpose(1, 2).flatten(2))
        return gathered + place


class _Correspondences(nn.Module):
    """Where in the other picture the like of each patch lies, and how surely.

    Patches are compared by their squared difference, and what changed counts for more: a softmax
    over the other picture's patches, whose mean place, from the patch on, and whose largest weight
    are told (the soft correspondences of Kendall et al. 2017, "End-to-End Learning of Geometry and
    Context for Deep Stereo Regression", section 3.4, in two dimensions and both ways). Without a
    square grid the weights alone. What is made of it starts out as 0.
    """

    centres: Tensor

    def __init__(self, width: int, centres: Tensor) -> None:
        super().__init__()
        self.register_buffer("centres", centres.clone(), persistent=False)
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(SHARPNESS)))
        self.embed = nn.Linear(2 * (centres.shape[-1] + 1), width)
        nn.init.zeros_(self.embed.weight)
        nn.init.zeros_(self.embed.bias)

    def forward(self, state: Tensor, goal: Tensor, squared: Tensor) -> Tensor:
        """Of normalized `[B, N, D]` latents and their change `[B, N, 1]`, `[B, N, width]`."""
        sizes = [each.square().mean(dim=-1) for each in (state, goal)]
        product = state @ goal.transpose(1, 2) / state.shape[-1]
        apart = sizes[0][:, :, None] + sizes[1][:, None, :] - 2.0 * product
        likeness = -self.log_sharpness.exp() * apart
        changed = torch.log(squared + LEAST_CHANGE).transpose(1, 2)
        found = []
        for each in (likeness, likeness.transpose(1, 2)):
            weights = torch.softmax(each + changed, dim=-1)
            found += [weights @ self.centres - self.centres, weights.amax(dim=-1, keepdim=True)]
        embedded: Tensor = self.embed(torch.cat(found, dim=-1))
        return embedded


class LatentEncoder(nn.Module):
    """`state` and `goal` latents `[B, N, D]` to tokens `[B, num_tokens, width]`.

    Each patch becomes one token that sees its state, its goal and their difference, so that start
    can be told from goal, and *where* it lies: a learned embedding, and on a square grid its
    coordinates as well. A few layers mix the patches, then learned queries gather what the denoiser
    needs, so that its cost does not grow with the patches. Attention starts out as an average, in
    which the few patches that matter are lost; so half of the queries start out looking where goal
    and state differ (their attention is weighted by the squared difference), and a maximum over the
    patches is added to what all gather.

    Where a touch must land matters to a fraction of a patch, and a weighted sum of embeddings tells
    that badly. So on a square grid each query also *points*: it gathers the patches' centres, moved
    by an offset each patch predicts, under its own attention (the spatial softmax of Levine et al.
    2016, "End-to-End Training of Deep Visuomotor Policies", section 4.2, with offsets).

    Which way something moved is told by neither, where both its places changed. With
    `correspondences` each patch also sees where its like lies.
    """

    grid: Tensor
    latent_mean: Tensor
    latent_std: Tensor

    def __init__(
        self,
        input_shapes: Shapes,
        width: int,
        num_layers: int = 2,
        nhead: int = 4,
        num_tokens: int = 16,
        correspondences: bool = False,
    ) -> None:
        super().__init__()
        if set(input_shapes) != {"state", "goal"} or len(set(input_shapes.values())) > 1:
            raise ConfigError(
                f"state and goal latents must have one shape; found {dict(input_shapes)}"
            )
        num_patches, latent_width = input_shapes["state"]
        self.num_tokens = num_tokens
        centres = _centres(num_patches)
        grid = fourier_features(centres, GRID_FREQUENCIES)
        self.register_buffer("grid", grid, persistent=False)
        self.register_buffer("latent_mean", torch.zeros(latent_width))
        self.register_buffer("latent_std", torch.ones(latent_width))
        self.embed = nn.Linear(3 * latent_width + 1 + self.grid.shape[-1], width)
        self.position = nn.Parameter(0.02 * torch.randn(1, num_patches, width))
        self.correspondences = _Correspondences(width, centres) if correspondences else None
        self.layers = nn.ModuleList(dit.TransformerLayer(width, nhead) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width)
        self.queries = nn.Parameter(torch.randn(1, num_tokens, width))
        self.focus = nn.Parameter((torch.arange(num_tokens) % 2 == 0).float()[:, None])
        self.reader = _Reader(width, nhead, centres)
        self.pool = nn.Linear(width, width)
        self.norm_gathered = nn.LayerNorm(width)
        self.refine = dit.FeedForward(width, ratio=2)

    def set_statistics(self, parts: Iterable[Any]) -> None:
        """Take mean and standard deviation from all training latents `[..., D]`; they are saved."""
        mean, std = map(torch.from_numpy, moments_of(parts))
        self.latent_mean.copy_(mean)
        self.latent_std.copy_(std)

    def forward(self, state: Tensor, goal: Tensor) -> Tensor:
        """Encode two `[B, N, D]` latents as `[B, num_tokens, width]` tokens."""
        state = (state - self.latent_mean) / self.latent_std
        goal = (goal - self.latent_mean) / self.latent_std
        change = goal - state
        squared = change.square().mean(dim=-1, keepdim=True)
        energy = torch.log1p(squared)
        grid = self.grid.expand(state.shape[0], -1, -1)
        patches = torch.cat([state, goal, change, energy, grid], dim=-1)
        tokens = self.embed(patches) + self.position
        if self.correspondences is not None:
            tokens = tokens + self.correspondences(state, goal, squared)
        return self.gather(tokens, squared)

    def gather(self, tokens: Tensor, squared: Tensor) -> Tensor:
        """Mix patches `[B, N, width]`, and gather them; `squared` `[B, N, 1]` is their change."""
        for layer in self.layers:
            tokens = layer(tokens)
        tokens = self.norm(tokens)
        queries = self.queries.expand(tokens.shape[0], -1, -1)  # len() would be a constant in ONNX
        bias = self.focus * torch.log(squared + LEAST_CHANGE).transpose(1, 2)
        gathered = self.reader.read(queries, tokens, bias.unsqueeze(1))
        gathered = gathered + self.pool(tokens).amax(dim=1, keepdim=True)
        refined: Tensor = gathered + self.refine(self.norm_gathered(gathered))
        return refined


class FoldedLatentEncoder(nn.Module):
    """The same function of a trained `LatentEncoder`, in fewer operations, to be exported.

    Everything that is linear in the latents (their normalization, their difference, the embedding)
    is one matrix for the state and one for the goal; what is constant is one offset.
    """

    offset: Tensor
    squares: Tensor

    def __init__(self, encoder: LatentEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        mean, std = encoder.latent_mean.double(), encoder.latent_std.double()
        weight, bias = encoder.embed.weight.detach().double(), encoder.embed.bias.detach().double()
        sizes = [len(std)] * 3 + [1, encoder.grid.shape[-1]]
        of_state, of_goal, of_change, energy, of_grid = torch.split(weight, sizes, dim=-1)
        both = (of_state - of_change) / std, (of_goal + of_change) / std
        constant = bias + encoder.grid.double() @ of_grid.T - (both[0] + both[1]) @ mean
        self.of_state, self.of_goal, self.energy = (
            nn.Parameter(part.T.float().contiguous()) for part in (*both, energy)
        )
        self.register_buffer("offset", (constant + encoder.position.detach().double()).float())
        self.register_buffer("squares", (1.0 / (std.square() * len(std)))[:, None].float())

    def forward(self, state: Tensor, goal: Tensor) -> Tensor:
        """Encode two `[B, N, D]` latents as `[B, num_tokens, width]` tokens."""
        change = goal - state
        squared = (change * change) @ self.squares
        tokens = state @ self.of_state + goal @ self.of_goal + self.offset
        tokens = tokens + torch.log1p(squared) * self.energy
        told = self.encoder.correspondences
        if told is not None:
            mean, std = self.encoder.latent_mean, self.encoder.latent_std
            tokens = tokens + told((state - mean) / std, (goal - mean) / std, squared)
        return self.encoder.gather(tokens, squared)
