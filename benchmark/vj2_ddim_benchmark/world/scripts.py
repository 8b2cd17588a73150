"""SHIM: moved to `vj2_ddim_benchmark.world.touch`."""

from vj2_ddim_benchmark.world.touch import drag, random_times, tap

__all__ = ["drag", "random_times", "tap"]
