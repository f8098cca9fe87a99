"""Learning to learn by gradient descent by gradient descent (Andrychowicz et al., 2016)."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from l2lgd.pretrained.learned_optimizer import LearnedOptimizer

__all__ = ["LearnedOptimizer"]


def __getattr__(name: str) -> object:
    """``l2lgd.LearnedOptimizer``, imported when it is asked for, as PyTorch takes seconds."""
    if name != "LearnedOptimizer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from l2lgd.pretrained.learned_optimizer import LearnedOptimizer

    return LearnedOptimizer
