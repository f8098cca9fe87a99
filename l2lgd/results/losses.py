"""The losses of an evaluation, kept in its folder: for a later evaluation, and for own statistics.

``losses.safetensors`` has a tensor (T + 1, F) for each optimizer, f(θ_0) … f(θ_T) of each function.
Its metadata say for each what the losses depend on, so that nothing else is taken for them.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from l2lgd.config.old_names import renamed
from l2lgd.errors import CheckpointError, ConfigError
from l2lgd.results.curves import Curves
from l2lgd.storage import checkpoint

FILE = "losses.safetensors"


class KeptLosses:
    """Curves by optimizer, written when one more is known.

    Args:
        folder: gets ``losses.safetensors``.
        reuse: folders of earlier evaluations.

    Raises:
        ConfigError: there are no losses in one of ``reuse``.
        CheckpointError: they are not readable.
    """

    def __init__(self, folder: Path, reuse: Sequence[Path] = ()) -> None:
        self._path = folder / FILE
        self._curves: dict[str, Curves] = {}
        self._about: dict[str, dict[str, Any]] = {}
        for earlier in reuse:
            if not (earlier / FILE).is_file():
                raise ConfigError(
                    f"reuse=[{earlier}]: has no {FILE}; give the folder of an evaluation"
                )
        self._earlier = {earlier: read(earlier) for earlier in reuse}

    def find(self, name: str, key: Mapping[str, Any]) -> tuple[Curves, Path] | None:
        """Earlier curves of an optimizer that depend on the same, and their folder.

        Raises:
            CheckpointError: they are not as many as the key says.
        """
        for folder, (curves, about) in self._earlier.items():
            if name not in curves or renamed(about[name]["key"]) != key:
                continue
            shape = (key["num_steps"] + 1, key["num_functions"])
            if curves[name].losses.shape != shape:
                raise CheckpointError(
                    f"{folder / FILE} is damaged: {name} has losses of another shape than "
                    f"{shape}; leave this folder out of reuse="
                )
            return curves[name], folder
        return None

    def add(self, name: str, key: Mapping[str, Any], curves: Curves) -> None:
        """Keep the curves of one more optimizer.

        Raises:
            UserError: the file could not be written.
        """
        self._curves[name] = curves
        self._about[name] = {"key": dict(key), "stochastic": curves.stochastic}
        tensors = {name: curves.losses for name, curves in self._curves.items()}
        checkpoint.save(self._path, tensors, {"losses": self._about})


def read(folder: Path) -> tuple[dict[str, Curves], dict[str, dict[str, Any]]]:
    """The curves that an evaluation has left in its folder, and about each of them.

    Raises:
        CheckpointError: missing, unreadable, or something else.
    """
    tensors, metadata = checkpoint.load(folder / FILE)
    about: Any = metadata.get("losses")
    if not _describes(about, tensors):
        raise CheckpointError(
            f"{folder / FILE} does not hold the losses of an evaluation; give the folder of one"
        )
    curves = {name: Curves(tensor, about[name]["stochastic"]) for name, tensor in tensors.items()}
    return curves, about


def _describes(about: Any, tensors: Mapping[str, Tensor]) -> bool:
    """Is it what :meth:`KeptLosses.add` says about such tensors?"""
    return (
        isinstance(about, dict)
        and about.keys() == tensors.keys()
        and all(
            isinstance(one, dict)
            and isinstance(one.get("key"), dict)
            and isinstance(one.get("stochastic"), bool)
            for one in about.values()
        )
        and all(
            losses.is_floating_point() and losses.dim() == 2 and len(losses) > 1 and losses.numel()
            for losses in tensors.values()
        )
    )


def digest(tensors: Mapping[str, Tensor]) -> str:
    """A hash of names and values."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(f"{name} {tuple(tensors[name].shape)}".encode())
        found.update(tensors[name].detach().cpu().double().numpy().tobytes())
    return found.hexdigest()[:16]
