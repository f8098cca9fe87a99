"""Compiled arithmetic."""
