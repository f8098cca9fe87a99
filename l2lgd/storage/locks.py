"""One run at a time in a folder.

The lock is the operating system's and goes with the process, however that ends. Where there are no
such locks, nothing is locked.
"""

import contextlib
import os
from pathlib import Path

from l2lgd.errors import ConfigError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

FILE = ".lock"
_held: dict[Path, int] = {}  # folder → file descriptor, open until the process ends


def hold(folder: Path) -> None:
    """Keep a folder for this process until it ends.

    Raises:
        ConfigError: another process has it.
    """
    key = folder.resolve()
    if fcntl is None or key in _held:
        return
    try:
        descriptor = os.open(key / FILE, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:  # what wants to write there says so
        return
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
        return
    with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
    _held[key] = descriptor
