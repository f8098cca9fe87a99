"""scripts/torture in its short form."""

import os
import shutil

import pytest
from helpers import SCRIPTS, python, thinned


def torture(what: str, times: int, **variables: str) -> str:
    ran = python(str(SCRIPTS / "torture"), what, "--times", str(times), **variables)
    if "can be mounted here" in ran.stderr:
        pytest.skip("no tmpfs can be mounted here")
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


# tests/verbs/test_end_to_end.py kills a run, too.
KILLS = ("kills", 3, "weights and metrics are those of a run without a break")
OTHERS = [
    ("damage", 36, "36 damaged checkpoints, all detected"),
    ("words", 10, "10 bad command lines"),
    ("values", 10, "10 values"),
    ("unwritable", 1, "each refused in one line"),
]


@pytest.mark.parametrize(("what", "times", "said"), thinned([KILLS, *OTHERS], OTHERS))
def test_nothing_is_lost(what: str, times: int, said: str) -> None:
    assert said in torture(what, times)


def test_files_of_data_that_are_cut_short_are_refused(mnist_dir: str) -> None:
    assert "6 files cut short" in torture("data", 6, L2LGD_DATA=mnist_dir)


@pytest.mark.skipif(
    shutil.which(os.environ.get("CC", "cc")) is None, reason="there is no C compiler"
)
@pytest.mark.parametrize(
    ("what", "times", "said"),
    [("writes", 2, "one line, and then the same results"), ("clock", 1, "it went back")],
)
def test_nothing_is_lost_on_a_full_disk_and_where_the_clock_jumps(
    what: str, times: int, said: str
) -> None:
    assert said in torture(what, times)
