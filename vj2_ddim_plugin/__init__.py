"""The runtime: plans with a DDIM denoiser on numpy and ONNX Runtime, nothing else."""
