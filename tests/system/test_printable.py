"""Text of files does nothing to the terminal that shows it."""

import logging
from pathlib import Path

import pytest
from rich.table import Table

from l2lgd.cli.commands import _show
from l2lgd.system.terminal import say, show
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
