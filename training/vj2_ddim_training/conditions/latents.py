"""SHIM: moved to vj2_ddim_training.condition_encoders."""

from vj2_ddim_training.condition_encoders import LatentEncoder

__all__ = ["LatentEncoder"]
