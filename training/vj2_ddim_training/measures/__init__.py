"""Measures: how well gestures are recreated, generated and inverted. Numpy in, numbers out."""
