"""What a check is, and what it finds."""

import inspect
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

import l2lgd
from l2lgd.errors import one_line
from l2lgd.seeding import generator

Subject = TypeVar("Subject")
PACKAGE = Path(l2lgd.__file__).parent
B = 3  # functions


class Failed(AssertionError):
    """Something does not hold; says what, and what to change.

    Args:
        message: in one line.
        subject: the function to change, or the object whose class to change.
    """

    def __init__(self, message: str, subject: object = None) -> None:
        super().__init__(message)
        self.subject = subject


@dataclass(frozen=True)
class Finding:
    """What came of a check."""

    name: str  # what must hold, in words
    problem: str | None = None  # why it does not
    place: str | None = None  # file and line to look at


def findings(checks: Sequence[Callable[[Subject], None]], subject: Subject) -> Iterator[Finding]:
    """Run checks one after the other; each may raise what it likes."""
    for check in checks:
        name = check.__name__.replace("_", " ")
        try:
            check(subject)
        except Failed as error:
            yield Finding(name, str(error), place_of(error.subject))
        except Exception as error:  # it is somebody's own code
            yield Finding(name, f"{type(error).__name__}: {one_line(error)}", _raised_at(error))
        else:
            yield Finding(name)


def place_of(subject: object) -> str | None:
    """The file and the line that a function or a class begins at."""
    if subject is None:
        return None
    known = subject if callable(subject) or isinstance(subject, type) else type(subject)
    try:
        known = inspect.unwrap(getattr(known, "__func__", known))
        file, line = inspect.getsourcefile(known), inspect.getsourcelines(known)[1]
    except (TypeError, OSError):
        return None
    return f"{_short(file)}:{line}" if file else None


def _raised_at(error: Exception) -> str | None:
    """Where an error came from: the last line of code that is not ours or a library's."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "site-packages" not in f.filename]
    foreign = [f for f in own if PACKAGE not in Path(f.filename).parents]
    frame = (foreign or own or frames)[-1]
    return f"{_short(frame.filename)}:{frame.lineno}"


def _short(file: str) -> str:
    path = Path(file)
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def seeded(*names: str | int) -> torch.Generator:
    """A generator of the checks."""
    return generator(0, "check", *names)


def normal(like: Tensor, *names: str | int) -> Tensor:
    """Normal numbers, as many as a tensor has."""
    drawn = torch.randn(like.shape, generator=seeded(*names), dtype=torch.float64)
    return drawn.to(like.device, like.dtype)


def distance(one: Tensor, other: Tensor) -> float:
    """The largest difference, to the largest number."""
    if not one.numel():
        return 0.0
    size = max(one.abs().max().item(), other.abs().max().item(), 1e-300)
    return (one - other).abs().max().item() / size


def same_random_state(run: Callable[[], Any]) -> tuple[Any, bool]:
    """What ``run`` returns, and whether it left PyTorch's own generator alone."""
    before = torch.get_rng_state()
    try:
        found = run()
        return found, torch.get_rng_state().equal(before)
    finally:
        torch.set_rng_state(before)
