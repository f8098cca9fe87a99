"""``--help``: what is shown, and that it fits a terminal."""

from pathlib import Path

import pytest
from helpers import CONF, l2lgd

from l2lgd.cli import convert, listing, scaffold
from l2lgd.cli.help import EVERYDAY, overview, verb_help
from l2lgd.cli.verbs import PLAIN, VERBS

COLUMNS = 80


@pytest.mark.parametrize(
    ("asked", "like"),
    [
        (["help"], ["--help"]),
        (["help", "tune"], ["tune", "--help"]),
        (["tune", "help"], ["tune", "--help"]),
        (["help", "new"], ["new", "--help"]),
        (["new", "help"], ["new", "--help"]),
    ],
)
def test_help_can_be_asked_for_in_words(asked: list[str], like: list[str], tmp_path: Path) -> None:
    found, expected = (l2lgd(*words, cwd=tmp_path) for words in (asked, like))
    assert found.returncode == 0
    assert found.stderr == ""
    assert found.stdout == expected.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", VERBS)
def test_help_fits_a_terminal_and_shows_everyday_options_first(verb: str) -> None:
    lines = verb_help(verb, VERBS[verb]).splitlines()
    assert max(map(len, lines)) <= COLUMNS
    begin, end = lines.index("everyday options:"), lines.index("other options:")
    shown = [line.split()[0] for line in lines[begin + 1 : end] if line[2:3].strip()]
    assert shown == EVERYDAY[verb].split()
    assert 8 <= len(shown) <= 15
    for line in lines[begin + 1 :]:  # what is wrapped stands below the meanings, not the names
        assert not line.startswith("   ") or line.startswith("        ")


def test_the_overview_and_help_of_plain_verbs_fit_a_terminal() -> None:
    for text in (overview(VERBS | PLAIN), scaffold.USAGE, listing.USAGE, convert.USAGE):
        assert max(map(len, text.splitlines())) <= COLUMNS


def test_help_says_where_a_task_has_another_default() -> None:
    text = " ".join(verb_help("meta-train", "").split())
    assert "one update of the weights [10000, or the task's]" in text
    assert "meta-steps between two checkpoints [50]" in text
    assert "in equal parts [20], or the task's" in text


def test_help_shows_the_options_of_what_is_chosen() -> None:
    text = verb_help("evaluate", "", ["task=quadratic", "opt=lstm_gac"])
    assert "  task.dimension " in text
    assert "task.hidden_layers" not in text
    assert "of the units of each layer" in text
    assert "  opt.hidden_size " in text, "an option that lstm_gac has from lstm"
    assert "options of task=mnist" in verb_help("evaluate", "", ["task=nonsense"])


@pytest.mark.parametrize("group", ["task", "opt", "unroll", "experiment", "search", "scale"])
def test_every_choice_has_one_line(group: str) -> None:
    verb = {"search": "tune", "scale": "figures"}.get(group, "meta-train")
    lines = verb_help(verb, "").splitlines()
    begin = next(k for k, line in enumerate(lines) if line.startswith(f"{group}="))
    for path in (CONF / group).glob("*.yaml"):
        place = next(
            k for k, line in enumerate(lines) if k > begin and line.startswith(f"  {path.stem} ")
        )
        assert not lines[place + 1].startswith("    "), path.stem
