"""Measurements that were made, kept by what they depend on."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from l2lgd.errors import CheckpointError, UserError
from l2lgd.evaluation.tuned_rates import file_name
from l2lgd.storage import checkpoint

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measurement:
    """One optimizer on F functions of a task.

    Args:
        losses: f(θ_0) … f(θ_T) (T + 1, F), on minibatches where the task has them.
        held_out: mean loss at the end on examples that were not trained on (F,); None where
            a task has none.
        about: ``seconds`` of a step of one function, the gradient's and the optimizer's;
            ``optimizer_seconds`` of the optimizer's alone; ``stochastic``; ``coordinates``.
    """

    losses: Tensor
    held_out: Tensor | None
    about: dict[str, Any]


class Measurements:
    """Those that ship, and one's own.

    Args:
        folders: the last is where new ones are kept.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders

    def find(self, key: Mapping[str, Any]) -> Measurement | None:
        """What was measured under a key; what cannot be read counts as not measured."""
        for folder in reversed(self._folders):
            path = folder / _name(key)
            if not path.is_file():
                continue
            try:
                tensors, about = checkpoint.load(path)
                return Measurement(tensors["losses"], tensors.get("held_out"), about["about"])
            except (CheckpointError, KeyError) as error:
                log.warning("measured again, as %s", error)
        return None

    def keep(self, key: Mapping[str, Any], found: Measurement, command: str) -> None:
        """Raises UserError where that is not possible."""
        tensors = {"losses": found.losses.float()}
        if found.held_out is not None:
            tensors["held_out"] = found.held_out.float()
        about = {"about": found.about, "key": dict(key), "command": command}
        try:
            checkpoint.save(self._folders[-1] / _name(key), tensors, about)
        except UserError as error:
            raise UserError(f"{error}; results_dir= chooses another folder") from error


def _name(key: Mapping[str, Any]) -> str:
    return file_name(key).removesuffix(".json") + ".safetensors"
