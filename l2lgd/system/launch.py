"""How this process was started: alone, or by torchrun as one of several."""

import contextlib
import os
import shlex
import signal
import threading
from collections.abc import Iterator

TIE = "L2LGD_TIE"  # file descriptor whose other end goes with the process that started this one


def rank() -> int:
    """Which of the processes this is, from 0."""
    return _number("RANK", 0)


def size() -> int:
    """How many processes there are."""
    return _number("WORLD_SIZE", 1)


@contextlib.contextmanager
def tied() -> Iterator[tuple[dict[str, str], tuple[int, ...]]]:
    """Environment and file descriptors for a process that is to end with this one, however."""
    if os.name != "posix":
        yield {}, ()
        return
    here, there = os.pipe()
    try:
        yield {TIE: str(here)}, (here,)
    finally:
        os.close(here)
        os.close(there)


def end_with_parent() -> None:
    """In such a process: have it terminated when the other one is no more."""
    tie = os.environ.pop(TIE, "")
    if tie.isdecimal():
        threading.Thread(target=_wait_for_end, args=(int(tie),), daemon=True).start()


def _wait_for_end(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.read(descriptor, 1)  # returns when the other end is closed
        os.kill(os.getpid(), signal.SIGTERM)


def _number(name: str, otherwise: int) -> int:
    """That of a variable of torchrun's; what is none has another meaning."""
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else otherwise


def resumption(folder: str | os.PathLike[str]) -> str:
    """The command that goes on with the meta-training of a folder."""
    return shlex.join([*program(), "meta-train", f"resume={os.fspath(folder)}"])


def program() -> list[str]:
    """The words before the verb in the command that started this."""
    launcher = ["torchrun", "--nproc-per-node", str(size()), "-m"] if size() > 1 else []
    return [*launcher, "l2lgd"]
