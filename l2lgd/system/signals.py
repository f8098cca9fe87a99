"""Signals that ask for the end of the process: Ctrl-C, SIGTERM, a terminal that closes.

Each raises KeyboardInterrupt in the main thread. Code of others may swallow that, as imports and
callbacks do; so it is raised again where that is noticed, at the next :func:`check`, and by the
second signal. A thread ends the process at the third one, and some seconds after the second,
whatever the main thread is busy with.
"""

import contextlib
import math
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

STATUS = 130  # of a process that has ended so
TOGETHER = 0.5  # seconds in which signals count as one: shell, terminal and launcher send their own
GRACE = 5.0  # seconds that the second one leaves
SOON = 0.01  # seconds after which what Python has ignored is raised again, in its caller
WAYS = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)]
SHOW_CURSOR = b"\x1b[?25h"  # which progress bars hide


class Count:
    """How many signals have arrived."""

    def __init__(self) -> None:
        self.number = 0
        self._last = -math.inf

    def add(self, now: float) -> bool:
        """Count one, at a time in seconds; False where it belongs to the one before."""
        if now - self._last < TOGETHER:
            return False
        self._last = now
        self.number += 1
        return True


class _State:
    """What the main thread knows."""

    def __init__(self) -> None:
        self.count = Count()
        self.by_system = False  # rather than by Ctrl-C
        self.held = False
        self.swallowed = False
        self.repeated = 0  # signals of our own
        self.ending = False


_now = _State()
_heeded = False
_stays = False


def asked() -> bool:
    """Has the end been asked for?"""
    return _now.count.number > 0


def asked_by_system() -> bool:
    """By another signal than that of Ctrl-C?"""
    return _now.by_system


def check() -> None:
    """At a place from which the process can end: raise KeyboardInterrupt if it is to."""
    if asked() and not _now.ending:
        raise KeyboardInterrupt


def ending() -> None:
    """The last lines are being said: raise nothing any more."""
    _now.ending = True


def stay() -> None:
    """The process is about to end: further signals say nothing new."""
    global _stays
    _stays = True
    for way in WAYS:
        if signal.getsignal(way) == _arrived:
            signal.signal(way, signal.SIG_IGN)  # Python's end would leave no other handler


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Work that the first signal leaves time to end."""
    _now.held = True
    try:
        yield
    finally:
        _now.held = False
    check()


@contextlib.contextmanager
def heeded() -> Iterator[None]:
    """Heed signals; in the end they mean again what they did before.

    Only a main thread can, and only one such block at a time: elsewhere this does nothing.
    """
    global _now, _heeded
    if _heeded or threading.current_thread() is not threading.main_thread():
        yield
        return
    _now, _heeded = _State(), True
    before: dict[int, Any] = {}
    hook = sys.unraisablehook
    try:
        with _watched():
            for way in WAYS:
                found = signal.getsignal(way)  # None: of no Python code
                ignored = found is None or (found == signal.SIG_IGN and way != signal.SIGTERM)
                if not ignored:  # as under nohup
                    before[way] = signal.signal(way, _arrived)
            sys.unraisablehook = _swallowed
            yield
    finally:
        if not _stays:
            sys.unraisablehook = hook
            for number, handler in before.items():
                signal.signal(number, handler)
            _now, _heeded = _State(), False


def _arrived(number: int, frame: FrameType | None) -> None:
    now = _now
    new, again = now.count.add(time.monotonic()), now.swallowed
    now.swallowed = False
    if new:
        now.by_system |= number != signal.SIGINT
    first_held = now.held and now.count.number == 1
    if (new or again) and not first_held and not now.ending:
        raise KeyboardInterrupt


def _swallowed(unraisable: Any) -> None:
    """An error that Python can hand to nobody, such as one in a destructor."""
    if not (asked() and issubclass(unraisable.exc_type, KeyboardInterrupt)):
        sys.__unraisablehook__(unraisable)
    elif hasattr(signal, "pthread_kill"):  # elsewhere the next check will do
        _now.swallowed = True
        threading.Timer(SOON, _repeat, [_now]).start()


def _repeat(now: _State) -> None:
    if now.swallowed:
        now.repeated += 1
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    """Have a thread see every signal when it arrives, though the main thread may not listen."""
    if os.name != "posix":
        yield
        return
    here, there = os.pipe()
    os.set_blocking(there, False)
    others = signal.set_wakeup_fd(there, warn_on_full_buffer=False)
    if others != -1:  # a program that has a use for them calls this one
        signal.set_wakeup_fd(others)
    threading.Thread(target=_watch, args=(here, _now), name="signals", daemon=True).start()
    try:
        yield
    finally:
        if not _stays:
            if others == -1:
                signal.set_wakeup_fd(-1)
            os.close(there)  # which ends the thread


def _watch(descriptor: int, now: _State) -> None:
    count, end, repeated = Count(), math.inf, 0
    while True:
        wait = None if end == math.inf else max(0.0, end - time.monotonic())
        if not select.select([descriptor], [], [], wait)[0]:
            _end_at_once()
        numbers = os.read(descriptor, 100)
        if not numbers:
            os.close(descriptor)
            return
        for number in numbers:
            if repeated < now.repeated:
                repeated += 1
            elif number in WAYS and count.add(time.monotonic()):
                if count.number == 2:
                    end = time.monotonic() + GRACE
                elif count.number > 2:
                    _end_at_once()


def _end_at_once() -> None:
    with contextlib.suppress(OSError):
        if os.isatty(2):
            os.write(2, SHOW_CURSOR)
        os.write(2, b"l2lgd: ended at once\n")
    os._exit(STATUS)


def _in_child() -> None:
    """A fork without a program of its own: it has nothing to end in good order."""
    if _heeded:
        signal.set_wakeup_fd(-1)
        for way in WAYS:
            if signal.getsignal(way) == _arrived:
                signal.signal(way, signal.SIG_DFL)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
