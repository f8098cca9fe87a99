"""What a person sees while a run is under way, read from the screen of a terminal."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from helpers import l2lgd, on_terminal, screen

SMALL = ("task=quadratic", "num_functions=2", "num_steps=20", "logger=none", "threads=1")
TRAINING = ("validation_functions=2", "validate_every=20", "unroll.lengths=[5]", "meta_steps=100")
RUNS = {
    "meta-train": (*SMALL, *TRAINING),
    "evaluate": (*SMALL, "tune_functions=1"),
    "tune": (*SMALL, "lowest_rate=1e-3", "highest_rate=1"),
    "tune trials": (
        *("search=meta_learning_rate", *SMALL, *TRAINING, "meta_steps=20"),
        *("trials=2", "lowest_rate=1e-3", "highest_rate=1e-2"),
    ),
    "stylize": (),
}
BARS = {  # that are left in the end, each with what it must have counted to
    "meta-train": {"meta-steps": 100, "trajectory": 20},
    "evaluate": {"optimizers": 5, "steps": 20},
    "tune": {"optimizers": 4, "steps": 20},
    "tune trials": {},
    "stylize": {"pictures": 2, "steps": 3},
}
ENDS = {  # of the last lines
    "meta-train": ("run/training.png", "run/summary.json", "run"),
    "evaluate": ("run/curves.png", "run/summary.json", "run"),
    "tune": ("run/search.png", "run/summary.json", "run"),
    "tune trials": ("run/search.png", "run/summary.json", "run"),
    "stylize": ("painted.png", "painted-adam.png", "run/summary.json", "run"),
}
BAR = re.compile(r"(?P<label>[\w -]+?) +━+ +(?P<done>\d+)/(?P<total>\d+)(?: +\d+:\d\d:\d\d.*)?")
RECORD = re.compile(r"\[[^]]*\]\[[^]]*\]\[[A-Z]+\] (.*)")


def logged(folder: Path) -> list[str]:
    """The messages in the log file of a run."""
    (file,) = folder.glob("*.log")
    lines = file.read_text(encoding="utf-8").splitlines()
    found = [RECORD.fullmatch(line) for line in lines]
    assert all(found), lines
    return [match[1] for match in found if match]


def wrapped(line: str, columns: int) -> list[str]:
    """The rows that a terminal makes of a line."""
    return [line[k : k + columns].rstrip() for k in range(0, len(line), columns)]


def without(rows: Sequence[str], lines: Sequence[str], columns: int) -> list[str]:
    """The rows that are not those of the lines, which must all be there, whole and in order."""
    left, rest = [], list(rows)
    for line in lines:
        expected = wrapped(line, columns)
        while rest[: len(expected)] != expected:
            assert rest, f"{line!r} is not on the screen:\n" + "\n".join(rows)
            left.append(rest.pop(0))
        del rest[: len(expected)]
    return left + rest


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("run", BARS)
def test_lines_are_whole_and_bars_end_full(
    run: str, columns: int, gallery: dict[str, str], art_weights: str, tmp_path: Path
) -> None:
    words = [run.split()[0], *RUNS[run], "hydra.run.dir=run"]
    if run == "stylize":
        photograph = Path(gallery["content"]) / "test" / "0.png"
        words += [str(photograph), gallery["style"], "-o", "painted.png", "beside=adam"]
        words += ["task.content_layers=[conv2_2]", "size=20", "num_steps=3"]
        words += [f"checkpoint={art_weights}", f"task.vgg.weights={gallery['vgg']}"]
    given = {"L2LGD_DATA": str(tmp_path / "data")}
    status, written = on_terminal("-m", "l2lgd", *words, cwd=tmp_path, columns=columns, **given)
    rows = screen(written, columns)
    assert status == 0, rows
    lines = logged(tmp_path / "run")
    left = without(rows, lines, columns)
    found = [BAR.fullmatch(row) for row in left if row[0] not in "┏┃┡│└"]  # the table of evaluate
    assert all(found), left
    bars = {match["label"]: (int(match["done"]), int(match["total"])) for match in found if match}
    assert bars == {label: (count, count) for label, count in BARS[run].items()}
    assert len(found) == len(bars), left
    ends = [line.rpartition(": ")[2] for line in lines[-len(ENDS[run]) :]]
    assert tuple(ends) == ENDS[run]
    assert b"\x1b[?25h" in written.rpartition(b"\x1b[?25l")[2], "the cursor is left hidden"


def test_a_file_gets_lines_and_no_bars(tmp_path: Path) -> None:
    ran = l2lgd(
        "meta-train",
        *RUNS["meta-train"],
        "hydra.run.dir=run",
        cwd=tmp_path,
        FORCE_COLOR="1",
        TTY_COMPATIBLE="1",
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.splitlines() == logged(tmp_path / "run")


def test_what_a_message_has_for_the_terminal_is_left_out(tmp_path: Path) -> None:
    strange = "run\x1b[2J"
    words = ("-m", "l2lgd", "tune", *RUNS["tune"], "baselines=[sgd]", f"hydra.run.dir='{strange}'")
    status, written = on_terminal(
        *words, cwd=tmp_path, columns=80, L2LGD_DATA=str(tmp_path / "data")
    )
    assert status == 0
    assert b"\x1b[2J" not in written
    assert screen(written, 80)[-1] == "run folder: run [2J"


DRAW = """
from l2lgd.tracking.console import Bars
bars = Bars(("outer", "inner"))
bars.update(0, 3, 10, "a long note, " * 20)
bars.update(1, 3, 10)
bars.stop()
"""


@pytest.mark.parametrize("columns", [30, 80])
def test_bars_have_one_row_each_however_long_the_note(columns: int, tmp_path: Path) -> None:
    status, written = on_terminal("-c", DRAW, cwd=tmp_path, columns=columns)
    rows = screen(written, columns)
    assert status == 0, rows
    assert len(rows) == 2, rows
    for row, label in zip(rows, ("outer", "inner"), strict=True):
        assert re.match(rf"{label} +[━╺╸]+ +3/10", row)
    assert "a lo" in rows[0]
