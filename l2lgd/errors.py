"""Errors whose message is meant for the person at the terminal: one line, with the way out."""

import difflib
import errno
from collections.abc import Iterable

NO_THREAD = "can't start new thread"  # Python's words where there is no room for its stack


class UserError(Exception):
    """Something the user can put right; the command line prints it and exits with status 2."""


class ConfigError(UserError, ValueError):
    """An option that does not exist, has the wrong type or is out of range."""


class DataUnavailable(UserError):
    """A data set could neither be found nor downloaded."""


class Diverged(UserError):
    """A meta-training, or a painting, in which nothing stays finite."""


class ProcessLost(UserError):
    """Another process of the run has ended, or cannot be reached any more."""


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged, or belongs to something else."""


class Leave(BaseException):
    """Leaves Hydra without Hydra's own report of the error."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def is_disk_full(error: BaseException) -> bool:
    """Has a write failed for want of space or of quota?"""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Is it for want of memory, whatever was made of that on the way?"""
    while error is not None:
        said = str(error)
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return True
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            return True
        if isinstance(error, ImportError | OSError) and "failed to map segment" in said:
            return True
        if isinstance(error, RuntimeError) and ("allocate memory" in said or NO_THREAD in said):
            return True
        error = error.__cause__
    return False


def one_line(cause: object) -> str:
    """What an error of somebody else's says, for use in a message of ours."""
    return " ".join(str(cause).split()) or type(cause).__name__


def close_to(word: str, choices: Iterable[str], cutoff: float = 0.5) -> str:
    """The choice that was probably meant, whatever its case; empty where none is near.

    Args:
        cutoff: how alike they must be, from 0 to 1; a beginning of one choice alone is enough.
    """
    known = {choice.lower(): choice for choice in choices}
    begun = [choice for choice in known if len(word) > 2 and choice.startswith(word.lower())]
    close = begun if len(begun) == 1 else difflib.get_close_matches(word.lower(), known, 1, cutoff)
    return known[close[0]] if close else ""


def nearest(word: str, choices: Iterable[str]) -> str:
    """A hint at the choice that was probably meant, to end a message with."""
    choices = list(choices)
    close = close_to(word, choices)
    if close:
        return f"; did you mean {close}?"
    return f"; choose one of {', '.join(choices)}" if choices else ""
