"""SHIM: moved to vj2_ddim_benchmark.amortised.model."""

from vj2_ddim_benchmark.amortised.model import load_amortised, save_amortised

__all__ = ["load_amortised", "save_amortised"]
