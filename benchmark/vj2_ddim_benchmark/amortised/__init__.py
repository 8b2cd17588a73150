"""Amortised planners: latents to a plan without search, each trained as the denoiser is."""
