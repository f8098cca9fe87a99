"""Explicit randomness: every generator is derived from a seed and the name of what it is for.

Nothing depends on how many random numbers were drawn before, so a resumed run draws the same
functions, initial parameters and minibatches as an uninterrupted one.
"""

import hashlib
import math

import torch


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed that depends on ``seed`` and on every name, and on nothing else."""
    text = "\x1f".join(str(part) for part in (seed, *names))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, *names: str | int) -> torch.Generator:
    """A fresh CPU generator for one purpose; CPU, so that every device sees the same numbers."""
    return torch.Generator().manual_seed(derive_seed(seed, *names))


def log_uniform(low: int, high: int, generator: torch.Generator) -> int:
    """A whole number from ``low`` to ``high``, whose logarithm is about uniform."""
    share = torch.rand((), generator=generator).item()
    return min(high, math.floor(low * ((high + 1) / low) ** share))
