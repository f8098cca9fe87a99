"""Compiled code for what the pure PyTorch path does too, tested against it."""
