"""What is said when a command has not done what it was to."""

import time

from l2lgd.cli.sweep_report import after_sweep
from l2lgd.errors import ProcessLost
from l2lgd.system import launch, signals
from l2lgd.system.terminal import say

USAGE_ERROR = 2
OTHERS_TURN = 5.0  # seconds in which torchrun ends a process whose mistake is everybody's


def fail(message: str, everybodys: bool = True) -> int:
    """Say what went wrong; returns the exit status.

    Args:
        everybodys: other processes of this run are likely to say the same.
    """
    rank = launch.rank()
    if rank and everybodys:
        # Most mistakes are everybody's: then rank 0 says so, and torchrun stops the others.
        try:
            time.sleep(OTHERS_TURN)
        except KeyboardInterrupt:
            return USAGE_ERROR
    said = f"l2lgd{f' (process {rank})' if rank else ''}: {message}"
    launch.tell_torchrun(said)
    say(said)
    return USAGE_ERROR


def interrupted(error: BaseException) -> int:
    """Say so, and with what command to go on; returns the exit status.

    Args:
        error: a KeyboardInterrupt, or what an interruption has led to.
    """
    way_on = ""
    at: BaseException | None = error
    while at is not None:  # one may follow another
        if isinstance(at, ProcessLost):  # torchrun ends all processes as soon as one has ended
            return fail(str(at), everybodys=False)
        if isinstance(at, KeyboardInterrupt):
            way_on = way_on or str(at)
        at = at.__context__
    rank, left = launch.rank(), after_sweep()
    way_on = left or (way_on and f"to go on: {way_on}")
    if rank == 0 or signals.asked_by_system():  # Ctrl-C reaches all, and one word is enough
        whose = f" (process {rank})" if rank else ""
        say(f"l2lgd{whose}: interrupted{way_on and '; '}{way_on}")
    return signals.STATUS
