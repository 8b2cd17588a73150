"""`RankerNetwork`: condition tokens and a candidate in, a predicted cost out; and its file.

The condition tokens are those that the denoiser reads, encoded once a plan and not trained here. A
candidate is turned into a few tokens that look up there where something has to happen.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from vj2_ddim_plugin.errors import CheckpointError, ConfigError
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.spec import ActionSpec, ConditionSpec
from vj2_ddim_training.config import RankerConfig
from vj2_ddim_training.denoisers.dit import Attention, FeedForward, fourier_features, modulate
from vj2_ddim_training.diffusion_model import DiffusionModel, TorchSampler
from vj2_ddim_training.saved import (
    MISFITS,
    built_with,
    one_line,
    open_saved,
    save_atomically,
    versions,
)

__all__ = ["RankedSampler", "RankerNetwork", "TrainedRanker", "load_ranker"]
__all__ += ["model_fingerprint", "save_ranker", "weights_fingerprint"]

NUM_FREQUENCIES = 5  # the finest wave is 1/16 of the range long
MOST_ENTRIES = 64  # of a candidate whose entries are worth features of their own
FORMAT = "vj2-ddim-ranker-1"
HISTORY = ("model_fingerprint", "data_fingerprint", "metrics", "provenance")
FIELDS = ("format", "config", "weights", *HISTORY)
FINGERPRINT_DIGITS = 16


class _Layer(nn.Module):
    """The candidate's tokens look at the condition, then each is changed by itself."""

    def __init__(self, width: int, nhead: int) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = Attention(width, nhead)
        self.norm_feed_forward = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.feed_forward = FeedForward(width, ratio=2)

    def forward(self, tokens: Tensor, condition: Tensor, signal: Tensor) -> Tensor:
        """Tokens `[n, Q, D]`, condition `[n, S, D]`, signal `[n, D]`."""
        tokens = tokens + self.attention(self.norm_attention(tokens), condition)
        shift, scale = self.modulation(signal).chunk(2, dim=-1)
        normed = modulate(self.norm_feed_forward(tokens), shift, scale)
        output: Tensor = tokens + self.feed_forward(normed)
        return output


def _two_layers(width: int, hidden: int, out: int) -> nn.Sequential:
    first = nn.Linear(width, hidden)
    return nn.Sequential(first, nn.GELU(approximate="tanh"), nn.Linear(hidden, out))


