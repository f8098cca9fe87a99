"""What a check is, and what it finds."""

import contextlib
import inspect
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

import l2lgd
from l2lgd.errors import one_line
from l2lgd.seeding import derive_seed, generator

Subject = TypeVar("Subject")
Check = TypeVar("Check", bound=Callable[..., None])
PACKAGE = Path(l2lgd.__file__).parent
STANDARD = Path(contextlib.__file__).parent  # Python's own library
B = 3  # functions
_BASIC: set[object] = set()


def basic(check: Check) -> Check:
    """Mark a check that those after it rely on: where it fails, they cannot tell more."""
    _BASIC.add(check)
    return check


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
    """Run checks one after the other, up to a basic one that fails; each may raise what it likes.

    Args:
        subject: what the checks are given; of one with ``owner``, places are the owner's.
    """
    owner = getattr(subject, "owner", subject)
    for check in checks:
        name = check.__name__.replace("_", " ")
        try:
            check(subject)
        except Failed as error:
            yield Finding(name, str(error), place_of(error.subject))
        except Exception as error:  # it is somebody's own code
            yield Finding(name, f"{type(error).__name__}: {one_line(error)}", _cause(error, owner))
        else:
            yield Finding(name)
            continue
        if check in _BASIC:
            return


def place_of(subject: object) -> str | None:
    """The file and the line that a function or a class begins at."""
    if subject is None:
        return None
    known: Any = subject if inspect.isroutine(subject) else type(subject)
    if isinstance(subject, type):
        known = subject
    owner = type(getattr(known, "__self__", None))
    if _is_ours(known) and not _is_ours(owner) and owner.__module__ != "builtins":
        known = owner  # it has the function from us, and is what to change
    try:
        known = inspect.unwrap(getattr(known, "__func__", known))
        file, line = inspect.getsourcefile(known), inspect.getsourcelines(known)[1]
    except (TypeError, OSError):
        return None
    return f"{_short(file)}:{line}" if file else None


def raised_at(error: Exception) -> str | None:
    """The last line that an error went through of code that is not ours or a library's."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        others = "site-packages" in path.parts or {PACKAGE, STANDARD} & set(path.parents)
        if not others and path.is_file():
            return f"{_short(frame.filename)}:{frame.lineno}"
    return None


def _cause(error: Exception, owner: object) -> str | None:
    """Where to look for what raised an error."""
    if foreign := raised_at(error):
        return foreign
    # Theirs was never begun, as where we gave it more than it takes: the error names it.
    named = re.match(r"([\w.<>]+)\(\)", str(error))
    if named:
        for held in [owner, *_held(error)]:
            function = getattr(held, named[1].rsplit(".")[-1], None)
            if getattr(function, "__qualname__", None) == named[1]:
                return place_of(function)
    if not _is_ours(type(owner)):
        return place_of(owner)
    frames = traceback.extract_tb(error.__traceback__)
    frame = ([f for f in frames if PACKAGE in Path(f.filename).parents] or frames)[-1]
    return f"{_short(frame.filename)}:{frame.lineno}"


def _held(error: Exception) -> list[object]:
    """What our code had in its variables when the error was raised, the last first."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return [value for frame in reversed(frames) for value in frame.f_locals.values()]


def _is_ours(code: object) -> bool:
    """Is a function or a class one of this package?"""
    return str(getattr(code, "__module__", "")).split(".")[0] == PACKAGE.name


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
    kept = torch.get_rng_state()
    try:
        # A state that nobody else would have it in: not that of a seed that ``run`` sets itself.
        torch.default_generator.manual_seed(derive_seed(0, "check", "PyTorch's generator"))
        before = torch.get_rng_state()
        found = run()
        return found, torch.get_rng_state().equal(before)
    finally:
        torch.set_rng_state(kept)


@contextlib.contextmanager
def default_type(dtype: torch.dtype) -> Iterator[None]:
    """Have ``torch.zeros(n)`` and the like be of a type."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
