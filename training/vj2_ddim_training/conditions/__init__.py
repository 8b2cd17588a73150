"""Condition encoders: what the denoiser is told, turned into tokens once a plan."""
