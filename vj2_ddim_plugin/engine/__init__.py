"""Around ONNX Runtime: which provider, why not, bound memory, rows that stay independent."""

__all__: list[str] = []
