"""The host's LeWM, put together small: its own classes, a small encoder, and how it is stored."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vj2_ddim_benchmark.two_room.host import import_host
from vj2_ddim_benchmark.two_room.vit import SmallViT
from vj2_ddim_plugin.files import atomic_path
from vj2_ddim_plugin.interface import FloatArray

__all__ = ["LeWMConfig", "WorldModel", "build_lewm", "encode_images", "image_transform"]
__all__ += ["load_lewm", "save_lewm"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class LeWMConfig:
    """Sizes of a LeWM.

    Attributes:
        image_size: Side of the square images.
        patch_size: Side of the encoder's patches.
        width: Width of encoder and predictor.
        encoder_depth: Layers of the encoder.
        predictor_depth: Layers of the predictor.
        num_heads: Attention heads.
        embedding_width: D, width of a latent.
        projection_width: Width inside the two projections.
        num_frames: Frames that the predictor looks back on.
        action_block: Environment steps in one step of the world model.
        action_width: Channels of one environment action.
    """

    image_size: int = 64
    patch_size: int = 16
    width: int = 64
    encoder_depth: int = 3
    predictor_depth: int = 2
    num_heads: int = 4
    embedding_width: int = 32
    projection_width: int = 256
    num_frames: int = 3
    action_block: int = 5
    action_width: int = 2


@dataclass(frozen=True)
class WorldModel:
    """A trained LeWM and the normalization that goes with it.

    Attributes:
        model: The host's `LeWM`.
        config: Its sizes.
        action_mean: `[A]`, of the environment's actions.
        action_std: `[A]`, the unit of a normalized action.
    """

    model: Any
    config: LeWMConfig
    action_mean: FloatArray
    action_std: FloatArray

    def action_scaler(self) -> Any:  # noqa: ANN401
        """The host's `ZScoreScaler`, between the environment's actions and normalized ones."""
        return import_host().data.ZScoreScaler(mean=self.action_mean, std=self.action_std)


def build_lewm(config: LeWMConfig) -> Any:  # noqa: ANN401
    """The host's `LeWM` with its own predictor, action encoder and projections.

    Raises:
        ConfigError: The host is not installed.
    """
    host, parts = import_host("wm.lewm.lewm"), import_host("wm.lewm.module")
    hidden, latent = config.width, config.embedding_width

    def projection() -> nn.Module:
        made: nn.Module = parts.MLP(
            input_dim=hidden,
            hidden_dim=config.projection_width,
            output_dim=latent,
            norm_fn=nn.BatchNorm1d,
        )
        return made

    return host.LeWM(
        encoder=SmallViT(
            config.image_size, config.patch_size, hidden, config.encoder_depth, config.num_heads
        ),
        predictor=parts.Predictor(
            num_frames=config.num_frames,
            depth=config.predictor_depth,
            heads=config.num_heads,
            dim_head=hidden // config.num_heads,
            mlp_dim=2 * hidden,
            input_dim=latent,
            hidden_dim=hidden,
            output_dim=hidden,
        ),
        action_encoder=parts.Embedder(
            input_dim=config.action_block * config.action_width, emb_dim=latent
        ),
        projector=projection(),
        pred_proj=projection(),
    )


def image_transform() -> Any:  # noqa: ANN401
    """The transform of pixels and goals, of the host's evaluation script: `[3, H, W]`, floats."""
    import_host()
    from torchvision.transforms import v2

    return v2.Compose(
        [
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean=list(IMAGENET_MEAN), std=list(IMAGENET_STD)),
        ]
    )


def encode_images(world_model: WorldModel, images: Tensor, batch_size: int = 256) -> FloatArray:
    """Latents `[n, D]` of raw images `[n, 3, H, W]`."""
    transform, found = image_transform(), []
    with torch.inference_mode():
        for start in range(0, len(images), batch_size):
            pixels = transform(images[start : start + batch_size])
            found.append(world_model.model.encode({"pixels": pixels[:, None]})["emb"][:, 0])
    return np.asarray(torch.cat(found).numpy())


def save_lewm(world_model: WorldModel, path: Path) -> None:
    """Write weights, sizes and normalization; `torch.load(weights_only=True)` opens the file."""
    everything = {
        "config": asdict(world_model.config),
        "weights": world_model.model.state_dict(),
        "action_mean": torch.as_tensor(world_model.action_mean),
        "action_std": torch.as_tensor(world_model.action_std),
    }
    with atomic_path(path) as temporary:
        torch.save(everything, temporary)


def load_lewm(path: Path) -> WorldModel:
    """The inverse of `save_lewm`, in evaluation mode and without gradients of the weights."""
    stored = torch.load(path, weights_only=True)
    config = LeWMConfig(**stored["config"])
    model = build_lewm(config)
    model.load_state_dict(stored["weights"])
    model.eval().requires_grad_(False)
    return WorldModel(model, config, stored["action_mean"].numpy(), stored["action_std"].numpy())
