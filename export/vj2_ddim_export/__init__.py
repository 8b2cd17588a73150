"""Turns a checkpoint into an ONNX bundle, and proves that the two agree. Needs `export`."""
