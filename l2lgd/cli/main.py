"""The program ``l2lgd``: its process, before anything that takes long is imported."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from l2lgd.storage import locks
from l2lgd.system import environment, signals


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status.

    For use from Python, too: what it changes in the process is put back in the end.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    with signals.heeded(), locks.let_go(), _left_as_found():
        environment.settle()
        try:
            from l2lgd.cli import commands

            return commands.run(words)
        except BaseException as error:
            if not (signals.asked() or isinstance(error, KeyboardInterrupt)):
                raise
            signals.ending()
            from l2lgd.cli.answers import interrupted

            status = interrupted(error)
            exec("")  # has Python forget an interruption of a string, for which it ends by SIGINT
            return status


def program() -> NoReturn:
    """The process of the command line; until its very end, a signal says nothing new."""
    with signals.heeded():
        status = main()
        signals.ending()
        signals.stay()
    sys.exit(status)


@contextlib.contextmanager
def _left_as_found() -> Iterator[None]:
    """Environment, arguments, path of imports and folder; and streams that take any character."""
    variables, words, path, folder = dict(os.environ), sys.argv, sys.path[:], _folder()
    strict = [
        stream
        for stream in (sys.stdout, sys.stderr)
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict"
    ]
    for stream in strict:
        stream.reconfigure(errors="replace")  # an encoding that lacks a letter costs no result
    try:
        yield
    finally:
        for stream in strict:
            with contextlib.suppress(ValueError):  # it is closed
                stream.reconfigure(errors="strict")
        for name in os.environ.keys() - variables.keys():
            del os.environ[name]
        os.environ.update(variables)
        sys.argv, sys.path[:] = words, path
        if folder and folder != _folder():
            os.chdir(folder)


def _folder() -> str:
    """The working directory; none where it was deleted."""
    try:
        return str(Path.cwd())
    except OSError:
        return ""
