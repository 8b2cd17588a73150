"""Amortised planning without diffusion: regression and a Gaussian, from what the denoiser sees."""
