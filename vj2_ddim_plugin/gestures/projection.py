"""SHIM: moved to vj2_ddim_plugin.gestures."""

from vj2_ddim_plugin.gestures import PATH_TOLERANCE

__all__ = ["PATH_TOLERANCE"]
