"""scripts/torture.py in its short form."""

import os

import pytest
from helpers import SCRIPTS, python


@pytest.mark.parametrize(
    ("what", "times", "said"),
    [
        ("kills", 3, "weights and metrics are those of a run without a break"),
        ("damage", 36, "36 damaged checkpoints, all detected"),
        ("words", 40, "40 bad command lines"),
    ],
)
def test_nothing_is_lost(what: str, times: int, said: str) -> None:
    ran = python(str(SCRIPTS / "torture.py"), what, "--times", str(times))
    assert ran.returncode == 0, ran.stderr
    assert said in ran.stdout


def test_nothing_is_lost_on_a_full_disk() -> None:
    if os.geteuid():
        pytest.skip("a tmpfs needs root")
    ran = python(str(SCRIPTS / "torture.py"), "disk", "--times", "4")
    if "no tmpfs can be mounted here" in ran.stderr:
        pytest.skip("no tmpfs can be mounted here")
    assert ran.returncode == 0, ran.stderr
