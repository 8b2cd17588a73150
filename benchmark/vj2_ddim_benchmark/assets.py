"""The trained parts of a benchmark, made in order; a part whose file is there is not made again.

```
RUN/assets/
├── world_model.pt    the encoder and predictor that every planner plans through
├── latents/          transitions of training and validation screens, embedded (HDF5)
├── denoiser/         the training run of the conditional denoiser
└── bundle/           its export
```
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from vj2_ddim_benchmark.world.collect import collect_transitions
from vj2_ddim_benchmark.world_model.config import WorldModelConfig
from vj2_ddim_benchmark.world_model.embed import embed_transitions
from vj2_ddim_benchmark.world_model.model import WorldModel
from vj2_ddim_benchmark.world_model.train import Progress, train_world_model
from vj2_ddim_export.export import export_bundle
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_training.config import ModelConfig, TrainingConfig
from vj2_ddim_training.data.trajectories import write_trajectories_h5
from vj2_ddim_training.run import RunSettings, train_run

__all__ = ["AssetSettings", "Assets", "build_assets"]


@dataclass(frozen=True)
class Assets:
    """Where the trained parts are."""

    world_model_path: Path
    bundle_path: Path


@dataclass(frozen=True)
class AssetSettings:
    """How much of everything.

    Attributes:
        world_model: The world model's own settings.
        num_trajectories: Trajectories that the denoiser is trained on.
        num_validation_trajectories: Trajectories it is validated on.
        scripted_share: Share of gestures aimed at a widget; the rest is random.
        model: The denoiser.
        training: How it is trained.
        seed: Of the denoiser's data; the other parts hold their own.
    """

    world_model: WorldModelConfig
    num_trajectories: int
    num_validation_trajectories: int
    scripted_share: float
    model: ModelConfig
    training: TrainingConfig
    seed: int = 1

    @classmethod
    def full(cls) -> AssetSettings:
        """What the recorded figures were measured with."""
        return cls(
            world_model=WorldModelConfig(),
            num_trajectories=8000,
            num_validation_trajectories=200,
            scripted_share=0.95,
            model=ModelConfig(
                d_model=96, num_layers=3, condition="latents", condition_layers=1,
                condition_tokens=16,
            ),
            training=TrainingConfig(
                num_epochs=6, batch_size=128, lr=1e-3, condition_dropout=0.1,
                noises_per_example=4, evaluate_every=2, wandb_mode="disabled",
            ),
        )  # fmt: skip

    @classmethod
    def quick(cls) -> AssetSettings:
        """Minutes rather than tens of minutes: for the demonstration."""
        full = cls.full()
        return replace(
            full,
            world_model=WorldModelConfig.quick(),
            num_trajectories=2500,
            num_validation_trajectories=50,
            training=replace(full.training, num_epochs=5, evaluate_every=5),
        )


def build_assets(
    run_dir: Path, quick: bool = False, progress: Progress | None = None, threads: int | None = None
) -> Assets:
    """Collect, train, and export whatever is not there yet.

    Args:
        run_dir: The benchmark's folder; everything goes into `assets` inside it.
        quick: Use the quick settings.
        progress: Told about every step of every phase.
        threads: Torch's threads; None leaves its choice.

    Returns:
        The paths of the world model and of the bundle.
    """
    told = progress or (lambda phase, done, total: None)
    settings = AssetSettings.quick() if quick else AssetSettings.full()
    folder = run_dir / "assets"
    folder.mkdir(parents=True, exist_ok=True)
    paths = Assets(folder / "world_model.pt", folder / "bundle")
    if not paths.world_model_path.exists():
        train_world_model(settings.world_model, paths.world_model_path, told)
    latents = folder / "latents"
    if not latents.exists():
        _write_latents(WorldModel.load(paths.world_model_path), settings, latents, told)
    if not paths.bundle_path.exists():
        run = folder / "denoiser"
        train_run(
            RunSettings(
                data_dir=latents,
                val_data_dir=latents,
                save_dir=run,
                model=settings.model,
                training=replace(settings.training, num_threads=threads),
                schedule=NoiseSchedule(
                    beta_schedule="cosine",
                    prediction_type="v_prediction",
                    timestep_spacing="trailing",
                ),
                resume=(run / "checkpoint.pt").exists(),
            ),
            progress=lambda done, total, line: told("train the denoiser", done, total),
        )
        export_bundle(run / "checkpoint.pt", paths.bundle_path)
    return paths


def _write_latents(
    world_model: WorldModel, settings: AssetSettings, folder: Path, progress: Progress
) -> None:
    """Collect transitions on training and validation screens, and embed them."""
    horizon = settings.world_model.horizon
    embeddings, actions, splits = [], [], {}
    first = 0
    for split, count in (
        ("train", settings.num_trajectories),
        ("validation", settings.num_validation_trajectories),
    ):
        collected = [0]

        def told(added: int, total: int = count * horizon, seen: list[int] = collected) -> None:
            seen[0] += added
            progress("collect for the denoiser", seen[0], total)

        transitions = collect_transitions(
            count,
            horizon=horizon,
            split=split,
            seed=settings.seed,
            scripted_share=settings.scripted_share,
            size=settings.world_model.screen_size,
            progress=told,
        )
        latents, blocks = embed_transitions(world_model, transitions)
        embeddings.append(latents)
        actions.append(blocks)
        splits[split] = range(first, first + count)
        first += count
    write_trajectories_h5(
        folder,
        np.concatenate(embeddings),
        np.concatenate(actions),
        splits,
        layer_normed=settings.world_model.layer_norm,
    )
