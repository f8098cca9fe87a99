"""Tasks: distributions over optimizees."""
