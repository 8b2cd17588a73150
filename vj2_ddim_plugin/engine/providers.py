"""SHIM: moved to vj2_ddim_plugin.onnx."""

from vj2_ddim_plugin.onnx import PROVIDERS, TF32_OVERRIDE, SessionSettings

__all__ = ["PROVIDERS", "TF32_OVERRIDE", "SessionSettings"]
