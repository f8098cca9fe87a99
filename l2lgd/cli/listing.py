"""``l2lgd optimizers``: the trained weights that ship, and what a file says of itself."""

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from l2lgd.cli.help import columns
from l2lgd.config.differences import flattened
from l2lgd.config.packages import targets_of
from l2lgd.errors import CheckpointError, ConfigError
from l2lgd.meta.state import read_weights
from l2lgd.optimizers.base import tensors_of
from l2lgd.pretrained import weights
from l2lgd.system.terminal import printable

USAGE = "usage: l2lgd optimizers [NAME|FILE]"
LICENCE = "They may be used and passed on under the licence {}."


def optimizers(words: Sequence[str]) -> str:
    """The list of what ships, or all about the weights of one name or file.

    Raises:
        ConfigError: there is more than one word.
        CheckpointError: there are no such weights, or the file holds something else.
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
    """What a file says of itself: a file that others have made has nothing imported, or built."""
    metadata = found.metadata
    if not metadata.get("opt"):
        raise CheckpointError(
            f"{found.path} holds no weights of a learned optimizer; give the path of a file that "
            "l2lgd meta-train wrote"
        )
    rows = weights.about().get(found.name, {}) | {
        "class": metadata["opt"].get("_target_"),
        "package": _packages(metadata),
        "trained on": _data(metadata),
        "seed": metadata.get("seed"),
        "meta-steps": _meta_steps(metadata),
        "validation loss": _progress(metadata, "validation_loss", "best_validation_loss"),
        "numbers per parameter": _numbers(found),
        "device": metadata.get("device"),
        "versions": ", ".join(f"{k} {v}" for k, v in (metadata.get("versions") or {}).items()),
        "converted from": metadata.get("source"),
        "licence": metadata.get("licence"),
        "file": str(found.path),
    }
    said = [(name, printable(value)) for name, value in rows.items() if value not in (None, "")]
    lines = [*columns(said), *_options(metadata["opt"]), *_tensors(found)]
    told: Mapping[str, Any] | None = metadata
    for depth in itertools.count():
        if not told:
            break
        if told.get("command"):  # whole, to be pasted
            lines.append(f"  {f'begun from ({depth})' if depth else 'command'}:")
            lines.append(f"    {printable(told['command'])}")
        told = told.get("begun_from")
    return "\n".join(lines)


def _options(opt: Mapping[str, Any]) -> list[str]:
    """Those of the optimizer, with those of optimizers within it."""
    told = flattened({key: value for key, value in opt.items() if key != "_target_"})
    rows = [(printable(name), _shown(value)) for name, value in told.items() if name]
    return ["  options:", *_within(rows)] if rows else []


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return printable(text)


def _tensors(found: weights.Weights) -> list[str]:
    """φ: how many numbers, in which tensors."""
    phi, _ = read_weights(found.path)
    numbers = sum(tensor.numel() for tensor in phi.values())
    rows = [(printable(name), str(tuple(tensor.shape))) for name, tensor in phi.items()]
    return [f"  weights: {numbers} numbers, {len(phi)} tensors:", *_within(rows)]


def _within(rows: list[tuple[str, str]]) -> list[str]:
    return [f"  {line}" for line in columns(rows)]


def _packages(metadata: Mapping[str, Any]) -> str:
    """Those that the classes are from, in the versions of the meta-training."""
    told = metadata.get("packages") or {}
    own = (metadata.get("versions") or {}).get("l2lgd")
    names = dict.fromkeys(target.partition(".")[0] for target in targets_of(metadata["opt"]))
    versions = {name: own if name == "l2lgd" else told.get(name) for name in names}
    return ", ".join(f"{k} {v or '(version not known)'}" for k, v in versions.items())


def _progress(metadata: Mapping[str, Any], of_best: str, of_last: str) -> Any:
    """A number that the best weights have for themselves, and the last among others."""
    progress = metadata.get("progress")
    last = progress.get(of_last) if isinstance(progress, Mapping) else None
    return metadata.get(of_best, last)


def _meta_steps(metadata: Mapping[str, Any]) -> str | None:
    """After how many the weights were these, and how many there were to be."""
    done, config = _progress(metadata, "meta_step", "meta_step"), metadata.get("config")
    planned = config.get("meta_steps") if isinstance(config, Mapping) else None
    return f"{done} of {planned}" if None not in (done, planned) else done


def _data(metadata: dict[str, Any]) -> str | None:
    """The task, and the data where it has any."""
    data = metadata.get("data")
    task = metadata.get("task_name")
    return f"{task}, {data['name']} from {data['source']}" if data else task


def _numbers(found: weights.Weights) -> str | None:
    """Of the recurrent state, which is what an optimizer costs in memory; of what ships alone."""
    if not found.path.is_relative_to(weights.SHIPPED):
        return None
    optimizer = found.optimizer()
    if not optimizer.coordinatewise:
        return "depends on the model: coordinates share information"
    n = 1000
    state = optimizer.initial_state(torch.zeros(1, n))
    return f"{sum(part.numel() for part in tensors_of(state)) / n:.0f}"
