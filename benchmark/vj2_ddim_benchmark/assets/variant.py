"""A denoiser trained as the shipped one, with one thing changed: its data or its representation."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from vj2_ddim_benchmark.assets.build import build_assets
from vj2_ddim_benchmark.assets.settings import AssetSettings
from vj2_ddim_benchmark.protocol.setup import claim_folder, environment
from vj2_ddim_benchmark.world_model.train import Progress
from vj2_ddim_plugin.files import sha256_of

__all__ = ["build_variant", "equal_steps"]

NUM_VALIDATIONS = 5  # the most successful of so many, or fewer, is kept


def build_variant(
    folder: Path,
    world_model: Path,
    *,
    data_share: float = 1.0,
    representation: str = "auto",
    num_steps: int = 3000,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Collect, train, and export it; what is there is not made again.

    Variants of as many steps are comparable, however little data they see.

    Args:
        folder: Where everything goes.
        world_model: Its encoder makes the latents.
        data_share: Share of the shipped denoiser's trajectories.
        representation: What is diffused: `raw`, `held`, `path`, or `auto`.
        num_steps: Gradient steps, rounded up to whole epochs (which adds up where there is little
            data).
        threads: Torch's threads; None leaves its choice.
        progress: Told about every step of every phase.

    Returns:
        The bundle's folder.

    Raises:
        ConfigError: The representation is unknown, or the folder holds a denoiser of other
            settings.
        ActionError: The representation cannot hold the gestures.
    """
    full = AssetSettings.full()
    settings = replace(
        full,
        num_trajectories=math.ceil(data_share * full.num_trajectories),
        representation=representation,
        ranker=None,
        amortised=None,
    )
    asked = {"data_share": data_share, "representation": representation, "num_steps": num_steps}
    claim_folder(folder, {**asked, "world_model_sha256": sha256_of(world_model)}, environment())
    settings = equal_steps(settings, num_steps)
    return build_assets(folder, settings, progress, threads, world_model).bundle


def equal_steps(settings: AssetSettings, num_steps: int) -> AssetSettings:
    """The same settings, trained for `num_steps` in at least `NUM_VALIDATIONS` epochs.

    Raises:
        ValueError: `num_steps` is not positive.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1; found {num_steps}")
    horizon, longest = settings.world_model.horizon, settings.training.longest_goal
    pairs = longest * horizon + sum(max(0, horizon - later) for later in range(1, longest))
    batches = settings.num_trajectories * pairs / settings.training.batch_size
    num_epochs = max(NUM_VALIDATIONS, math.ceil(num_steps / batches))
    share = min(1.0, num_steps / (num_epochs * batches))
    training = replace(
        settings.training, num_epochs=num_epochs, epoch_share=share, num_cycles=1,
        evaluate_every=math.ceil(num_epochs / NUM_VALIDATIONS),
    )  # fmt: skip
    return replace(settings, training=training)
