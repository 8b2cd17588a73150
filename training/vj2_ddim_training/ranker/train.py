"""SHIM: moved to vj2_ddim_training.ranker.training."""

from vj2_ddim_training.ranker.training import train_ranker

__all__ = ["train_ranker"]
