"""Signals: what ends a process politely ends a run as Ctrl-C does."""

import signal
from types import FrameType

_ended_by_system = False  # rather than by Ctrl-C


def ended_by_system() -> bool:
    """Has another signal than that of Ctrl-C arrived?"""
    return _ended_by_system


def stop_as_ctrl_c_does() -> None:
    """When the system ends the process, or the terminal closes (unless nohup says otherwise)."""
    for way in _ways_to_end():
        if way == signal.SIGTERM or signal.getsignal(way) != signal.SIG_IGN:
            signal.signal(way, _ended)


def _ways_to_end() -> list[signal.Signals]:
    names = ("SIGINT", "SIGTERM", "SIGHUP")  # the last one not on Windows
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


def _ended(number: int, frame: FrameType | None) -> None:
    global _ended_by_system
    _ended_by_system = number != signal.SIGINT
    for way in _ways_to_end():  # one is enough: what is under way is to end in good order
        signal.signal(way, signal.SIG_IGN)
    signal.default_int_handler(number, frame)
