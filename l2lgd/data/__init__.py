"""Data sets and pictures as tensors."""
