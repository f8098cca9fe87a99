"""Commands that are printed: whoever pastes one into a shell gets what it says."""

import shlex
from pathlib import Path

from l2lgd.config.overrides import option
from l2lgd.system import launch


def resumption(verb: str, folder: str | Path) -> str:
    """The command that goes on with the run of a folder."""
    return shlex.join([*launch.program(), verb, option("resume", folder)])


def rerun(verb: str, folder: Path) -> str:
    """The command that runs what a sweep has left undone."""
    return shlex.join(["l2lgd", verb, option("rerun", folder)])
