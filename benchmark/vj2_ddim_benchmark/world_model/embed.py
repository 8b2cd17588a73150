"""SHIM: moved to `vj2_ddim_benchmark.world_model.model`."""

from vj2_ddim_benchmark.world_model.model import embed_transitions

__all__ = ["embed_transitions"]
