"""Trained weights by name, and a trained optimizer in anybody's PyTorch loop."""
