"""`vj2-ddim benchmark recreation`: gestures recreated by chance, by a small VAE, by denoisers.

Protocols: `denoise@f`, from the gesture noised to the timestep f * T of the linear betas, in its
own units; `conditional`, from noise and the gesture's sketch. All are measured after projection
onto valid gestures, gesture by gesture, as mean and standard deviation.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vj2_ddim_benchmark.environment import environment, use_threads
from vj2_ddim_benchmark.settings import RecreationSettings
from vj2_ddim_benchmark.training_cost import (
    NUM_STEPS,
    OURS,
    V_PREDICTION,
    data_folders,
    denoiser_loop,
    model_of,
    open_raw,
)
from vj2_ddim_plugin.cli.console import print_table
from vj2_ddim_plugin.ddim import add_noise
from vj2_ddim_plugin.files import write_json
from vj2_ddim_plugin.gestures import decode, project
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.schedule import ORIGINAL_SCHEDULE, NoiseSchedule, signal_and_noise
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.config import ModelConfig, TrainingConfig
from vj2_ddim_training.evaluation import recreate_from, sample_under
from vj2_ddim_training.examples import Batch, GestureExamples
from vj2_ddim_training.gestures import sketch_of
from vj2_ddim_training.learning_rate import warmup_cosine
from vj2_ddim_training.loop import ShuffledTask, TrainingLoop, name_rows
from vj2_ddim_training.measures import recreation_measures
from vj2_ddim_training.survey import infer_action_spec

SHARES = (0.25, 0.5)
MEASURES = ("mse", "mean_snr_db", "press_accuracy", "temporal_iou", "gesture_type_accuracy")
LATENT, WIDTH = 16, 256
KL_WEIGHTS = {"noise": 1e-5, "sketch": 0.1}  # a sketch says all: the latent is to say nothing
VAE_BATCH, VAE_LR, CLIP_NORM = 64, 1e-3, 1.0
SKETCH_TRAINING: dict[str, Any] = {"lr": 2e-3, "batch_size": 64, "ema_decay": 0.99}

Recreated = tuple[str, str, FloatArray]  # protocol, by whom, actions


class GestureVAE(nn.Module):
    """A variational autoencoder (Kingma & Welling 2014) of sequences, given what it is told.

    That is how far the sequence was noised, or its sketch; with a sketch it sees nothing else when
    it recreates, as a conditional VAE does (Sohn et al. 2015).
    """

    def __init__(self, size: int, num_told: int) -> None:
        super().__init__()
        self.encoder = _layers(size + num_told, 2 * LATENT)
        self.decoder = _layers(LATENT + num_told, size)

    def forward(self, seen: Tensor, told: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The recreation, and the KL divergence in nats, a row each."""
        mean, log_var = self.encoder(torch.cat([seen, told], dim=1)).chunk(2, dim=1)
        latent = mean + noise * (0.5 * log_var).exp()
        divergence = 0.5 * (mean**2 + log_var.exp() - 1.0 - log_var).sum(dim=1)
        return self.decoder(torch.cat([latent, told], dim=1)), divergence


def _layers(wide: int, narrow: int) -> nn.Sequential:
    inner = nn.Linear(wide, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH), nn.GELU()
    return nn.Sequential(*inner, nn.Linear(WIDTH, narrow))


class VAETask(ShuffledTask):
    """Squared error and KL divergence of noised sequences, or of clean ones with their sketch."""

    def __init__(
        self, actions: FloatArray, sketch: FloatArray | None, epochs: int, seed: int
    ) -> None:
        super().__init__(len(actions), 1.0, VAE_BATCH, epochs, seed)
        self.actions, self.sketch = torch.from_numpy(actions).flatten(1), sketch
        torch.manual_seed(seed)
        self.model = GestureVAE(self.actions.shape[1], 1 if sketch is None else sketch.shape[1])
        self._alphas = torch.as_tensor(ORIGINAL_SCHEDULE.alphas_cumprod, dtype=torch.float32)

    def loss(self, step: int) -> Tensor:
        """The loss of one step."""
        seed = np.random.SeedSequence((self._seed, step)).generate_state(1)
        random = torch.Generator().manual_seed(int(seed[0]))
        rows = self.rows(step)
        original = seen = self.actions[rows]
        if self.sketch is None:
            timesteps = torch.randint(len(self._alphas), (len(rows), 1), generator=random)
            signal, spread = signal_and_noise(self._alphas[timesteps])
            seen = signal * seen + spread * torch.randn(seen.shape, generator=random)
            told = timesteps / len(self._alphas)
        else:
            told = torch.from_numpy(self.sketch[rows])
        noise = torch.randn((len(rows), LATENT), generator=random)
        recreated, divergence = self.model(seen, told, noise)
        weight = KL_WEIGHTS["noise" if self.sketch is None else "sketch"]
        loss: Tensor = functional.mse_loss(recreated, original) + weight * divergence.mean()
        return loss

    def batch_name(self, step: int) -> str:
        """The gestures of a step."""
        return name_rows(self.rows(step))


def train_vae(actions: FloatArray, sketch: FloatArray | None, epochs: int, seed: int) -> GestureVAE:
    """Told of the noise without a sketch, else of the sketch."""
    task = VAETask(actions, sketch, epochs, seed)
    adam = torch.optim.AdamW(task.model.parameters(), lr=VAE_LR)
    rate = torch.optim.lr_scheduler.LambdaLR(adam, warmup_cosine(task.total_steps, 0.02))
    TrainingLoop(task, adam, rate, clip_norm=CLIP_NORM).run()
    return task.model.eval()


