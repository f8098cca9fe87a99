"""Text of files does nothing to the terminal that shows it."""

import logging
from pathlib import Path

import pytest
from rich.table import Table

from l2lgd.cli.commands import _show
from l2lgd.system.terminal import printable, say, show
from l2lgd.tracking.console import LogFile, TerminalLog

EVIL = "\x1b[2Jgone\r\x07\x9b31m\u202e"


def harmless(text: str) -> bool:
    return all(line.isprintable() for line in text.splitlines())


def test_whatever_way_it_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    table = Table(title=EVIL)
    table.add_column(EVIL)
    table.add_row(EVIL)
    record = logging.makeLogRecord({"msg": "%s\n%s", "args": (EVIL, EVIL)})
    show(table)
    _show(f"{EVIL}\n{EVIL}")
    say(EVIL)
    TerminalLog().emit(record)
    file = LogFile(tmp_path / "log", encoding="utf-8")
    file.emit(record)
    file.close()
    shown = capsys.readouterr()
    assert shown.out.count("gone") == 5
    assert shown.err.count("gone") == 3
    assert harmless(shown.out + shown.err)
    kept = (tmp_path / "log").read_text(encoding="utf-8")
    assert kept.count("gone") == 2
    assert harmless(kept)


@pytest.mark.parametrize(
    "name",
    [
        "no\u00a0break",
        "narrow\u202fno\u2009break",
        "soft\u00adhyphen",
        "👩\u200d🔬",
        "می\u200cخواهم",
        "\U0001fae8",  # of a later Unicode than that of older Pythons
        "\ue0b0",
        "ide\u3000o",
    ],
)
def test_a_name_that_does_nothing_is_shown_as_it_is(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert printable(name) == name
    say(name)
    assert capsys.readouterr().err == f"{name}\n"


@pytest.mark.parametrize("letter", [*map(chr, range(32)), *map(chr, range(127, 160))])
def test_nothing_that_a_terminal_heeds_is_shown(letter: str) -> None:
    assert printable(f"a{letter}b") == "a b"


@pytest.mark.parametrize("letter", "\u061c\u200e\u200f\u202a\u202e\u2066\u2069\u2028\u2029\udcff")
def test_nor_what_turns_or_breaks_a_line(letter: str) -> None:
    assert printable(f"a{letter}b") == "a b"


def test_a_table_is_drawn_as_ever(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    table = Table("naïve", "größer")
    table.add_row("a – b", "1.5")
    show(table)
    lines = capsys.readouterr().out.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert "│ a – b │ 1.5    │" in lines
