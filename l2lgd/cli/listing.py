"""``l2lgd optimizers``: the trained weights that ship, and what a file says of itself."""

from collections.abc import Sequence
from typing import Any

import torch

from l2lgd.errors import ConfigError
from l2lgd.optimizers.base import tensors_of
from l2lgd.pretrained import weights

USAGE = "usage: l2lgd optimizers [NAME or FILE]"


def optimizers(words: Sequence[str]) -> None:
    """Print the table of what ships, or all about the weights of one name or file.

    Raises:
        ConfigError: there is more than one word.
        CheckpointError: there are no such weights.
    """
    from rich.console import Console

    if len(words) > 1:
        raise ConfigError(f"too many words; {USAGE}")
    console = Console()
    if words:
        _describe(weights.find(words[0]), console)
    else:
        _list(console)


def _list(console: Any) -> None:
    from rich.table import Table

    known = weights.about()
    table = Table(show_lines=True)
    for column in ("weights", "trained on", "works", "fails", "licence"):
        table.add_column(column)
    for name, lines in known.items():
        metadata = weights.find(name).metadata
        table.add_row(
            name, metadata["task_name"], lines["works"], lines["fails"], metadata["licence"]
        )
    console.print(table)
    others = [name for name in weights.names() if name not in known]
    console.print(f"and {len(others)} of the study of sharing: {', '.join(others)}")
    console.print("l2lgd optimizers NAME tells how they were made; in Python:")
    console.print('l2lgd.LearnedOptimizer(model.parameters(), weights="NAME")', highlight=False)


def _describe(found: weights.Weights, console: Any) -> None:
    metadata = found.metadata
    rows = weights.about().get(found.name, {}) | {
        "trained on": _data(metadata),
        "command": metadata.get("command"),
        "seed": metadata.get("seed"),
        "meta-step": metadata.get("meta_step"),
        "validation loss": metadata.get("validation_loss"),
        "numbers a parameter": _numbers(found),
        "device": metadata.get("device"),
        "versions": ", ".join(f"{k} {v}" for k, v in metadata.get("versions", {}).items()),
        "licence": metadata.get("licence"),
        "file": str(found.path),
    }
    ancestor, depth = metadata.get("begun_from"), 1
    while ancestor:
        rows[f"begun from ({depth})"] = ancestor.get("command")
        ancestor, depth = ancestor.get("begun_from"), depth + 1
    width = max(map(len, rows))
    for name, value in rows.items():
        if value not in (None, ""):
            console.print(
                f"{name:<{width}}  {value}", soft_wrap=True, markup=False, highlight=False
            )


def _data(metadata: dict[str, Any]) -> str | None:
    """The task, and the data where it has any."""
    data = metadata.get("data")
    task = metadata.get("task_name")
    return f"{task}, {data['name']} from {data['source']}" if data else task


def _numbers(found: weights.Weights) -> str:
    """Of the recurrent state, which is what an optimizer costs in memory."""
    optimizer = found.optimizer()
    if not optimizer.coordinatewise:
        return "depends on the model: coordinates share information"
    n = 1000
    state = optimizer.initial_state(torch.zeros(1, n))
    return f"{sum(part.numel() for part in tensors_of(state)) / n:.0f}"
