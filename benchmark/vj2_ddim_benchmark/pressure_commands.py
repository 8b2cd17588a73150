"""SHIM: moved to vj2_ddim_benchmark.timing.pressure."""

from vj2_ddim_benchmark.timing.pressure import pressure

__all__ = ["pressure"]
