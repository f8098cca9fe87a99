"""How this process was started: alone, or by torchrun as one of several."""

import os
import shlex


def rank() -> int:
    """Which of the processes this is, from 0."""
    return int(os.environ.get("RANK", 0))


def size() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", 1))


def resumption(folder: str | os.PathLike[str]) -> str:
    """The command that goes on with the meta-training of a folder."""
    return shlex.join([*program(), "meta-train", f"resume={os.fspath(folder)}"])


def program() -> list[str]:
    """The words before the verb in the command that started this."""
    launcher = ["torchrun", "--nproc-per-node", str(size()), "-m"] if size() > 1 else []
    return [*launcher, "l2lgd"]