def recreation(settings: RecreationSettings, json_file: Path | None) -> None:
    """Train, measure, print, write."""
    use_threads(settings.threads)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        train, validation = data_folders(settings, Path(scratch))
        seen = open_raw(train, settings.num_sequences)
        held_out = open_raw(validation, settings.num_validation)
        batch = held_out.batch(np.arange(len(held_out)))
    spec = seen.action_spec
    rows, measured = [], {}
    for protocol, name, actions in _recreations(settings, seen, batch):
        pairs = zip(batch.actions, project(actions, spec), strict=True)
        each = [recreation_measures(one[None], other[None], spec) for one, other in pairs]
        found = {key: [of[key] for of in each] for key in MEASURES}
        both = {key: (float(np.nanmean(of)), float(np.nanstd(of))) for key, of in found.items()}
        spread = {key: {"mean": mean, "std": std} for key, (mean, std) in both.items()}
        measured[f"{protocol} {name}"] = spread
        rows.append((protocol, name, *(f"{mean:.3g} ± {std:.2g}" for mean, std in both.values())))
    print_table(rows, ("protocol", "by", *MEASURES), numbers=True)
    taken = {"wall_s": time.perf_counter() - begun, "environment": environment()}
    write_json(json_file, {"measures": measured, "settings": vars(settings), **taken})


def _recreations(
    settings: RecreationSettings, seen: GestureExamples, batch: Batch
) -> Iterator[Recreated]:
    """Who recreates the batch under which protocol, and what came out."""
    rng, shape = np.random.default_rng(settings.seed), batch.actions.shape
    chance: dict[str, Callable[[], FloatArray]] = {
        "noise": lambda: rng.standard_normal(shape, np.float32),
        "random gesture": lambda: seen.actions[rng.integers(len(seen), size=len(batch.actions))],
    }
    for name, draw in chance.items():
        yield "any", name, draw()
    yield from _denoised(settings, seen, batch)
    yield from _told(settings, seen.actions, batch.actions, seen.action_spec)


def _denoised(
    settings: RecreationSettings, seen: GestureExamples, batch: Batch
) -> Iterator[Recreated]:
    """`denoise@f` by the VAE and by denoisers, of the same noised gestures."""
    epochs, seed = settings.num_epochs, settings.seed
    vae = train_vae(seen.actions, None, settings.vae_epochs, seed)
    for share in SHARES:
        timestep = int(share * ORIGINAL_SCHEDULE.num_train_timesteps)
        noise = np.random.default_rng(seed).standard_normal(batch.original.shape, np.float32)
        noisy = torch.from_numpy(add_noise(batch.original, noise, timestep, ORIGINAL_SCHEDULE))
        told = torch.full((len(noisy), 1), share)
        yield f"denoise@{share}", "VAE", _decoded(vae, noisy.flatten(1).float(), told, noise.shape)
    for name, schedule in (("minimal, tuned", ORIGINAL_SCHEDULE), ("dit", V_PREDICTION)):
        size, changes = OURS[name]
        config = TrainingConfig(**{"num_epochs": epochs, "seed": seed, **changes})
        loop = denoiser_loop(size, schedule, config, seen)
        loop.run()
        for share in SHARES:
            found = recreate_from(model_of(loop), batch, share, NUM_STEPS, seed)
            yield f"denoise@{share}", name, decode(found, seen.action_spec)


def _told(
    settings: RecreationSettings, seen: FloatArray, asked: FloatArray, raw: ActionSpec
) -> Iterator[Recreated]:
    """`conditional` by the VAE, and by the default denoiser in the representation that fits."""
    sketch, seed = sketch_of(asked, raw), settings.seed
    vae = train_vae(seen, sketch_of(seen, raw), settings.vae_epochs, seed)
    nothing = torch.zeros(len(asked), asked[0].size)
    yield "conditional", "VAE", _decoded(vae, nothing, torch.from_numpy(sketch), asked.shape)
    everything = np.concatenate([seen, asked])  # a representation must hold all
    spec = infer_action_spec(everything, "auto", replace(raw, normalized=True))
    examples = GestureExamples(seen, spec, "sketch", "")
    size = ModelConfig(patch_size=2 if spec.representation == "path" else 10)
    how: Any = {"num_epochs": settings.sketch_epochs, "seed": seed, **SKETCH_TRAINING}
    config = TrainingConfig(**how)
    loop = denoiser_loop(size, NoiseSchedule(), config, examples)
    loop.run()
    noise = np.random.default_rng(seed).standard_normal((len(asked), *spec.diffused_shape))
    batch = Batch(asked, noise, {"sketch": sketch})
    found = sample_under(model_of(loop), batch, noise.astype(np.float32), NUM_STEPS, True)
    yield "conditional", "dit", decode(found, spec)


@torch.inference_mode()
def _decoded(vae: GestureVAE, noisy: Tensor, told: Tensor, shape: tuple[int, ...]) -> FloatArray:
    """By the latent's mean: of the noised gesture, or, with a sketch, of the prior."""
    if told.shape[1] > 1:
        actions = vae.decoder(torch.cat([torch.zeros(len(told), LATENT), told], dim=1))
    else:
        actions, _ = vae(noisy, told, torch.zeros(len(told), LATENT))
    found: FloatArray = actions.reshape(shape).numpy()
    return found
