"""Turns a checkpoint into an ONNX bundle, and proves that the two agree. Needs `export`."""

__all__ = ["TOLERANCE"]

TOLERANCE = 1e-4
"""The largest relative error of a sampling loop that passes the parity gate."""
