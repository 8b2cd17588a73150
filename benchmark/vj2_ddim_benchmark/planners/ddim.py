"""SHIM: moved to vj2_ddim_benchmark.planners.registry."""

from vj2_ddim_benchmark.planners.registry import ddim

__all__ = ["ddim"]
