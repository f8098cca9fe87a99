"""How this process was started: alone, or by torchrun as one of several."""

import os


def rank() -> int:
    """Which of the processes this is, from 0."""
    return int(os.environ.get("RANK", 0))


def size() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", 1))


def program() -> list[str]:
    """The words before the verb in the command that started this."""
    launcher = ["torchrun", "--nproc-per-node", str(size()), "-m"] if size() > 1 else []
    return [*launcher, "l2lgd"]
