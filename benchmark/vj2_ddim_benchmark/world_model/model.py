"""`WorldModel`: encoder, predictor and their record, in one file on disk."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vj2_ddim_benchmark.half_precision import half_weights
from vj2_ddim_benchmark.world.collect import Transitions
from vj2_ddim_benchmark.world_model.config import WorldModelConfig
from vj2_ddim_benchmark.world_model.encoder import PatchEncoder
from vj2_ddim_benchmark.world_model.predictor import NUM_CHANNELS, Predictor
from vj2_ddim_plugin.errors import ActionError, CheckpointError, ConfigError
from vj2_ddim_training.loop import save_atomically

__all__ = ["WorldModel", "embed_transitions"]

FORMAT = "vj2-ddim touch screen world model 2"
FIELDS = ("config", "encoder", "predictor", "report", "provenance")


class WorldModel(nn.Module):
    """A frozen encoder and a learned predictor of what a touch does to the encoded screen.

    Attributes:
        config: How it was made.
        encoder: Frames to latents.
        predictor: Latents and action blocks to the next latents.
        report: How good it is, as `report.py` measured it; empty before that.
        provenance: Versions, data and training time.
    """

    def __init__(
        self,
        config: WorldModelConfig,
        encoder: PatchEncoder,
        predictor: Predictor,
        *,
        report: Mapping[str, Any] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.config, self.encoder, self.predictor = config, encoder, predictor
        self.report, self.provenance = dict(report or {}), dict(provenance or {})

    @classmethod
    def create(cls, config: WorldModelConfig, encoder: PatchEncoder) -> WorldModel:
        """A world model with an untrained predictor, its weights drawn from torch's generator."""
        predictor = Predictor(config)
        predictor.glimpse.see_colours(encoder)
        return cls(config, encoder, predictor)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.predictor.position.device

    def encode(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Frames uint8 `[..., H, W, 3]` to latents float32 `[..., N, D]`."""
        return self.encoder.encode(frames)

    def rollout(self, z: Tensor, actions: Tensor) -> Tensor:
        """The latents after a plan of one or more action blocks; differentiable.

        Args:
            z: Latents `[n, N, D]` before it.
            actions: `[n, L, 3]`, L a multiple of the action block.

        Raises:
            ActionError: L is not a multiple of the action block, or the channels are not 3.
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
        """Write one file that `torch.load(weights_only=True)` opens, whole or not at all.

        The predictor's weights are written in half precision; training has rounded them.
        """
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
    def load(cls, path: Path | str, *, device: str = "cpu") -> WorldModel:
        """Read a world model, in evaluation mode.

        Raises:
            CheckpointError: The file is missing, broken or of another kind; the message names the
                file and the field.
        """
        contents = _read(Path(path))
        try:
            config = WorldModelConfig.from_dict(contents["config"])
            mean, projection = (contents["encoder"][name] for name in ("mean", "projection"))
            encoder = PatchEncoder(
                mean, projection, patch_size=config.patch_size, layer_norm=config.layer_norm
            )
            model = cls.create(config, encoder)
            model.predictor.load_state_dict(contents["predictor"])
        except (ConfigError, KeyError, TypeError, RuntimeError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(
                f"{path}: the configuration and the arrays of this world model do not fit "
                f"({reason}); train it again"
            ) from error
        model.report, model.provenance = contents["report"], contents["provenance"]
        return model.to(device).eval()


def embed_transitions(
    world_model: WorldModel, transitions: Transitions
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A denoiser's data: latents float32 `[n, T, N, D]` and actions float32 `[n, T-1, 250, 3]`."""
    return world_model.encode(transitions.frames), transitions.actions


def _read(path: Path) -> dict[str, Any]:
    try:
        contents: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path}: no such file; train one with `vj2-ddim benchmark world train`"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path}: not a file torch can open ({error})") from error
    found = contents.get("format") if type(contents) is dict else type(contents).__name__
    if found != FORMAT:
        raise CheckpointError(f"{path}: found format {found!r}, expected {FORMAT!r}")
    for name in FIELDS:
        if not isinstance(contents.get(name), dict):
            raise CheckpointError(f"{path}: the field {name!r} is missing; train the model again")
    return contents
