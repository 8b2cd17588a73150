"""SHIM: moved to vj2_ddim_plugin.onnx.session."""

from vj2_ddim_plugin.onnx.session import OnnxGraph, available_providers, why_not

__all__ = ["OnnxGraph", "available_providers", "why_not"]
