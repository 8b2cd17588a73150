"""SHIM: moved to vj2_ddim_benchmark.timing.scale."""

from vj2_ddim_benchmark.timing.scale import scale

__all__ = ["scale"]
