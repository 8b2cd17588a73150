"""SHIM: moved to vj2_ddim_training.loop."""

from vj2_ddim_training.loop import choose_device

__all__ = ["choose_device"]
