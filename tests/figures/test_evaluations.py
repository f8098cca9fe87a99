"""The evaluations of figures: which are made, with which optimizers, and how much is left."""

import json
import logging
import re
from pathlib import Path

import pytest
from helpers import on_terminal, screen

from l2lgd.figures.base import Evaluated, Evaluation
from l2lgd.figures.catalogue import FIGURES, QUADRATIC, TUNED
from l2lgd.figures.evaluations import Evaluations, Plan, united
from l2lgd.figures.schedule import Schedule, about, expected_seconds

ON_TERMINAL = """
import logging
from pathlib import Path
from l2lgd.figures.catalogue import QUADRATIC
from l2lgd.figures.evaluations import Evaluations, Plan
from l2lgd.tracking.console import TerminalLog
logging.basicConfig(level="INFO", format="%(message)s", handlers=[TerminalLog()])
options = ["seed=1", "threads=1", "logger=none"]
plan = Plan(Path("made"), {"quadratic": 1}, options, [], [], None, 1, Path("data"))
Evaluations(plan).make([QUADRATIC.showing(["adam"])])
"""


def shown_by(*figures: str) -> dict[str, tuple[str, ...]]:
    """By evaluation, the optimizers that are evaluated for figures beside the first."""
    wanted = [one for name in figures for one in FIGURES[name].evaluations().values()]
    return {one.name: one.shown() for one in united(wanted)}


def test_only_what_figures_show_is_evaluated() -> None:
    assert shown_by("4") == dict.fromkeys(("quadratic", "mnist", "mnist-200"), TUNED)
    assert shown_by("9") == dict.fromkeys(("neural_art", "neural_art_large"), ())
    assert shown_by("11") == {"neural_art": ("sgd", "adam")}
    assert shown_by("9", "11") == {"neural_art": ("sgd", "adam"), "neural_art_large": ()}
    assert shown_by("4", "mixture")["mnist"] == ("lstm_mixture", *TUNED)
    assert shown_by("8") == dict.fromkeys(("neural_art", "neural_art_large"), TUNED)


def test_what_is_missing_is_added_to_what_is_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    status, written = on_terminal("-c", ON_TERMINAL, cwd=tmp_path, columns=80)
    rows = screen(written, 80)
    assert status == 0, rows
    assert rows[:3] == [
        "1 of 1 evaluations to make, less than a minute",
        "quadratic: being evaluated",
        "quadratic: evaluated (1 of 1)",
    ]
    assert re.fullmatch(r"evaluations ━+ 1/1 \d:\d\d:\d\d", rows[3])
    assert b" quadratic\x1b" in written.replace(b"\r", b"\x1b"), "it was not said which"

    options = ["seed=1", "threads=1", "logger=none"]
    folder = tmp_path / "made"
    plan = Plan(folder, {"quadratic": 1}, options, [], [], None, 1, Path("data"))
    first = Evaluated(folder / "quadratic-1").curves
    assert set(first) == {"lstm", "adam"}
    made = Evaluations(plan).make([QUADRATIC.showing(["sgd"])])["quadratic"]
    assert isinstance(made, Evaluated), made
    assert set(made.curves) == {"lstm", "sgd", "adam"}
    assert made.curves["adam"].losses.equal(first["adam"].losses)
    assert "losses_from" in made.summary["results"]["adam"], "it was evaluated again"
    assert "losses_from" not in made.summary["results"]["sgd"]
    caplog.clear()
    with caplog.at_level(logging.INFO):
        Evaluations(plan).make([QUADRATIC.showing([]), QUADRATIC.showing(["adam"])])
    assert caplog.text == ""
    stamp = json.loads((folder / "quadratic-1" / "made_of.json").read_text(encoding="utf-8"))
    assert stamp["baselines"] == ["sgd", "adam"]


def test_the_time_left_follows_what_others_took() -> None:
    clock = [0.0]
    schedule = Schedule({"a": 10.0, "b": 20.0, "c": 30.0}, workers=2, now=lambda: clock[0])
    assert schedule.seconds_left() == 30
    schedule.begin("a")
    schedule.begin("b")
    clock[0] = 5.0
    assert schedule.under_way() == ["a", "b"]
    assert schedule.seconds_left() == 30  # c has to begin yet
    clock[0] = 20.0
    schedule.end("a")  # twice as long as expected: b and c will be, too
    assert schedule.done() == 1
    assert schedule.seconds_left() == 60
    schedule.begin("c")
    schedule.end("b", failed=True)  # no sign that the others are faster
    clock[0] = 50.0
    assert schedule.seconds_left() == pytest.approx(40 / 30 * 30 - 30)
    clock[0] = 500.0
    assert schedule.seconds_left() == 0
    schedule.end("c")
    assert schedule.seconds_left() == 0


def test_more_functions_and_optimizers_take_longer() -> None:
    one = Evaluation("own", (), "of no known size", ("a", "b"))
    assert expected_seconds(one, 2) > expected_seconds(one, 1)
    assert expected_seconds(one, 2) > expected_seconds(one.showing(["a"]), 2)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (29, "less than a minute"),
        (31, "about 1 minute"),
        (600, "about 10 minutes"),
        (7200, "about 2 hours"),
    ],
)
def test_times_are_said_roughly(seconds: float, said: str) -> None:
    assert about(seconds) == said
