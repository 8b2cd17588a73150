"""`vj2-ddim benchmark assets`: the trained parts, each made once as `vj2-ddim train` makes them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import vj2_ddim_plugin
from vj2_ddim_benchmark.amortised.base import AmortisedModel
from vj2_ddim_benchmark.amortised.training import train_amortised
from vj2_ddim_benchmark.assets import COMMAND, Assets
from vj2_ddim_benchmark.assets.settings import AmortiseSettings, AssetSettings, VariantSettings
from vj2_ddim_benchmark.assets.success import latent_cost_of, success_of
from vj2_ddim_benchmark.environment import environment
from vj2_ddim_benchmark.race.folder import RaceFolder
from vj2_ddim_benchmark.settings import AMORTISED
from vj2_ddim_benchmark.world.collect import collect_transitions
from vj2_ddim_benchmark.world_model.embed import embed_transitions
from vj2_ddim_benchmark.world_model.model import WorldModel
from vj2_ddim_benchmark.world_model.train import train_world_model
from vj2_ddim_export.export import export_bundle
from vj2_ddim_plugin.bundle import read_bundle
from vj2_ddim_plugin.cli.console import Progress, silent
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.files import sha256_of, write_json
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.schedule import NoiseSchedule
from vj2_ddim_training.checkpoint import load_checkpoint
from vj2_ddim_training.config import DistillConfig, RunSettings
from vj2_ddim_training.data.trajectories import open_trajectories, write_trajectories_h5
from vj2_ddim_training.distillation import distill_to
from vj2_ddim_training.examples import Examples, open_examples
from vj2_ddim_training.ranker.network import load_ranker, save_ranker
from vj2_ddim_training.ranker.training import train_ranker
from vj2_ddim_training.run import train_run, with_patch_size
from vj2_ddim_training.validation import SUCCESS

STUDENT = "student"  # its folder in the denoiser's run


def build_assets(
    folder: Path, settings: AssetSettings, progress: Progress = silent,
    threads: int | None = None, world_model: Path | None = None,
) -> Assets:  # fmt: skip
    """Collect, train, and export whatever is not there yet; a world model given is trained."""
    assets = Assets(folder)
    folder.mkdir(parents=True, exist_ok=True)
    asked = settings
    settings = replace(settings, training=replace(settings.training, num_threads=threads))
    if world_model is None:
        world_model = assets.world_model
        if not world_model.exists():
            train_world_model(settings.world_model, world_model, progress)
    if not assets.latents.exists():
        write_latents(WorldModel.load(world_model), settings, assets.latents, progress)
    if not assets.bundle.exists():
        model = WorldModel.load(world_model)
        _train_denoiser(assets, model, settings, progress)
        ranker = _train_ranker(assets, model, settings, progress)
        export_bundle(assets.denoiser / "best.pt", assets.bundle, ranker=ranker)
    if settings.student is not None and not assets.student.exists():
        _train_student(assets, WorldModel.load(world_model), settings, settings.student, progress)
    if settings.amortised is not None:
        amortised = replace(settings.amortised, num_threads=threads)
        for kind, path in (("regression", assets.regression), ("gaussian", assets.gaussian)):
            if not path.exists():
                examples = _examples(assets, settings)
                train_amortised(kind, examples, settings.model, amortised, path, progress)
    if assets.complete() and not assets.provenance.exists():
        _write_provenance(assets, asked)
    return assets


def build_variant(
    folder: Path, settings: VariantSettings, world_model: Path, progress: Progress = silent
) -> Path:
    """Collect, train, and export a denoiser that differs in one thing; returns its bundle."""
    asked = {
        "data_share": settings.data_share,
        "representation": settings.representation,
        "num_steps": settings.steps,
        "world_model_sha256": sha256_of(world_model),
    }
    RaceFolder(folder).claim(asked, environment())
    trained = settings.applied_to(AssetSettings())
    return build_assets(folder, trained, progress, settings.threads, world_model).bundle


def amortise(
    kind: str, data_dir: Path, bundle: Path, settings: AmortiseSettings, out: Path,
    progress: Progress = silent,
) -> AmortisedModel:  # fmt: skip
    """Train an amortised model of the actions of a denoiser's bundle on latents, and write it."""
    if kind not in AMORTISED:
        raise ConfigError(f"kind must be one of {', '.join(AMORTISED)}; found {kind!r}")
    spec = read_bundle(bundle).action_spec
    examples = open_examples(data_dir, spec, "latents", longest_goal=settings.longest_goal)
    model, training = with_patch_size(settings.model, spec), settings.training(len(examples))
    return train_amortised(kind, examples, model, training, out, progress)


