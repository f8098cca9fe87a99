"""The ranking of a sweep: any text in its table, and a table whatever becomes of the picture."""

from pathlib import Path

import pytest

from l2lgd.runs import ranking
from l2lgd.runs.sweeps import Job, Sweep

TEXTS = ("[]", "[bfgs]", "[/v2]", "[bold]x[/bold]", "a:smile:b", "$x_{$", "\\[x]")


@pytest.mark.parametrize("picture", ["drawn", "in the way"])
def test_brackets_and_formulas_are_shown_as_they_are(
    picture: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    folder = tmp_path / "b1 [/v2]"
    folder.mkdir(parents=True)
    if picture == "in the way":
        (folder / "sweep.png" / "in the way").mkdir(parents=True)
    jobs = [
        Job(k, [f"baselines={text}"], folder / str(k), "completed", 1.0 + k)
        for k, text in enumerate(TEXTS)
    ]
    ranking.show(Sweep(folder, "evaluate", [], jobs))
    said = capsys.readouterr().out
    for text in ("b1 [/v2]", *TEXTS):
        assert text in said
    assert (folder / "sweep.png").is_file() == (picture == "drawn")
    assert "[bold]x[/bold]" in (folder / "sweep.csv").read_text(encoding="utf-8")
