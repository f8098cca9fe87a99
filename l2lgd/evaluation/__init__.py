"""Comparisons: optimizers made ready, learning rates tuned, proposals along a path."""
