"""Trains the denoiser: data, networks, loss, loop, measures, plots. Needs the `train` extra."""
