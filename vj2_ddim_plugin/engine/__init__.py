"""SHIM: moved to vj2_ddim_plugin.onnx."""

__all__: list[str] = []