def collect_latents(
    world_model: WorldModel, settings: AssetSettings, split: str, progress: Progress = silent
) -> tuple[FloatArray, FloatArray]:
    """Latents `[n, T, N, D]` and actions `[n, T-1, 250, 3]` of `train` or `validation`."""
    counts = (settings.num_trajectories, settings.num_validation_trajectories)
    asked: dict[str, Any] = {
        "horizon": world_model.config.horizon,
        "size": world_model.config.screen_size,
        **{name: getattr(settings, name) for name in ("seed", "scripted_share", "near_miss_share")},
    }
    num = dict(zip(("train", "validation"), counts, strict=True))[split]
    asked |= {"progress": progress, "phase": "collect for the denoiser"}
    return embed_transitions(world_model, collect_transitions(num, split=split, **asked))[0]


def statistics_of(latents: FloatArray, actions: FloatArray) -> dict[str, dict[str, float]]:
    """Mean and standard deviation of latents and actions, to tell whether data are the same."""
    return {
        name: {"mean": float(values.mean(dtype=float)), "std": float(values.std(dtype=float))}
        for name, values in (("latents", latents), ("actions", actions))
    }


def write_latents(
    world_model: WorldModel, settings: AssetSettings, folder: Path, progress: Progress
) -> None:
    """Collect transitions on training and validation screens, and embed them."""
    train, validation = (
        collect_latents(world_model, settings, split, progress) for split in ("train", "validation")
    )
    latents, actions = (np.concatenate(pair) for pair in zip(train, validation, strict=True))
    num, layer_normed = len(train[1]), world_model.config.layer_norm
    splits = {"train": range(num), "validation": range(num, len(actions))}
    write_trajectories_h5(folder, latents, actions, splits, layer_normed=layer_normed)


def _train_denoiser(
    assets: Assets, world_model: WorldModel, settings: AssetSettings, progress: Progress
) -> None:
    """Train the denoiser, or go on where an earlier run stopped; success chooses `best.pt`."""
    settings_of_run = RunSettings(
        data_dir=assets.latents,
        val_data_dir=assets.latents,
        save_dir=assets.denoiser,
        model=settings.model,
        training=settings.training,
        schedule=NoiseSchedule(),
        representation=settings.representation,
        displacement_scale=settings.displacement_scale,
        resume=(assets.denoiser / "checkpoint.pt").exists(),
    )
    told = lambda done, total, line: progress("train the denoiser", done, total)  # noqa: E731
    train_run(settings_of_run, told, success_of(world_model))


def _train_ranker(
    assets: Assets, world_model: WorldModel, settings: AssetSettings, progress: Progress
) -> Path | None:
    """The file of the ranker that belongs to the denoiser, or None where none is asked for."""
    if settings.ranker is None:
        return None
    path = assets.denoiser / "ranker.pt"
    if not path.exists():
        model = load_checkpoint(assets.denoiser / "best.pt").model
        examples, cost = _examples(assets, settings), latent_cost_of(world_model)
        save_ranker(train_ranker(model, examples, cost, settings.ranker, progress), path)
    return path


def _train_student(
    assets: Assets, world_model: WorldModel, settings: AssetSettings, config: DistillConfig,
    progress: Progress,
) -> None:  # fmt: skip
    """Distill the denoiser, or go on where an earlier run stopped, and export its student."""
    folder, ranker_file = assets.denoiser / STUDENT, assets.denoiser / "ranker.pt"
    if not (folder / "checkpoint.pt").exists():
        teacher, ranker = load_checkpoint(assets.denoiser / "best.pt"), None
        if ranker_file.exists():
            ranker = load_ranker(ranker_file, teacher.model)
        how = config, folder, progress
        distill_to(teacher, _examples(assets, settings), *how, ranker, success_of(world_model))
    ranked = folder / "ranker.pt" if ranker_file.exists() else None
    export_bundle(folder / "checkpoint.pt", assets.student, ranker=ranked)


def _examples(assets: Assets, settings: AssetSettings) -> Examples:
    """The denoiser's training examples."""
    spec = load_checkpoint(assets.denoiser / "best.pt").model.action_spec
    goal = settings.training.longest_goal
    return open_examples(assets.latents, spec, "latents", longest_goal=goal)


def _write_provenance(assets: Assets, settings: AssetSettings) -> None:
    """What the parts were made with, what they measured, and whether they are the same."""
    spec = read_bundle(assets.bundle).action_spec
    data = open_trajectories(assets.latents, spec, "validation")
    latents, _, actions = data.gather(np.arange(len(data)))
    contents = {
        "command": COMMAND,
        "version": vj2_ddim_plugin.__version__,
        "settings": settings.as_json(),
        "sha256": assets.hashes(),
        "denoiser": best_of(assets.denoiser),
        "validation_data": statistics_of(latents, actions),
    }
    write_json(assets.provenance, contents)


def best_of(run: Path) -> dict[str, Any]:
    """What is known of the best checkpoint of a denoiser's training run: data, steps, success."""
    best = load_checkpoint(run / "best.pt")
    return {
        "data_fingerprint": best.data_fingerprint,
        "epoch": best.training["epoch"],
        "step": best.training["step"],
        **{name: value for name, value in best.metrics.items() if name.startswith(SUCCESS)},
    }
