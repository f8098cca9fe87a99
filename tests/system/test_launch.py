"""What torchrun says in the end, and processes that end with the one that started them."""

from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from l2lgd.system import launch


def test_the_report_of_torchrun_ends_with_what_went_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(file))
    launch.tell_torchrun("l2lgd: größe=1 is too small")
    told = ProcessFailure(local_rank=0, pid=1, exitcode=2, error_file=str(file))
    silent = ProcessFailure(local_rank=1, pid=2, exitcode=2, error_file=str(tmp_path / "none"))
    report = str(ChildFailedError("l2lgd", {0: told, 1: silent}))
    assert "l2lgd: größe=1 is too small" in report.partition("Root Cause")[2]


def test_without_torchrun_or_a_place_to_tell_nothing_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCHELASTIC_ERROR_FILE", raising=False)
    launch.tell_torchrun("l2lgd: a mistake")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "no" / "error.json"))
    launch.tell_torchrun("l2lgd: a mistake")
    assert not list(tmp_path.iterdir())


def test_a_process_that_is_no_worker_is_not_ended() -> None:
    launch.end_with(1)
    assert not launch._watched
