"""SHIM: moved to vj2_ddim_benchmark.planners.gradient_descent."""

from vj2_ddim_benchmark.planners.gradient_descent import descend

__all__ = ["descend"]
