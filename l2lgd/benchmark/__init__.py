"""Optimizers × tasks × seeds: what is run, how it is scored, the table and the pictures."""
