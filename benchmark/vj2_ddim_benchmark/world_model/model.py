"""`WorldModel`, in one file on disk, and `LatentCost`, what planners minimise through it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vj2_ddim_benchmark.model_files import half_weights, read_model
from vj2_ddim_benchmark.world.screen import TouchScreen
from vj2_ddim_benchmark.world_model.config import WorldModelConfig
from vj2_ddim_benchmark.world_model.encoders import Encoder, encoder_of
from vj2_ddim_benchmark.world_model.networks import NUM_CHANNELS, Predictor
from vj2_ddim_plugin.errors import ActionError, CheckpointError, ConfigError, ContextError
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_training.saved import save_atomically

FORMAT = "vj2-ddim touch screen world model 2"
FIELDS = dict.fromkeys(("config", "encoder", "predictor", "report", "provenance"), dict)
ROWS_PER_CHUNK = 256  # candidates in one forward pass, which bounds the memory
HINT = "train one with `vj2-ddim benchmark world train`"


class WorldModel(nn.Module):
    """A frozen encoder and a learned predictor of what a touch does to the encoded screen."""

    def __init__(self, config: WorldModelConfig, encoder: Encoder) -> None:
        super().__init__()
        self.config, self.encoder, self.predictor = config, encoder, Predictor(config)
        self.report: dict[str, Any] = {}
        self.provenance: dict[str, Any] = {}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.predictor.position.device

    def encode(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Frames uint8 `[..., H, W, 3]` to latents float32 `[..., N, D]`."""
        return self.encoder.encode(frames)

    def see(self, screens: TouchScreen) -> NDArray[np.float32]:
        """The latents `[n, N, D]` of n screens, whatever size they have."""
        return self.encode(replace(screens, size=self.config.screen_size).render())

    def rollout(self, z: Tensor, actions: Tensor) -> Tensor:
        """The latents `[n, N, D]` after a plan `[n, L, 3]` of L steps from others; differentiable.

        L is one action block or several; another length is an `ActionError`.
        """
        block = self.config.action_block
        if actions.ndim != 3 or actions.shape[1] % block or actions.shape[2] != NUM_CHANNELS:
            raise ActionError(
                f"actions must be [n, multiple of {block}, {NUM_CHANNELS}]; found "
                f"{list(actions.shape)}"
            )
        for step in torch.split(actions, block, dim=1):
            z = self.predictor(z[:, None], step[:, None])[:, 0]
        return z

    def save(self, path: Path | str) -> None:
        """Write one file that `torch.load(weights_only=True)` opens, whole or not at all."""
        contents = {
            "format": FORMAT,
            "config": self.config.to_dict(),
            "encoder": {name: value.cpu() for name, value in self.encoder.state_dict().items()},
            "predictor": half_weights(self.predictor),
            "report": self.report,
            "provenance": self.provenance,
        }
        save_atomically(contents, Path(path))

    @classmethod
    def load(cls, path: Path | str) -> "WorldModel":
        """Read a world model, in evaluation mode; `CheckpointError` names file and field."""
        contents = read_model(Path(path), FORMAT, FIELDS, HINT)
        try:
            config = WorldModelConfig.from_dict(contents["config"])
            model = cls(config, encoder_of(config, contents["encoder"]))
            model.predictor.load_state_dict(contents["predictor"])
        except (ConfigError, KeyError, TypeError, RuntimeError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(
                f"{path}: the configuration and the arrays of this world model do not fit "
                f"({reason}); train it again"
            ) from error
        model.report, model.provenance = contents["report"], contents["provenance"]
        return model.eval()


def latent_distance(prediction: Tensor, goal: Tensor, kind: str) -> Tensor:
    """Mean squared (`"mse"`) or absolute (`"l1"`) difference of `[..., N, D]`, as `[...]`."""
    difference = prediction - goal
    return (difference.square() if kind == "mse" else difference.abs()).mean(dim=(-2, -1))


class LatentCost:
    """Cost of candidate plans for B problems: numpy in and out, the plugin's `CostFn`."""

    def __init__(
        self, world_model: WorldModel, state: FloatArray, goal: FloatArray, *,
        rows_per_chunk: int = ROWS_PER_CHUNK,
    ) -> None:  # fmt: skip
        config = world_model.config
        expected = (len(state), config.num_tokens, config.token_dim)
        if state.shape != expected or goal.shape != expected:
            raise ContextError(
                f"state and goal must both be [B, {config.num_tokens}, {config.token_dim}]; found "
                f"{list(state.shape)} and {list(goal.shape)}"
            )
        self.world_model, self.rows_per_chunk = world_model, rows_per_chunk
        self.state, self.goal = self._tensor(state), self._tensor(goal)

    def torch_cost(self, z_start: Tensor, z_goal: Tensor, actions: Tensor) -> Tensor:
        """Differentiable cost `[B, K]`, lower is better, of latents `[B, N, D]` and candidates."""
        if actions.ndim != 4 or len(actions) != len(z_start):
            raise ContextError(
                f"candidates must be [{len(z_start)}, K, L, A], one row a problem; found "
                f"{list(actions.shape)}"
            )
        repeated = (z.repeat_interleave(actions.shape[1], dim=0) for z in (z_start, z_goal))
        rows = (*repeated, actions.flatten(0, 1))
        kind = self.world_model.config.cost_kind
        chunks = zip(*(torch.split(each, self.rows_per_chunk) for each in rows), strict=True)
        costs = [
            latent_distance(self.world_model.rollout(start, chunk), goal, kind)
            for start, goal, chunk in chunks
        ]
        return torch.cat(costs).reshape(actions.shape[:2])

    @torch.inference_mode()
    def __call__(self, candidates: FloatArray, /) -> FloatArray:
        """Cost `[B, K]` of candidates `[B, K, L, 3]`, in the candidates' own precision."""
        cost = self.torch_cost(self.state, self.goal, self._tensor(candidates))
        result: FloatArray = cost.cpu().numpy().astype(candidates.dtype)
        return result

    def _tensor(self, values: FloatArray) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float32, device=self.world_model.device)
