"""Paths as the person at the terminal means them."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

_typed_in: tuple[Path, ...] = ()


@contextlib.contextmanager
def typed_in(*folders: Path) -> Iterator[None]:
    """Within it, relative paths are those of these folders: of the first one that has it.

    Hydra may have changed the working directory, or the words may be those of an earlier run.
    """
    global _typed_in
    before = _typed_in
    _typed_in = tuple(folder for folder in folders if folder.is_dir())
    try:
        yield
    finally:
        _typed_in = before


def as_typed(path: str | Path) -> Path:
    """The path that was meant: ``~`` is the home, and see :func:`typed_in`.

    Raises:
        RuntimeError: there is no such home.
    """
    found = Path(path).expanduser()
    if found.is_absolute() or not _typed_in or Path.cwd() == _typed_in[0]:
        return found
    places = [folder / found for folder in _typed_in]
    return next((place for place in places if place.exists()), places[0])


def where_typed() -> Path:
    """The folder that relative paths of this run's command are of."""
    return _typed_in[0] if _typed_in else Path.cwd()
