"""`vj2-ddim benchmark encoder`: a denoiser that sees screens through an encoder of others.

The same screens, touches and training, once through the world model's own patches, once through the
backbone of a text detector that was trained on photographs of signs and documents.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vj2_ddim_benchmark.assets import shipped_assets
from vj2_ddim_benchmark.assets.settings import MODEL, NUM_VALIDATIONS, TRAINING, in_steps
from vj2_ddim_benchmark.assets.success import Encoder, success_of
from vj2_ddim_benchmark.environment import environment, use_threads
from vj2_ddim_benchmark.race.folder import RaceFolder
from vj2_ddim_benchmark.report.summary import wilson_interval
from vj2_ddim_benchmark.settings import EncoderStudySettings
from vj2_ddim_benchmark.world.collect import collect_screens
from vj2_ddim_benchmark.world.screen import TouchScreen
from vj2_ddim_benchmark.world_model.encoders import patches_of
from vj2_ddim_benchmark.world_model.model import WorldModel
from vj2_ddim_benchmark.world_model.text_detector import TextDetector
from vj2_ddim_plugin.cli.console import Progress, print_table, progress_bars
from vj2_ddim_plugin.files import sha256_of, write_json
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_training.checkpoint import load_checkpoint
from vj2_ddim_training.config import RunSettings, TrainingConfig
from vj2_ddim_training.data.trajectories import write_trajectories_h5
from vj2_ddim_training.run import train_run
from vj2_ddim_training.validation import SUCCESS

SIZE, FOLD = 256, 2  # pixels; cells along each side of a token
SCREENS_AT_ONCE = 16
NUM_VALIDATION = 200  # trajectories
NUM_VALIDATION_PROBLEMS = 300


class DetectedScreens:
    """Screens to latents `[n, 256, 384]`: 2 x 2 cells of the text detector make a token."""

    def __init__(self, detector: TextDetector) -> None:
        self.detector = detector

    def see(self, screens: TouchScreen) -> FloatArray:
        """The latents `[n, 256, 384]` of n screens."""
        parts = []
        for first in range(0, screens.num_screens, SCREENS_AT_ONCE):
            rows = np.arange(first, min(first + SCREENS_AT_ONCE, screens.num_screens))
            cells = self.detector.see(replace(screens.select(rows), size=SIZE).render())
            parts.append(patches_of(torch.from_numpy(cells), FOLD).numpy())
        return np.concatenate(parts)


def encoder_study(
    folder: Path, settings: EncoderStudySettings, json_file: Path | None = None
) -> dict[str, Any]:
    """Train one denoiser for each encoder, and try both on the same unseen screens."""
    use_threads(settings.threads)
    detector = TextDetector(settings.graph, settings.threads)
    encoders: dict[str, Encoder] = {
        "patches of the world model": WorldModel.load(shipped_assets().world_model),
        "text detector": DetectedScreens(detector),
    }
    asked = {name: str(value) for name, value in settings.to_dict().items() if name != "graph"}
    asked["graph_sha256"] = sha256_of(detector.graph)
    RaceFolder(folder).claim(asked, environment())
    measured: dict[str, Any] = {}
    with progress_bars() as progress:
        for number, (name, encoder) in enumerate(encoders.items()):
            run = _train(folder / f"{number}", encoder, settings, progress)
            best = load_checkpoint(run / "best.pt")
            test = success_of(encoder, settings.num_problems, settings.seed, "test")
            found = {of: value for of, value in test(best.model).items() if of.startswith(SUCCESS)}
            share = found[SUCCESS]
            interval = wilson_interval(round(share * settings.num_problems), settings.num_problems)
            shape = list(best.model.condition.inputs["state"])
            measured[name] = {"latents": shape, **found, "wilson_95": list(interval)}
    own, other = (of[SUCCESS] for of in measured.values())
    summary = {"settings": asked, "encoders": measured, "ratio": other / own if own else None}
    _show(measured)
    write_json(json_file, {**summary, "environment": environment()})
    return summary


def _train(
    folder: Path, encoder: Encoder, settings: EncoderStudySettings, progress: Progress
) -> Path:
    """The run of a denoiser, begun, gone on with, or done before."""
    data, run = folder / "latents", folder / "denoiser"
    if not data.exists():
        _write_latents(data, encoder, settings, progress)
    how = RunSettings(
        data_dir=data,
        val_data_dir=data,
        save_dir=run,
        model=MODEL,
        training=_training(settings),
        displacement_scale=1.0,  # as it was when the study was made
        resume=(run / "checkpoint.pt").exists(),
    )
    told = lambda done, total, line: progress(f"train {folder.name}", done, total)  # noqa: E731
    train_run(how, told, success_of(encoder, NUM_VALIDATION_PROBLEMS))
    return run


def _training(settings: EncoderStudySettings) -> TrainingConfig:
    training = in_steps(TRAINING, settings.steps, settings.num_trajectories)
    return replace(
        training, longest_goal=1, evaluate_every=-(-training.num_epochs // NUM_VALIDATIONS),
        num_threads=settings.threads, seed=settings.seed,
    )  # fmt: skip


def _write_latents(
    folder: Path, encoder: Encoder, settings: EncoderStudySettings, progress: Progress
) -> None:
    """Single touches of training and validation screens, through the encoder."""
    counts = {"train": settings.num_trajectories, "validation": NUM_VALIDATION}
    latents, actions, splits, num = [], [], {}, 0
    for split, count in counts.items():
        how: Mapping[str, Any] = {"scripted_share": 1.0, "near_miss_share": 0.0}
        screens, touches = collect_screens(
            count, horizon=1, split=split, seed=settings.seed + 1, **how
        )
        latents.append(_seen(screens, encoder, progress, f"see {split} {folder.parent.name}"))
        actions.append(touches)
        splits[split] = range(num, num := num + count)
    both = np.concatenate(latents), np.concatenate(actions)
    write_trajectories_h5(folder, *both, splits, layer_normed=False)


def _seen(
    screens: list[TouchScreen], encoder: Encoder, progress: Progress, phase: str
) -> np.ndarray:
    """Latents float16 `[n, T, N, D]` of screens `[T]` of n each."""
    num, steps, parts = screens[0].num_screens, len(screens), []
    for first in range(0, num, 256):
        rows = np.arange(first, min(first + 256, num))
        seen = [encoder.see(each.select(rows)).astype(np.float16) for each in screens]
        parts.append(np.stack(seen, axis=1))
        progress(phase, len(rows) + first, num)
    return np.concatenate(parts).reshape(num, steps, *parts[0].shape[2:])


def _show(measured: Mapping[str, Any]) -> None:
    rows = [
        (
            name,
            " x ".join(map(str, of["latents"])),
            f"{100 * of[SUCCESS]:.1f}",
            " to ".join(f"{100 * end:.0f}" for end in of["wilson_95"]),
            f"{100 * of[f'{SUCCESS}_multimodal']:.1f}",
        )
        for name, of in measured.items()
    ]
    headings = ("encoder", "latents", "success %", "95 %", "multimodal")
    print_table(rows, headings, title="one sample, unseen screens", numbers=True)
