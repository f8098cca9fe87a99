"""``l2lgd optimizers``: the trained weights that ship, and what a file says of itself."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from l2lgd.cli.help import columns
from l2lgd.errors import ConfigError
from l2lgd.optimizers.base import tensors_of
from l2lgd.pretrained import weights
from l2lgd.system.terminal import printable

USAGE = "usage: l2lgd optimizers [NAME|FILE]"
LICENCE = "They may be used and passed on under the licence {}."


def optimizers(words: Sequence[str]) -> str:
    """The list of what ships, or all about the weights of one name or file.

    Raises:
        ConfigError: there is more than one word.
        CheckpointError: there are no such weights.
    """
    if len(words) > 1:
        raise ConfigError(f"too many words; {USAGE}")
    return _described(weights.find(words[0])) if words else _list()


def _list() -> str:
    """A line for each."""
    known = weights.about()
    metadata = {name: weights.find(name).metadata for name in weights.names()}
    others = [name for name in metadata if name not in known]
    licences = sorted({told["licence"] for told in metadata.values()})
    lines = ["optimizers that ship:"]
    lines += _table({name: (metadata[name]["task_name"], known[name]["for"]) for name in known})
    lines += ["", "of the study of sharing:"]
    lines += _table({name: (metadata[name]["task_name"], "") for name in others})
    return "\n".join(
        [
            *lines,
            "",
            "l2lgd optimizers NAME tells where one works, where it fails and how it was made.",
            "l2lgd evaluate checkpoint=NAME compares it; in Python:",
            'l2lgd.LearnedOptimizer(model.parameters(), weights="NAME")',
            LICENCE.format(", ".join(licences)),
        ]
    )


def _table(rows: dict[str, tuple[str, str]]) -> list[str]:
    """Name, what it was trained on, what it is for."""
    title = ("name", "trained on", "for" if any(use for _, use in rows.values()) else "")
    lines = [title, *((name, *said) for name, said in rows.items())]
    first, second = (max(len(line[k]) for line in lines) for k in range(2))
    return [f"  {a:<{first}}  {b:<{second}}  {c}".rstrip() for a, b, c in lines]


def _described(found: weights.Weights) -> str:
    metadata = found.metadata
    rows = weights.about().get(found.name, {}) | {
        "trained on": _data(metadata),
        "seed": metadata.get("seed"),
        "meta-step": metadata.get("meta_step"),
        "validation loss": metadata.get("validation_loss"),
        "numbers per parameter": _numbers(found),
        "device": metadata.get("device"),
        "versions": ", ".join(f"{k} {v}" for k, v in (metadata.get("versions") or {}).items()),
        "converted from": metadata.get("source"),
        "licence": metadata.get("licence"),
        "file": str(found.path),
    }
    said = [(name, printable(value)) for name, value in rows.items() if value not in (None, "")]
    lines = columns(said)
    told: Mapping[str, Any] | None = metadata
    for depth in itertools.count():
        if not told:
            break
        if told.get("command"):  # whole, to be pasted
            lines.append(f"  {f'begun from ({depth})' if depth else 'command'}:")
            lines.append(f"    {printable(told['command'])}")
        told = told.get("begun_from")
    return "\n".join(lines)


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
