"""SHIM: moved to vj2_ddim_training.ranker.network."""

from vj2_ddim_training.ranker.network import save_ranker

__all__ = ["save_ranker"]
