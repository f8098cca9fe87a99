"""Rules, which are learned, and hand-designed optimizers."""
