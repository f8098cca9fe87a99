"""What a meta-training keeps on disk: trained weights φ, and everything needed to go on."""

import json
import logging
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from l2lgd.config.packages import packages_of
from l2lgd.errors import CheckpointError, one_line
from l2lgd.meta.estimators.base import Course
from l2lgd.meta.progress import MetaProgress
from l2lgd.optimizers.base import LearnedRule
from l2lgd.storage import checkpoint
from l2lgd.storage.nesting import DEEPEST, LARGEST, extent
from l2lgd.system.terminal import printable

log = logging.getLogger(__name__)

KINDS = {"opt": dict, "opt_name": str, "task_name": str, "command": str, "licence": str}
KINDS |= {"packages": dict, "data": dict, "begun_from": dict, "versions": dict, "source": str}
KINDS |= {"validation_losses": dict, "reference_losses": dict}
PROGRESS = fields(MetaProgress)
LONGEST_LIST = 300  # letters of what PyTorch says of tensors
ANCESTRY = ("command", "seed", "data", "begun_from")


@dataclass
class StoredState:
    """Besides the weights and the meta-optimizer's moments, what :func:`save_last` has kept."""

    progress: MetaProgress
    step: int  # of the course
    marks: dict[str, Any]  # its ``marks()``
    tensors: dict[str, Tensor]  # its ``tensors()`` in this process
    whole: bool  # is it from ``last`` itself, and not from the one before?


def save_last(
    path: Path,
    optimizer: LearnedRule,
    averaged: nn.Module,
    meta_optimizer: torch.optim.Optimizer,
    progress: MetaProgress,
    course: Course,
    everyones: Mapping[str, Tensor],
    provenance: Mapping[str, Any],
    keep: bool = True,
) -> None:
    """Write everything needed to go on to the same numbers.

    Args:
        averaged: running mean of the optimizer's weights.
        everyones: ``course.tensors()`` of each process, as :meth:`Ranks.collect` has them.
        keep: let what is at ``path`` be the one before; False where that is damaged.
    """
    tensors = {f"phi.{name}": value for name, value in optimizer.state_dict().items()}
    for index, state in meta_optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{index}.{name}": value for name, value in state.items()}
    tensors |= {f"average.{name}": value for name, value in averaged.state_dict().items()}
    tensors |= {f"trajectory.{name}": value for name, value in everyones.items()}
    kept = {
        "progress": asdict(progress),
        "step": course.step,
        "marks": course.marks(),
    }
    if keep:
        checkpoint.keep_previous(path)
    checkpoint.save(path, tensors, {**provenance, **kept})


def read_last(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], bool]:
    """The tensors and metadata that :func:`save_last` has written, the last time or before.

    Returns:
        They, and whether they are those of the last time.

    Raises:
        CheckpointError: neither is readable, or it is trained weights only.
    """
    before, whole = checkpoint.previous(path), True
    try:
        tensors, metadata = _loaded(path)
    except CheckpointError as damage:
        try:
            tensors, metadata = _loaded(before)
        except CheckpointError:
            raise CheckpointError(
                f"{damage.args[0].partition('; ')[0]}, and there is no readable {before.name} "
                "before it; begin a new run, initial_weights= takes the best weights of this one"
            ) from damage
        whole = False
    if "progress" not in metadata:
        raise CheckpointError(f"{path} holds trained weights, not a meta-training to go on with")
    return tensors, metadata, whole


