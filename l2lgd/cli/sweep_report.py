"""What is said at the end of a sweep: the ranking, and what is left to do."""

import shlex
import sys
from typing import TYPE_CHECKING

from l2lgd.errors import ConfigError
from l2lgd.system import signals
from l2lgd.system.terminal import say

if TYPE_CHECKING:
    from l2lgd.runs.sweeps import Sweep


def forget_sweeps() -> None:
    """Those that earlier commands in this process have run."""
    sweeps = sys.modules.get("l2lgd.runs.sweeps")
    if sweeps is not None:
        sweeps.started.clear()


def after_sweep(gave_up: Exception | None = None) -> str:
    """Show the ranking of a sweep that this process has run; what to say of jobs that are left.

    Args:
        gave_up: what ended the sweep before its jobs did.
    """
    sweeps = sys.modules.get("l2lgd.runs.sweeps")
    if sweeps is None or not sweeps.started or not (sweeps.started[-1] / sweeps.SWEEP).is_file():
        return ""
    try:
        sweep = sweeps.Sweep.read(sweeps.started[-1])
    except ConfigError as error:
        return str(error)
    if gave_up is not None and not any(job.begun for job in sweep.jobs):
        return ""  # nothing was run: what went wrong says so itself
    from l2lgd.config.messages import one_line
    from l2lgd.runs.commands import rerun

    if any(job.seconds is not None for job in sweep.jobs):  # one has ended
        _show_ranking(sweep)
    left = sweep.left()
    if not left:
        return ""
    for job in left:
        if job.error or not signals.asked():
            said = job.error or "did not end"
            say(f"job {job.number} ({shlex.join(job.overrides)}): {said}")
    if gave_up is not None and not any(job.error for job in left):
        say(f"the launcher gave up: {one_line(gave_up)}")
    command = rerun(sweep.verb, sweep.folder)
    return f"{len(left)} of {len(sweep.jobs)} jobs did not succeed; to run them again: {command}"


def _show_ranking(sweep: "Sweep") -> None:
    """What it imports may not be there where an interruption has cut off the first import of it."""
    try:
        from l2lgd.runs import ranking

        ranking.show(sweep)
    except Exception:
        if not signals.asked():
            raise
