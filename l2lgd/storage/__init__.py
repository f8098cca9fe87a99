"""Files that are whole at any time, checkpoints, locks."""
