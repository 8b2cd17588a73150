"""SHIM: moved to vj2_ddim_benchmark.timing.latency."""

from vj2_ddim_benchmark.timing.latency import latency

__all__ = ["latency"]
