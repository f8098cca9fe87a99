"""One run at a time in a folder.

The lock is the operating system's and goes with the process at the latest, however that ends. Where
there are no such locks, nothing is locked.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from l2lgd.errors import ConfigError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

FILE = ".lock"
_held: dict[Path, int] = {}  # folder → file descriptor, open as long as it is held


@contextlib.contextmanager
def let_go() -> Iterator[None]:
    """Folders that are taken within it are free again in the end."""
    before = set(_held)
    try:
        yield
    finally:
        for folder in set(_held) - before:
            os.close(_held.pop(folder))


def hold(folder: Path) -> None:
    """Keep a folder for this process until it ends, or :func:`let_go` does.

    Raises:
        ConfigError: another process has it.
    """
    key = Path(os.path.realpath(folder))
    if key in _held:
        return
    descriptor = _lock(folder, os.O_RDWR | os.O_CREAT)
    if descriptor is None:
        return
    with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
    _held[key] = descriptor


def wait_for(folder: Path, seconds: float) -> None:
    """Until no other process has the folder, as those of a sweep that was killed are ending.

    Raises:
        ConfigError: one still has it when the time is over.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            descriptor = _lock(folder, os.O_RDWR)
        except ConfigError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
            continue
        if descriptor is not None:
            os.close(descriptor)
        return


def _lock(folder: Path, flags: int) -> int | None:
    """The descriptor that has the lock, as long as it is open; None where there are no locks.

    Raises:
        ConfigError: another process has it.
    """
    if fcntl is None:
        return None
    try:
        descriptor = os.open(folder / FILE, flags, 0o666)
    except OSError:  # what wants to write there says so
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(descriptor, 20).decode(errors="replace").strip()
        os.close(descriptor)
        whose = f" (process {owner})" if owner else ""
        raise ConfigError(
            f"{folder} is in use by another run{whose}; wait for it, or choose another folder"
        ) from None
    except OSError:  # a file system without locks
        os.close(descriptor)
        return None
    return descriptor
