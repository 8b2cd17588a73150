"""SHIM: moved to vj2_ddim_plugin.spec."""

from vj2_ddim_plugin.spec import ActionSpec

__all__ = ["ActionSpec"]
