"""Trained weights by name: those that ship with the package, and files of one's own."""

import contextlib
import dataclasses
import json
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from l2lgd.config.building import build
from l2lgd.errors import CheckpointError, close_to, nearest
from l2lgd.meta.state import described, load_weights
from l2lgd.optimizers.base import LearnedRule
from l2lgd.optimizers.groups import Grouped
from l2lgd.optimizers.observation import known_fields
from l2lgd.storage import checkpoint
from l2lgd.storage.paths import as_typed

SHIPPED = Path(__file__).parent / "shipped"
SUFFIX = ".safetensors"
LABELS = ("l2lgd/pretrained/shipped", "l2lgd/shipped")  # of shipped files, now and before
BUILT_AGAIN = 10  # times, at most, that a class makes its weights; one replaces those of its base


@dataclasses.dataclass(frozen=True)
class Weights:
    """A file of trained weights and what it says about itself."""

    name: str
    path: Path
    metadata: dict[str, Any]

    def optimizer(self, allow_targets: Iterable[str] = ()) -> LearnedRule:
        """The learned optimizer with these weights, on the CPU.

        Raises:
            CheckpointError: the file does not hold a learned optimizer.
            ConfigError: its class is outside l2lgd and ``allow_targets``, or observes what there
                is not.
        """
        if "opt" not in self.metadata:
            raise CheckpointError(f"{self.path} does not say which optimizer its weights are of")
        # On the CPU wherever the user makes a model.
        with torch.device("cpu"), bounded_by(self.path):
            optimizer: LearnedRule = build(
                self.metadata["opt"], f"{self.path}: opt", allow_targets, LearnedRule
            )
        known_fields(type(optimizer).__name__, optimizer.observes)
        optimizer.float()  # whatever the user's default type is
        load_weights(self.path, optimizer)
        return optimizer


@contextlib.contextmanager
def bounded_by(path: Path) -> Iterator[None]:
    """:func:`bounded` by the tensors of a file of ours.

    Raises:
        CheckpointError: of what is made, or the file is not readable.
    """
    tensors, _ = checkpoint.load(path)
    with bounded(tensors.values(), path):
        yield


@contextlib.contextmanager
def bounded(tensors: Iterable[Tensor], path: Path) -> Iterator[None]:
    """Ends the making of an optimizer, in this thread, that has far more weights than a file.

    What a file says of its optimizer may be anything, and is to cost no more than its weights do.

    Args:
        tensors: of that file.

    Raises:
        CheckpointError: of what is made.
    """
    left, thread = BUILT_AGAIN * sum(map(_size, tensors)), threading.get_ident()

    def count(module: nn.Module, name: str, weight: nn.Parameter) -> None:
        nonlocal left
        if threading.get_ident() != thread:
            return
        left -= _size(weight)
        if left < 0:
            raise CheckpointError(
                f"{path}: its weights are fewer than those of the optimizer that they are said to "
                "be of"
            )

    # Memory that nobody has written to costs nothing: the first large tensor ends it in time.
    settings: Any = torch.utils.deterministic
    filled, settings.fill_uninitialized_memory = settings.fill_uninitialized_memory, False
    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()
        settings.fill_uninitialized_memory = filled


def _size(tensor: Tensor) -> int:
    return max(1, tensor.numel())  # an empty one takes time, too


def find(label: str) -> Weights:
    """Trained weights by the name that they ship under, or the path of a file.

    Raises:
        CheckpointError: there are none, or the file is not one of ours.
    """
    path, own = SHIPPED / f"{label}{SUFFIX}", as_typed(label)
    if label.endswith(SUFFIX) or not path.is_file():
        path = own
        if not label.endswith(SUFFIX) and not own.exists():
            close = close_to(label, names(), 0.6)
            hint = f"; did you mean {close}?" if close else "; l2lgd optimizers lists them"
            raise CheckpointError(
                f"no weights {label} ship with l2lgd{hint} (the path of a .safetensors file does "
                "as well)"
            )
    return Weights(label, path, described(path))


def names() -> list[str]:
    """What ships, those of the study of sharing last."""
    stems = [p.relative_to(SHIPPED).with_suffix("").as_posix() for p in SHIPPED.rglob(f"*{SUFFIX}")]
    return sorted(stems, key=lambda stem: ("/" in stem, stem))


def load(label: str, allow_targets: Iterable[str] = ()) -> LearnedRule:
    """The learned optimizer of a label as :func:`find` takes it.

    ``NAME:MEMBER`` is one of several optimizers that were trained together.

    Raises:
        CheckpointError: there are no such weights, or they have no such member.
        ConfigError: its class is outside l2lgd and ``allow_targets``.
    """
    name, colon, member = label.rpartition(":")
    if not colon or "/" in member or "\\" in member:  # as in C:\file
        return find(label).optimizer(allow_targets)
    whole = find(name).optimizer(allow_targets)
    known = whole.members() if isinstance(whole, Grouped) else {}
    if member not in known:
        hint = nearest(member, known) if known else "; they are of a single optimizer"
        raise CheckpointError(f"weights {name} have no member {member}{hint}")
    return known[member]


def about() -> dict[str, dict[str, str]]:
    """For each name what it is for: ``works`` and ``fails``, one line each."""
    found: dict[str, dict[str, str]] = json.loads((SHIPPED / "about.json").read_text("utf-8"))
    return found


def shipped_label(path: Path) -> str:
    """What results say of a shipped file, on whatever machine it lies."""
    return f"{LABELS[0]}/{path.relative_to(SHIPPED).as_posix()}"


def shipped_path(label: str) -> Path:
    """The file of a label, which is its path where it does not ship."""
    path = Path(label)
    for folder in LABELS:
        if path.is_relative_to(folder):
            return SHIPPED / path.relative_to(folder)
    return path
