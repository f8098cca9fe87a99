"""What a benchmark leaves besides its summary: tables and pictures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from l2lgd.benchmark.pictures import draw, draw_axes
from l2lgd.benchmark.tables import markdown
from l2lgd.results.pictures import drawn
from l2lgd.storage.files import write_atomically


def write(folder: Path, summary: Mapping[str, Any]) -> dict[str, Path]:
    """Write them; by what they are, the files that there are now.

    Args:
        summary: as in ``summary.json``, where null stands for what is infinite.
    """
    found = {}
    picture = drawn(folder / "benchmark.png", lambda path: draw(path, summary))
    if picture is not None:
        found["picture"] = picture
    if any(task.get("axis") for task in summary["tasks"].values()):
        varied = drawn(folder / "generalisation.png", lambda path: draw_axes(path, summary))
        if varied is not None:
            found["along what is varied"] = varied
    write_atomically(folder / "table.md", markdown(summary).encode())
    return {**found, "tables": folder / "table.md"}
