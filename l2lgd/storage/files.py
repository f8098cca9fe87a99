"""Files that are whole at any time: the old one or the new one."""

import contextlib
import os
import secrets
import tempfile
from pathlib import Path

from l2lgd.errors import UserError, is_disk_full


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file by way of a temporary one in the same folder.

    Raises:
        UserError: the folder cannot be written to, or the disk is full.
    """
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:  # who may read it is for the umask to say
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:  # an interruption leaves nothing behind, either
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise disk_error(path, error) from error
        raise


def sync(path: Path) -> None:
    """See to it that a file outlives the machine, as far as can be."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        os.fsync(file.fileno())


def check_writable(path: Path) -> None:
    """Before long work, so that it is not lost for want of a place.

    Raises:
        UserError: the folder cannot be written to, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise disk_error(path, error) from error


def disk_error(path: Path, error: OSError) -> UserError:
    """What to say when a file cannot be written."""
    if is_disk_full(error):
        return UserError(f"the disk is full: could not write {path}; free some space and resume")
    return UserError(f"could not write {path}: {error.strerror or error}")
