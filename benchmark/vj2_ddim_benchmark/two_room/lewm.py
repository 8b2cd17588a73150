"""The host's LeWM, put together small of its own classes: sizes, training, file, and error."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor, nn

from vj2_ddim_benchmark.two_room import import_stable_worldmodel
from vj2_ddim_benchmark.two_room.episodes import Episodes
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.settings import Settings, setting
from vj2_ddim_training.denoisers.dit import TransformerLayer
from vj2_ddim_training.loop import StatelessTask, TrainingLoop, name_rows
from vj2_ddim_training.resumable import run_resumably
from vj2_ddim_training.saved import open_saved, save_atomically
from vj2_ddim_training.survey import usable_std

Report = Callable[[str], None]
IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@dataclass(frozen=True)
class LeWMConfig(Settings):
    """Sizes of a LeWM."""

    image_size: int = setting(64, "Side of the square images.", low=1)
    patch_size: int = setting(16, "Side of the encoder's patches; must divide the image.", low=1)
    width: int = setting(64, "Width of encoder and predictor.", low=1)
    encoder_depth: int = setting(3, "Layers of the encoder.", low=1)
    predictor_depth: int = setting(2, "Layers of the predictor.", low=1)
    num_heads: int = setting(4, "Attention heads; must divide the width.", low=1)
    embedding_width: int = setting(16, "D, width of a latent.", low=1)
    projection_width: int = setting(256, "Width inside the two projections.", low=1)
    num_frames: int = setting(3, "Frames that the predictor looks back on.", low=1)
    action_block: int = setting(5, "Environment steps in one of the world model.", low=1)
    action_width: int = setting(2, "Channels of one environment action.", low=1)


@dataclass(frozen=True)
class LeWMTraining(Settings):
    """How a LeWM is trained: AdamW, warm-up, then cosine decay to 0."""

    num_steps: int = setting(1200, "Optimizer steps.", low=1)
    batch_size: int = setting(64, "Windows in one step.", low=1)
    lr: float = setting(1e-3, "Peak learning rate.", above=0)
    weight_decay: float = setting(1e-3, "AdamW's.", low=0)
    regularizer_weight: float = setting(0.02, "Weight of SIGReg; the host's is 0.09.", low=0)
    num_projections: int = setting(256, "Directions that SIGReg looks along in a step.", low=1)
    beyond: float = setting(0.5, "How far past its bound an action at it is shown, mean.", low=0)
    seed: int = setting(0, "Of weights and batches.", low=0)


@dataclass(frozen=True)
class WorldModel:
    """A trained LeWM and the normalization that goes with it."""

    model: Any  # the host's `LeWM`
    config: LeWMConfig
    action_mean: FloatArray  # [A], of the environment's actions
    action_std: FloatArray  # [A], the unit of a normalized action

    def action_scaler(self) -> Any:  # noqa: ANN401
        """The host's `ZScoreScaler`, between the environment's actions and normalized ones."""
        data = import_stable_worldmodel().data
        return data.ZScoreScaler(mean=self.action_mean, std=self.action_std)

    def normalized(self, actions: FloatArray | float) -> FloatArray:
        """The environment's actions, or a bound of all `[A]`, in the world model's units."""
        return np.asarray((actions - self.action_mean) / self.action_std)


class _SmallViT(nn.Module):
    """In place of the host's ViT from `transformers`; LeWM reads token 0 of its last state."""

    def __init__(self, config: LeWMConfig) -> None:
        super().__init__()
        width, patch_size = config.width, config.patch_size
        patches = (config.image_size // patch_size) ** 2
        self.embed = nn.Conv2d(3, width, patch_size, stride=patch_size)
        self.class_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.position = nn.Parameter(0.5 * torch.randn(1, 1 + patches, width))
        self.layers = nn.ModuleList(
            TransformerLayer(width, config.num_heads) for _ in range(config.encoder_depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, pixels: Tensor, interpolate_pos_encoding: bool = False) -> SimpleNamespace:
        """`[B, 3, H, W]` to `[B, 1 + patches, width]`; of the trained size, never interpolated."""
        patches = self.embed(pixels).flatten(2).transpose(1, 2)
        first = self.class_token.expand(len(patches), -1, -1)
        tokens = torch.cat([first, patches], dim=1) + self.position
        for layer in self.layers:
            tokens = layer(tokens)
        return SimpleNamespace(last_hidden_state=self.norm(tokens))


def build_lewm(config: LeWMConfig) -> Any:  # noqa: ANN401
    """The host's `LeWM` with its own predictor, action encoder and projections."""
    parts, lewm = map(import_stable_worldmodel, ("wm.lewm.module", "wm.lewm.lewm"))
    hidden, latent, heads = config.width, config.embedding_width, config.num_heads
    frames = {"num_frames": config.num_frames, "depth": config.predictor_depth}
    attention = {"heads": heads, "dim_head": hidden // heads, "mlp_dim": 2 * hidden}
    widths = {"input_dim": latent, "hidden_dim": hidden, "output_dim": hidden}
    num_actions = config.action_block * config.action_width

    def projection() -> Any:  # noqa: ANN401
        return parts.MLP(hidden, config.projection_width, latent, norm_fn=nn.BatchNorm1d)

    return lewm.LeWM(
        encoder=_SmallViT(config),
        predictor=parts.Predictor(**frames, **attention, **widths),
        action_encoder=parts.Embedder(input_dim=num_actions, emb_dim=latent),
        projector=projection(),
        pred_proj=projection(),
    )


def image_transform() -> Any:  # noqa: ANN401
    """The transform of pixels and goals, of the host's evaluation script: `[3, H, W]`, floats."""
    import_stable_worldmodel()
    from torchvision.transforms import v2

    to_float = v2.ToDtype(torch.float32, scale=True)
    return v2.Compose([v2.ToImage(), to_float, v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)])


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
        "config": world_model.config.to_dict(),
        "weights": world_model.model.state_dict(),
        "action_mean": torch.as_tensor(world_model.action_mean),
        "action_std": torch.as_tensor(world_model.action_std),
    }
    save_atomically(everything, path)


def load_lewm(path: Path) -> WorldModel:
    """The inverse of `save_lewm`, in evaluation mode and without gradients of the weights."""
    stored = open_saved(path, "LeWM", "`vj2-ddim benchmark two-room` trains one")
    config = LeWMConfig.from_dict(stored["config"])
    model = build_lewm(config)
    model.load_state_dict(stored["weights"])
    model.eval().requires_grad_(False)
    return WorldModel(model, config, stored["action_mean"].numpy(), stored["action_std"].numpy())


class _NextLatent(StatelessTask):
    """LeWM's training task: the next latent, and its Gaussian regularizer SIGReg.

    The environment clips actions and so are the recorded ones, but solvers ask about others too. So
    that it knows what those do, actions at a bound are shown as ones past it, which move the same.
    """

    def __init__(self, episodes: Episodes, config: LeWMConfig, training: LeWMTraining) -> None:
        torch.manual_seed(training.seed)
        self.rng = np.random.default_rng(training.seed)
        self.model = build_lewm(config)
        losses = import_stable_worldmodel("wm.loss")
        self.regularizer = losses.SIGReg(num_proj=training.num_projections)
        self.episodes, self.config, self.training = episodes, config, training
        self.total_steps = training.num_steps
        self.steps_per_epoch = math.gcd(training.num_steps, 100)  # the state is kept after each
        self.mean = episodes.actions.mean(axis=0)
        self.std = usable_std(episodes.actions.std(axis=0), self.mean)
        self.windows = episodes.windows(config.num_frames * config.action_block + 1)
        self.transform = image_transform()
        self.last: dict[str, float] = {}

    def loss(self, step: int) -> Tensor:
        """Squared error of the predicted latents, and SIGReg of all latents."""
        self.rows = self.rng.choice(self.windows, self.training.batch_size)
        frames, blocks = self._batch(self.rows)
        pixels = self.transform(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
        output = self.model.encode({"pixels": pixels, "action": blocks})
        latents, acted = output["emb"], output["act_emb"]
        predicted = self.model.predict(latents[:, :-1], acted[:, :-1])
        prediction: Tensor = (predicted - latents[:, 1:]).square().mean()
        spread: Tensor = self.regularizer(latents.transpose(0, 1))
        self.last = {"prediction": float(prediction.detach()), "sigreg": float(spread.detach())}
        return prediction + self.training.regularizer_weight * spread

    def batch_name(self, step: int) -> str:
        """The latest batch, by the first step of each window."""
        return name_rows(self.rows, "windows")

    def _batch(self, first: np.ndarray) -> tuple[Tensor, Tensor]:
        """Frames `[B, T, 3, H, W]` and action blocks `[B, T, block * A]`; the last is unused."""
        block, frames = self.config.action_block, self.config.num_frames + 1
        at = first[:, None] + block * np.arange(frames)
        within = np.minimum(at[..., None] + np.arange(block), len(self.episodes.actions) - 1)
        actions = self.episodes.actions[within]
        further = 1 + self.rng.exponential(self.training.beyond, actions.shape)
        actions = (np.where(abs(actions) < 1, actions, further * actions) - self.mean) / self.std
        blocks = torch.from_numpy(actions.astype(np.float32).reshape(len(first), frames, -1))
        return self.episodes.images[torch.from_numpy(at)], blocks

    def state_dict(self) -> dict[str, Any]:
        """Both generators: of the batches, and of SIGReg's directions."""
        return {"rng": self.rng.bit_generator.state, "torch_rng": torch.get_rng_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.rng.bit_generator.state = state["rng"]
        torch.set_rng_state(state["torch_rng"])


def train_lewm(
    episodes: Episodes, config: LeWMConfig, training: LeWMTraining, file: Path | None = None,
    report: Report = lambda line: None,
) -> WorldModel:  # fmt: skip
    """A trained LeWM in evaluation mode; `file` keeps the state of a training cut short."""
    task = _NextLatent(episodes, config, training)
    optimizer = torch.optim.AdamW(
        task.model.parameters(), lr=training.lr, weight_decay=training.weight_decay
    )
    learning_rate = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, training.lr, total_steps=training.num_steps, pct_start=0.05
    )

    def line(done: int, total: int, loss: str) -> None:
        if (done - 1) % 100 == 0:
            losses = ", ".join(f"{name} {value:.3f}" for name, value in task.last.items())
            report(f"LeWM, step {done - 1} of {total}: {losses}")

    loop = TrainingLoop(task, optimizer, learning_rate, clip_norm=1.0, progress=line)
    run_resumably(loop, file, {"lewm": config.to_dict(), "training": training.to_dict()})
    task.model.eval().requires_grad_(False)
    return WorldModel(task.model, config, task.mean, task.std)


def prediction_error(
    world_model: WorldModel, known: Episodes, held_out: Episodes, num_blocks: int, num: int = 500
) -> dict[str, list[float]]:
    """How far the agent is predicted from where it went, in pixels, after 1 to H steps.

    A predicted latent is where its nearest known image was. Of `num` windows of the held-out
    episodes: medians of `moved`, how far the agent went, and of `error`; its 90th percentile.
    """
    block, positions = world_model.config.action_block, held_out.positions
    tree = cKDTree(encode_images(world_model, known.images))
    windows = held_out.windows(num_blocks * block)
    first = np.random.default_rng(0).choice(windows, min(num, len(windows)), replace=False)
    went = positions[first[:, None] + block * np.arange(1, num_blocks + 1)]
    found = known.positions[tree.query(_rollout(world_model, held_out, first, num_blocks))[1]]
    moved, error = (np.linalg.norm(at - went, axis=-1) for at in (positions[first][:, None], found))
    return {
        "moved": np.median(moved, axis=0).tolist(),
        "error": np.median(error, axis=0).tolist(),
        "error_p90": np.quantile(error, 0.9, axis=0).tolist(),
    }


def _rollout(
    world_model: WorldModel, episodes: Episodes, first: np.ndarray, num_blocks: int
) -> FloatArray:
    """The latents `[n, H, D]` that are predicted from the first images on."""
    within = first[:, None] + np.arange(num_blocks * world_model.config.action_block)
    actions = world_model.normalized(episodes.actions[within]).astype(np.float32)
    blocks = torch.from_numpy(actions).reshape(len(first), 1, num_blocks, -1)
    start = torch.from_numpy(encode_images(world_model, episodes.images[torch.from_numpy(first)]))
    info = {"pixels": torch.zeros(len(first), 1, 1), "emb": start[:, None, None]}
    with torch.inference_mode():
        latents = world_model.model.rollout(info, blocks)["predicted_emb"]
    return np.asarray(latents[:, 0, 1:].numpy())
