"""Amortised planners: latents to a plan without search, each trained as the denoiser is."""

from vj2_ddim_benchmark.amortised.training import (
    FIELDS,
    build_amortised,
    load_amortised,
    save_amortised,
    train_amortised,
)

__all__ = ["FIELDS", "build_amortised", "load_amortised", "save_amortised", "train_amortised"]
