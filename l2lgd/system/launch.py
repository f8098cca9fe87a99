"""How this process was started: alone, or by torchrun as one of several."""

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from l2lgd.errors import ConfigError
from l2lgd.system.environment import number, variable

TIE = "L2LGD_TIE"  # file descriptor whose other end goes with the process that started this one
_watched: set[int] = set()  # processes that this one is to end with


def rank() -> int:
    """Which of the processes this is, from 0."""
    return number("RANK") or 0 if size() > 1 else 0


def size() -> int:
    """How many processes there are: the variables of torchrun's count only together."""
    return max(1, number("WORLD_SIZE") or 1) if number("RANK") is not None else 1


def check() -> None:
    """Raise ConfigError for variables that cannot be torchrun's."""
    if rank() >= size():
        raise ConfigError(
            f"RANK={rank()} and WORLD_SIZE={size()} do not belong together; unset them, or start "
            "with torchrun --nproc-per-node N -m l2lgd meta-train"
        )


def local_rank() -> int:
    """Which of the processes on this machine this is, from 0."""
    return number("LOCAL_RANK") or 0


def meeting_place() -> str:
    """Where the processes find each other."""
    return f"{variable('MASTER_ADDR', '?')}:{variable('MASTER_PORT', '?')}"


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
    tie = number(TIE)
    if tie is not None:
        del os.environ[TIE]  # it is no process's of this one
        threading.Thread(target=_wait_for_end, args=(tie,), daemon=True).start()


def _wait_for_end(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.read(descriptor, 1)  # returns when the other end is closed
        os.kill(os.getpid(), signal.SIGTERM)


def end_with(process: int) -> None:
    """In a worker of joblib's: have it terminated when the process that started it is no more."""
    import multiprocessing

    own = type(multiprocessing.current_process()).__module__
    if ".loky." in own and process not in _watched:
        _watched.add(process)
        threading.Thread(target=_watch, args=(process,), daemon=True).start()


def _watch(process: int) -> None:
    while os.getppid() == process:
        time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGTERM)


def tell_torchrun(message: str) -> None:
    """Let the report that torchrun prints in the end say what went wrong."""
    path = variable("TORCHELASTIC_ERROR_FILE")
    if path:
        told = {"message": message, "timestamp": int(time.time())}
        with contextlib.suppress(OSError):
            Path(path).write_text(json.dumps(told), encoding="utf-8")


def program() -> list[str]:
    """The words before the verb in the command that started this."""
    launcher = ["torchrun", "--nproc-per-node", str(size()), "-m"] if size() > 1 else []
    return [*launcher, "l2lgd"]
