"""SHIM: moved to vj2_ddim_benchmark.environment."""

from vj2_ddim_benchmark.environment import environment, use_threads

__all__ = ["environment", "use_threads"]
