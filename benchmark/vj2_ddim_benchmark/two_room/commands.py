"""SHIM: moved to vj2_ddim_benchmark.two_room.compare."""

from vj2_ddim_benchmark.two_room.compare import two_room

__all__ = ["two_room"]
