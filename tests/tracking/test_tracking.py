"""metrics.jsonl: one valid line a record, kept up to the checkpoint when a run goes on."""

import json
import math
from pathlib import Path

import pytest
from helpers import json_lines

from l2lgd.tracking.loggers import About
from l2lgd.tracking.metrics import series
from l2lgd.tracking.tracker import RunTracker

LABELS = ("outer", "inner")


def test_every_record_is_on_disk_as_soon_as_it_is_logged(tmp_path: Path) -> None:
    tracker = RunTracker(About(tmp_path, "", {}), LABELS)
    for step in (1, 2):
        tracker.log(step, {"loss": 0.5 / step, "other": math.inf})
        lines = json_lines(tmp_path / "metrics.jsonl")
        assert [line["step"] for line in lines] == [*range(1, step + 1)]
    assert lines[1]["loss"] == 0.25
    assert lines[1]["other"] is None, "JSON has no infinity"
    assert lines[0]["time"] <= lines[1]["time"]
    tracker.close()


def test_going_on_keeps_the_lines_up_to_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    before = [json.dumps({"step": step, "time": 0.0}) for step in (1, 9, 2, 2, 3, 4)]
    path.write_text("\n".join([*before, '{"step": 5, "ti']))  # cut short by the crash
    tracker = RunTracker(About(tmp_path, "", {}, resume_at=2), LABELS)
    tracker.log(3, {"again": 1.0})
    tracker.close()
    assert [line["step"] for line in json_lines(path)] == [1, 2, 2, 3]
    assert json_lines(path)[-1]["again"] == 1.0


def test_lines_that_are_damaged_or_missing_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step}) for step in range(1, 6)]
    path.write_text("\n".join([*lines[:2], "\0" * 20, *lines[3:], ""]))
    RunTracker(About(tmp_path, "", {}, resume_at=5), LABELS).close()
    assert [line["step"] for line in json_lines(path)] == [1, 2, 4, 5]
    assert "1 damaged lines are left out" in caplog.text
    assert "1 steps are missing" in caplog.text
    caplog.clear()
    RunTracker(About(tmp_path, "", {}, resume_at=7), LABELS).close()
    assert "ends at step 5" in caplog.text


def test_a_new_run_begins_a_new_file(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    tracker = RunTracker(About(tmp_path, "", {}), LABELS)
    tracker.log(7, {})
    tracker.close()
    tracker.close()
    assert [line["step"] for line in json_lines(tmp_path / "metrics.jsonl")] == [7]


def test_values_are_read_by_name_and_damage_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [
        '{"step": 1, "a": 0.5}',
        "damaged",
        '{"step": 2, "a": null, "b": 3}',
        "[1]",
        '{"a": 1}',
    ]
    path.write_text("\n".join(lines))
    found = series(path, "a", "b", "c")
    assert [step for step, _ in found["a"]] == [1, 2]
    assert found["a"][0][1] == 0.5
    assert math.isnan(found["a"][1][1])
    assert found["b"] == [(2, 3)]
    assert found["c"] == []
