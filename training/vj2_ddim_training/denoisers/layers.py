"""SHIM: moved to vj2_ddim_training.denoisers.dit."""

from vj2_ddim_training.denoisers.dit import TransformerLayer

__all__ = ["TransformerLayer"]
