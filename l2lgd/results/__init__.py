"""Curves, their intervals, and pictures of them."""
