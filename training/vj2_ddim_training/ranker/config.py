"""SHIM: moved to vj2_ddim_training.config."""

from vj2_ddim_training.config import RankerConfig

__all__ = ["RankerConfig"]