def _loaded(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata; what they say of their progress is as :func:`save_last` has it."""
    tensors, metadata = checkpoint.load(path)
    if _too_large(metadata.get("config")):
        raise CheckpointError(f"{path} is damaged: its config is too large")
    told = (metadata.get("step"), metadata.get("marks", {}))
    if "progress" in metadata and not (
        _is_progress(metadata["progress"])
        and isinstance(told[0], int)
        and isinstance(told[1], dict)
    ):
        raise CheckpointError(f"{path} is damaged: its progress cannot be read")
    return tensors, metadata


def _is_progress(found: Any) -> bool:
    known = {field.name: list if field.name == "ratios" else (int, float) for field in PROGRESS}
    return (
        isinstance(found, dict)
        and "meta_step" in found
        and all(name in known and isinstance(found[name], known[name]) for name in found)
    )


def can_go_on(path: Path) -> bool:
    """Has :func:`save_last` ever written there?"""
    return path.exists() or checkpoint.previous(path).exists()


def load_last(
    path: Path,
    optimizer: LearnedRule,
    averaged: nn.Module,
    meta_optimizer: torch.optim.Optimizer,
    rank: int,
) -> StoredState:
    """Undo :func:`save_last`; fills the optimizer, its average and the meta-optimizer.

    Args:
        rank: whose tensors of the trajectory.

    Raises:
        CheckpointError: unreadable, or of another optimizer.
    """
    tensors, metadata, whole = read_last(path)
    if not whole:
        before = checkpoint.previous(path).name
        log.warning("%s is missing or damaged; going on from %s, the one before it", path, before)
    _fill(optimizer, _below("phi.", tensors), path)
    _fill(averaged, _below("average.", tensors), path)
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in _below("adam.", tensors).items():
        index, _, field = name.partition(".")
        moments.setdefault(int(index), {})[field] = value
    meta_optimizer.load_state_dict(meta_optimizer.state_dict() | {"state": moments})
    progress = MetaProgress(**metadata["progress"])
    own = _below(f"trajectory.{rank}.", tensors)
    return StoredState(progress, metadata["step"], metadata.get("marks", {}), own, whole)


def load_weights(path: Path, optimizer: LearnedRule) -> dict[str, Any]:
    """Load trained weights φ, from ``best`` or ``last``; returns their provenance.

    The log says where the package of the optimizer's class is another version than then.

    Raises:
        CheckpointError: unreadable, of another optimizer, or not finite.
    """
    phi, metadata = read_weights(path)
    for name, tensor in phi.items():
        if not tensor.is_floating_point():
            raise CheckpointError(f"{path}: its {name} is of {tensor.dtype}, which no weights are")
        if not tensor.isfinite().all():
            raise CheckpointError(
                f"{path}: its {name} has numbers that are not finite; take weights of a "
                "meta-training that has not diverged"
            )
    _fill(optimizer, phi, path)
    _warn_of_other_versions(path, metadata)
    return metadata


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Trained weights φ by name, from ``best`` or ``last``, and the metadata of the file.

    Raises:
        CheckpointError: unreadable.
    """
    tensors, metadata = checkpoint.load(path)
    return _below("phi.", tensors) or tensors, metadata


def _warn_of_other_versions(path: Path, metadata: Mapping[str, Any]) -> None:
    """Of packages outside l2lgd; a version that was not known then, or is not now, is none."""
    then = metadata.get("packages")
    if not isinstance(then, Mapping):
        return
    for name, here in packages_of(metadata.get("opt")).items():
        if here is not None and then.get(name) not in (None, here):
            log.warning(
                "%s was meta-trained with %s %s, here is %s: the weights may mean something else",
                path,
                printable(name),
                printable(then[name]),
                here,
            )


def described(path: Path) -> dict[str, Any]:
    """What a file of weights says about itself, of the types that it should be.

    Raises:
        CheckpointError: unreadable, or it says what meta-training never writes.
    """
    _, metadata = checkpoint.load(path)
    told: Any = metadata
    while told:
        wrong = _wrong(told)
        if wrong:
            raise CheckpointError(
                f"{path}: its {wrong} cannot be read; give the path of a file that l2lgd "
                "meta-train wrote"
            )
        told = told.get("begun_from")
    return metadata


def _wrong(metadata: Mapping[str, Any]) -> str | None:
    """The first of these that is not as it should be."""
    for key, kind in KINDS.items():
        if metadata.get(key) is not None and not isinstance(metadata[key], kind):
            return key
    opt = metadata.get("opt")
    if _too_large(opt) or "${" in json.dumps(opt):  # it is written with interpolations resolved
        return "opt"
    data = metadata.get("data")
    if data and not all(isinstance(data.get(key), str) for key in ("name", "source")):
        return "data"
    return None


def _too_large(config: Any) -> bool:
    count, depth = extent(config)
    return count > LARGEST or depth > DEEPEST


def ancestry(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What weights that begin with others say about those, from their metadata."""
    return {key: metadata.get(key) for key in ANCESTRY}


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _fill(optimizer: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    try:
        optimizer.load_state_dict(tensors)
    except RuntimeError as error:
        missing = textwrap.shorten(one_line(error), LONGEST_LIST, placeholder=" …")
        raise CheckpointError(f"{path} does not fit this optimizer: {missing}") from error
