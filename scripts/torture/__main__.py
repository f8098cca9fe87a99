"""Faults, many times over: runs that are killed, damaged files, full disks, bad command lines.

    python scripts/torture kills --times 100      # SIGKILL at random moments, each time resumed
    python scripts/torture particles --times 20   # the same of estimator=pes
    python scripts/torture signals --times 9      # SIGTERM, SIGINT and SIGHUP in the same way
    python scripts/torture starts --times 200      # one of these in the first seconds of a run
    python scripts/torture evaluations --times 10  # SIGKILL while rates are tuned and evaluated
    python scripts/torture tunings --times 10      # the same of a search of rates
    python scripts/torture drawings --times 10     # and of a figure
    python scripts/torture benchmarks --times 10   # and of a benchmark
    python scripts/torture clock                  # a clock that jumps
    python scripts/torture damage --times 200     # checkpoints cut short, or with a bit flipped
    python scripts/torture data --times 100       # other files cut short
    python scripts/torture unwritable             # folders without permission
    python scripts/torture words --times 500      # mistakes on the command line
    python scripts/torture values --times 1000    # any value for any option
    python scripts/torture disk                   # a tmpfs that fills up (needs root)
    python scripts/torture writes --times 100     # the disk full from the k-th write on
    python scripts/torture rank                   # one of two processes under torchrun killed
    python scripts/torture long --times 10000     # meta-steps: memory, open files, speed

Every one prints what it has seen and exits with 1 where something does not hold. Faults come from
``--seed``; the moments of kills are those of a clock, so no two runs are quite alike.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torture_files as files
import torture_lines as lines
import torture_runs as runs
import torture_starts as starting
from torture_common import Broken

TORTURES: dict[str, Callable[[Path, int, random.Random], str]] = {
    torture.__name__: torture
    for torture in (
        *(
            runs.kills,
            runs.particles,
            runs.signals,
            starting.starts,
            runs.evaluations,
            runs.tunings,
            runs.drawings,
            runs.benchmarks,
            runs.clock,
        ),
        *(files.damage, files.data, files.disk, files.writes, files.unwritable),
        *(lines.words, lines.values, runs.rank, runs.long),
    )
}


def main() -> int:
    """Run one torture; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=TORTURES)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.times < 1:
        parser.error(f"--times {given.times}: must be at least 1")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="torture-") as folder:
        try:
            said = TORTURES[given.what](Path(folder), given.times, random.Random(given.seed))
        except Broken as broken:
            print(f"{given.what}: DOES NOT HOLD: {broken}", file=sys.stderr)
            return 1
    print(f"{given.what}: {said} ({time.monotonic() - began:.0f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
