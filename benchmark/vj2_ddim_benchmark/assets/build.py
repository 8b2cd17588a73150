"""Making the trained parts, in order; a part whose file is there is not made again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from vj2_ddim_benchmark.amortised.train import train_amortised
from vj2_ddim_benchmark.assets.files import Assets
from vj2_ddim_benchmark.assets.judge import success_judge
from vj2_ddim_benchmark.assets.provenance import write_provenance
from vj2_ddim_benchmark.assets.settings import AssetSettings
from vj2_ddim_benchmark.world.collect import collect_transitions
from vj2_ddim_benchmark.world_model.cost import LatentCost
from vj2_ddim_benchmark.world_model.embed import embed_transitions
from vj2_ddim_benchmark.world_model.model import WorldModel
from vj2_ddim_benchmark.world_model.train import Progress, train_world_model
from vj2_ddim_export.export import export_bundle
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_training.checkpoint import load_checkpoint
from vj2_ddim_training.config import TrainingConfig
from vj2_ddim_training.data.trajectories import write_trajectories_h5
from vj2_ddim_training.examples import Examples, open_examples
from vj2_ddim_training.ranker.files import save_ranker
from vj2_ddim_training.ranker.train import train_ranker
from vj2_ddim_training.run import RunSettings, train_run

__all__ = ["build_assets", "collect_latents"]


def build_assets(
    folder: Path,
    settings: AssetSettings,
    progress: Progress | None = None,
    threads: int | None = None,
    world_model: Path | None = None,
) -> Assets:
    """Collect, train, and export whatever is not there yet.

    Args:
        folder: Where everything goes.
        settings: How much of everything.
        progress: Told about every step of every phase.
        threads: Torch's threads; None leaves its choice.
        world_model: One that is trained already; `settings.world_model` is not used then.

    Returns:
        The folder's paths.
    """
    told = progress or (lambda phase, done, total: None)
    assets = Assets(folder)
    folder.mkdir(parents=True, exist_ok=True)
    asked = settings
    settings = replace(settings, training=replace(settings.training, num_threads=threads))
    if world_model is None:
        world_model = assets.world_model
        if not world_model.exists():
            train_world_model(settings.world_model, world_model, told)
    if not assets.latents.exists():
        _write_latents(WorldModel.load(world_model), settings, assets.latents, told)
    if not assets.bundle.exists():
        _train_denoiser(assets, WorldModel.load(world_model), settings, told)
        ranker = _train_ranker(assets, WorldModel.load(world_model), settings, told)
        export_bundle(assets.denoiser / "best.pt", assets.bundle, ranker=ranker)
    if settings.amortised is not None:
        amortised = replace(settings.amortised, num_threads=threads)
        _train_amortised(assets, settings, amortised, told)
    if assets.complete() and not assets.provenance.exists():
        write_provenance(assets, asked)
    return assets


def collect_latents(
    world_model: WorldModel, settings: AssetSettings, split: str, progress: Progress | None = None
) -> tuple[FloatArray, FloatArray]:
    """The denoiser's data of a split: latents `[n, T, N, D]`, actions `[n, T-1, 250, 3]`.

    Args:
        world_model: Its encoder makes the latents.
        settings: How many trajectories, and of what.
        split: `train` or `validation`.
        progress: Told about every round of gestures.
    """
    config, collected = world_model.config, 0
    counts = {
        "train": settings.num_trajectories,
        "validation": settings.num_validation_trajectories,
    }

    def told(added: int) -> None:
        nonlocal collected
        collected += added
        if progress is not None:
            progress("collect for the denoiser", collected, counts[split] * config.horizon)

    transitions = collect_transitions(
        counts[split],
        horizon=config.horizon,
        split=split,
        seed=settings.seed,
        scripted_share=settings.scripted_share,
        near_miss_share=settings.near_miss_share,
        size=config.screen_size,
        progress=told,
    )
    return embed_transitions(world_model, transitions)


def _write_latents(
    world_model: WorldModel, settings: AssetSettings, folder: Path, progress: Progress
) -> None:
    """Collect transitions on training and validation screens, and embed them."""
    parts = {
        split: collect_latents(world_model, settings, split, progress)
        for split in ("train", "validation")
    }
    num_train, num = len(parts["train"][1]), sum(len(actions) for _, actions in parts.values())
    write_trajectories_h5(
        folder,
        np.concatenate([latents for latents, _ in parts.values()]),
        np.concatenate([actions for _, actions in parts.values()]),
        {"train": range(num_train), "validation": range(num_train, num)},
        layer_normed=world_model.config.layer_norm,
    )


def _train_denoiser(
    assets: Assets, world_model: WorldModel, settings: AssetSettings, progress: Progress
) -> None:
    """Train the denoiser, or go on where an earlier run stopped; success chooses `best.pt`."""
    schedule = NoiseSchedule(
        beta_schedule="cosine", prediction_type="v_prediction", timestep_spacing="trailing"
    )
    train_run(
        RunSettings(
            data_dir=assets.latents,
            val_data_dir=assets.latents,
            save_dir=assets.denoiser,
            model=settings.model,
            training=settings.training,
            schedule=schedule,
            representation=settings.representation,
            resume=(assets.denoiser / "checkpoint.pt").exists(),
        ),
        lambda done, total, line: progress("train the denoiser", done, total),
        success_judge(world_model),
    )


def _train_ranker(
    assets: Assets, world_model: WorldModel, settings: AssetSettings, progress: Progress
) -> Path | None:
    """The file of the ranker that belongs to the denoiser, or None where none is asked for."""
    if settings.ranker is None:
        return None

    def cost(context: Mapping[str, FloatArray], candidates: FloatArray) -> FloatArray:
        return LatentCost(world_model, context["state"], context["goal"])(candidates)

    path = assets.denoiser / "ranker.pt"
    if not path.exists():
        model = load_checkpoint(assets.denoiser / "best.pt").model
        examples = _examples(assets, settings)
        save_ranker(train_ranker(model, examples, cost, settings.ranker, progress), path)
    return path


def _train_amortised(
    assets: Assets, settings: AssetSettings, training: TrainingConfig, progress: Progress
) -> None:
    """Train the regression and the Gaussian on what the denoiser was trained on."""
    for kind, path in (("regression", assets.regression), ("gaussian", assets.gaussian)):
        if not path.exists():
            examples = _examples(assets, settings)
            train_amortised(kind, examples, settings.model, training, path, progress)


def _examples(assets: Assets, settings: AssetSettings) -> Examples:
    """The denoiser's training examples."""
    spec = load_checkpoint(assets.denoiser / "best.pt").model.action_spec
    goal = settings.training.longest_goal
    return open_examples(assets.latents, spec, "latents", longest_goal=goal)
