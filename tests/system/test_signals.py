"""Signals: what the first, the second and the third do, wherever they arrive."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers import environment

from l2lgd.system import signals

WAYS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def _as_in_a_terminal() -> Iterator[None]:
    """Who runs the tests may ignore signals, as nohup does."""
    before = {way: signal.getsignal(way) for way in WAYS}
    for way in WAYS:
        signal.signal(way, signal.SIG_DFL)
    yield
    for way, handler in before.items():
        signal.signal(way, handler)


class Clock:
    """Stands still until it is told to go on; the thread that watches would read it too late."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 1000.0
        monkeypatch.setattr(signals, "_watched", contextlib.nullcontext)
        monkeypatch.setattr("l2lgd.system.signals.time.monotonic", lambda: self.seconds)


@pytest.mark.parametrize("way", WAYS)
def test_the_first_signal_interrupts_and_handlers_are_put_back(way: signal.Signals) -> None:
    before = [signal.getsignal(one) for one in WAYS]
    with signals.heeded():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(way)
        assert signals.asked()
        assert signals.asked_by_system() == (way != signal.SIGINT)
    assert [signal.getsignal(one) for one in WAYS] == before
    assert not signals.asked()
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.parametrize(
    ("moments", "number"),
    [([0], 1), ([0, 0.1, 0.4], 1), ([0, 0.6], 2), ([0, 0.3, 0.6, 0.9, 1.2], 3), ([5, 9, 9.1], 2)],
)
def test_signals_that_come_together_count_as_one(moments: list[float], number: int) -> None:
    count = signals.Count()
    new = [count.add(moment) for moment in moments]
    assert count.number == number == sum(new)
    assert new[0]


def test_the_second_signal_interrupts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    with signals.heeded():
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)  # belongs to the one before
            clock.seconds += 1


def test_who_swallows_an_interruption_meets_it_at_the_next_check() -> None:
    with signals.heeded():
        signals.check()  # nobody has asked
        with contextlib.suppress(BaseException):  # as some imports do
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signals.check()
        signals.ending()
        signals.check()
        signal.raise_signal(signal.SIGTERM)


class Dying:
    def __init__(self, at_death: Callable[[], object]) -> None:
        self.at_death = at_death

    def __del__(self) -> None:
        self.at_death()


def test_an_interruption_of_a_destructor_or_callback_is_raised_in_its_caller(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def ask(*_: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    def in_destructor() -> None:
        dying = Dying(ask)
        del dying

    def in_callback() -> None:
        watched = Dying(lambda: None)
        reference = weakref.ref(watched, ask)
        del watched
        assert reference() is None

    def waits(swallowed: Callable[[], None]) -> None:
        swallowed()
        threading.Event().wait(60)

    for swallowed in (in_destructor, in_callback):
        with signals.heeded(), pytest.raises(KeyboardInterrupt):
            waits(swallowed)
    assert "Exception ignored" not in capfd.readouterr().err


def test_other_errors_of_destructors_are_still_told(capfd: pytest.CaptureFixture[str]) -> None:
    with signals.heeded():
        dying = Dying(lambda: 1 / 0)
        del dying
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_work_is_ended_before_the_first_signal_counts_but_not_before_the_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, done = Clock(monkeypatch), []

    def work(number: int) -> None:
        with signals.held():
            for k in range(1, number + 1):
                signal.raise_signal(signal.SIGTERM)
                clock.seconds += 1
                done.append(f"{k} of {number}")

    for number in (1, 2):
        with signals.heeded(), pytest.raises(KeyboardInterrupt):
            work(number)
    assert done == ["1 of 1", "1 of 2"]


def test_signals_that_are_ignored_stay_so_except_the_system_s() -> None:
    for way in WAYS:
        signal.signal(way, signal.SIG_IGN)
    with signals.heeded():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGHUP)
        assert not signals.asked()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN


def test_a_thread_heeds_nothing_and_a_program_keeps_its_own_descriptor() -> None:
    handlers = []

    def in_thread() -> None:
        with signals.heeded():
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    assert handlers == [signal.SIG_DFL]
    here, there = os.pipe()
    os.set_blocking(there, False)
    signal.set_wakeup_fd(there)
    with signals.heeded():
        pass
    assert signal.set_wakeup_fd(-1) == there
    os.close(here)
    os.close(there)


def test_a_fork_has_signals_as_any_program() -> None:
    with signals.heeded():
        process = os.fork()
        if process == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        _, status = os.waitpid(process, 0)
        assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM
        assert not signals.asked()


DEAF = """
import os, sys, time
from l2lgd.system import signals
signals.GRACE = float(sys.argv[1])
with signals.heeded():
    while True:
        try:
            os.write(1, b"heeds\\n")
            time.sleep(1000)
        except KeyboardInterrupt:
            pass
"""


def sent_until(ended: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Signals that come together are one: send them until one has counted."""
    while not ended():
        process.send_signal(signal.SIGTERM)


@pytest.mark.parametrize(("grace", "number"), [("1000", 3), ("0.1", 2)])
def test_what_swallows_everything_ends_at_the_third_or_soon_after_the_second(
    grace: str, number: int, tmp_path: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", DEAF, grace],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        out, errors = process.stdout, process.stderr
        assert out
        assert errors
        assert out.readline() == b"heeds\n"
        for _ in range(2):
            sent_until(lambda: bool(select.select([out], [], [], 0.02)[0]), process)
            assert out.readline() in (b"heeds\n", b"")
        if number == 3:
            sent_until(lambda: process.poll() is not None, process)
        assert process.wait(60) == signals.STATUS
        assert errors.read() == b"l2lgd: ended at once\n"
