"""SHIM: moved to vj2_ddim_training.loop."""

from vj2_ddim_training.loop import moving_average, warmup_cosine

__all__ = ["moving_average", "warmup_cosine"]
