"""A run and its folder, sweeps and their ranking."""