class RankerNetwork(nn.Module):
    """Predicts which of several candidates the planner's cost would prefer.

    What it predicts is comparable within a problem only, and in no unit. Fourier features of a
    candidate make places a few pixels apart look different.
    """

    def __init__(
        self, config: RankerConfig, action_spec: ActionSpec, condition: ConditionSpec
    ) -> None:
        super().__init__()
        if not condition.inputs:
            raise ConfigError(
                "a ranker reads the condition tokens; this model is unconditional. Train one with "
                "condition='latents'"
            )
        self.config, self.num_queries = config, config.num_queries
        rows, channels = action_spec.diffused_shape
        self.num_frequencies = NUM_FREQUENCIES if rows * channels <= MOST_ENTRIES else 0
        num_features = rows * channels * (1 + 2 * self.num_frequencies)
        width, queries_width = config.width, config.num_queries * config.width
        norm, read = nn.LayerNorm(condition.width), nn.Linear(condition.width, width)
        self.read_condition = nn.Sequential(norm, read)
        self.read_candidate = _two_layers(num_features, 2 * width, queries_width)
        self.pool = nn.Linear(condition.num_tokens * width, width)
        self.layers = nn.ModuleList(_Layer(width, config.nhead) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(queries_width)
        self.output = _two_layers(queries_width, width, 1)

    def forward(self, candidates: Tensor, condition: Tensor) -> Tensor:
        """Predict the cost of each row, as the plugin asks for it."""
        return torch.squeeze(self.rank(candidates.unsqueeze(1), condition), -1)

    def rank(self, candidates: Tensor, condition: Tensor) -> Tensor:
        """The same for `[B, K, M, C]` and `[B, S, W]`, as `[B, K]`: tokens are read only once."""
        entries = candidates.flatten(2)
        if self.num_frequencies:
            entries = fourier_features(0.5 * entries + 0.5, self.num_frequencies)
        read = self.read_condition(condition)
        signal = nn.functional.silu(self.pool(read.flatten(1)))
        tokens = self.read_candidate(entries).unflatten(-1, (self.num_queries, -1)).flatten(1, 2)
        for layer in self.layers:
            tokens = layer(tokens, read, signal)
        tokens = tokens.unflatten(1, (-1, self.num_queries)).flatten(2)
        cost: Tensor = self.output(self.norm(tokens))
        return torch.squeeze(cost, -1)


class RankedSampler(TorchSampler):
    """A `SamplerModel` with a ranker: `DDIMOptimizer(RankedSampler(...), num_ranked=1)`."""

    def __init__(self, model: DiffusionModel, ranker: RankerNetwork) -> None:
        super().__init__(model)
        self._ranker = ranker.to(self.device).eval()

    @torch.inference_mode()
    def ranker(self, candidates: FloatArray, condition: FloatArray, /) -> FloatArray:
        """Predict the cost `[n]` of `[n, M, C]` under tokens `[n, S, W]`."""
        arrays = (torch.as_tensor(of, device=self.device) for of in (candidates, condition))
        cost: FloatArray = self._ranker(*arrays).cpu().numpy()
        return cost


@dataclass(frozen=True)
class TrainedRanker:
    """A ranker and its history."""

    ranker: RankerNetwork
    model_fingerprint: str
    data_fingerprint: str
    metrics: Mapping[str, float]
    provenance: Mapping[str, str] = field(default_factory=versions)


def model_fingerprint(model: DiffusionModel) -> str:
    """16 hexadecimal digits that name a model: its weights and what it samples."""
    return weights_fingerprint(model, repr(sorted(model.action_spec.to_dict().items())))


def weights_fingerprint(model: nn.Module, what: str = "") -> str:
    """16 hexadecimal digits of the weights of any network, and of what else it is."""
    digest = hashlib.sha256(what.encode())
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name}\0{tuple(weight.shape)}\n".encode())
        digest.update(weight.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:FINGERPRINT_DIGITS]


def save_ranker(trained: TrainedRanker, path: Path) -> None:
    """Write atomically a file that `torch.load(weights_only=True)` opens."""
    content = {
        "format": FORMAT,
        "config": trained.ranker.config.to_dict(),
        "weights": trained.ranker.state_dict(),
        "model_fingerprint": trained.model_fingerprint,
        "data_fingerprint": trained.data_fingerprint,
        "metrics": dict(trained.metrics),
        "provenance": dict(trained.provenance),
    }
    save_atomically(content, path)


def load_ranker(path: Path | str, model: DiffusionModel) -> TrainedRanker:
    """Open a ranker, in evaluation mode, for the model it was trained for.

    Raises:
        CheckpointError: The file is missing, broken, foreign, lacks a field, or belongs to another
            model.
    """
    path = Path(path)
    content = open_saved(path, "ranker", "'vj2-ddim train-ranker' makes one")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path}: is not a ranker of this project (format {FORMAT!r})")
    if missing := [name for name in FIELDS if name not in content]:
        raise CheckpointError(f"{path}: lacks the fields {missing}. Train it again")
    found, expected = content["model_fingerprint"], model_fingerprint(model)
    if found != expected:
        raise CheckpointError(
            f"{path}: belongs to the model {found}, this one is {expected}; a ranker reads the "
            f"condition tokens of one model alone. Train the ranker again for this checkpoint"
        )
    try:
        config = RankerConfig.from_dict(content["config"])
        make = partial(RankerNetwork, config, model.action_spec, model.condition)
        ranker = built_with(content["weights"], make)
    except MISFITS as error:
        raise CheckpointError(
            f"{path}: its fields do not fit one another: {one_line(error)}"
        ) from error
    return TrainedRanker(ranker.eval(), *(content[name] for name in HISTORY))
