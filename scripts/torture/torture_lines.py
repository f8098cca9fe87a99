"""Tortures of the command line."""

import random
from pathlib import Path

from torture_common import expect, forked, in_one_line, prepare
from torture_words import VALID, any_value, mistake, options


def words(folder: Path, times: int, draw: random.Random) -> str:
    """Mistakes of any kind: one line that names the option, status 2, and nothing is done."""
    prepare(folder, draw)
    wrong = []
    for _ in range(times):
        line, names = mistake(draw)
        status, said = forked(folder, line)
        if status != 2 or not in_one_line(said, names):
            wrong.append(f"l2lgd {' '.join(line)}: status {status}: {said}")
    expect(not wrong, "\n".join(wrong))
    return f"{times} bad command lines, each answered in one line with status 2"


def values(folder: Path, times: int, draw: random.Random) -> str:
    """Any value for any option of any verb: it runs, or one line that names the option."""
    prepare(folder, draw)
    all_options = [(verb, name) for verb in VALID for name in options(verb)]
    refused, wrong = 0, []
    for number in range(times):
        line, names = any_value(draw, all_options[number % len(all_options)])
        status, said = forked(folder, line)
        refused += status == 2
        if status and (status != 2 or not in_one_line(said, names)):
            wrong.append(f"l2lgd {' '.join(line)}: status {status}: {said}")
    expect(not wrong, "\n".join(wrong))
    return (
        f"{times} values for {min(times, len(all_options))} of {len(all_options)} options: "
        f"{refused} refused in one line with status 2, with the others it runs"
    )
