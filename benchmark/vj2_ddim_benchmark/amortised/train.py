"""SHIM: moved to vj2_ddim_benchmark.amortised.training."""

from vj2_ddim_benchmark.amortised.training import train_amortised

__all__ = ["train_amortised"]
