"""Weights that others have published for JAX, converted to weights of rules of ours.

Celo's come from its authors' program (Moudgil et al. 2025), small_fc's from the library
learned_optimization (Metz et al. 2022). Their files name arrays by modules of Haiku.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import OmegaConf
from torch import Tensor

from l2lgd.config.building import build
from l2lgd.config.defaults import composed
from l2lgd.errors import CheckpointError
from l2lgd.optimizers.base import LearnedRule
from l2lgd.pretrained.weights import bounded
from l2lgd.results.summary import versions
from l2lgd.storage import checkpoint, flax_files

OUTPUTS = 2  # of an MLP; Celo's has a third one that nothing uses
SCHEDULER = {  # layers of ours, and their modules; the module "linear" has no effect
    "direct": "linear_2",
    "rectified": "linear_1",
    "gates": "rnn/linear",
    "output": "step_size",
}


class _Found(NamedTuple):
    """What a file is in terms of ours."""

    tensors: dict[str, Tensor]  # of the rule's state_dict
    options: list[str]  # of its choice of opt=, where they are not those of the YAML file


class Kind(NamedTuple):
    """Of files of weights."""

    opt: str  # the choice of the group
    read: Callable[["_Arrays"], _Found]
    licence: str


def convert(kind: str, path: Path, output: Path, command: str) -> None:
    """Write the weights in a file of Flax as ``meta-train`` would have left them.

    Args:
        kind: a key of ``KINDS``.
        command: that this is done by, for the file.

    Raises:
        CheckpointError: the file is not readable, or not of that kind.
        UserError: the folder of ``output`` cannot be written to.
    """
    opt, read, licence = KINDS[kind]
    arrays = _Arrays(flax_files.load(path), kind, path)
    found = read(arrays)
    node: Any = OmegaConf.to_container(
        composed("evaluate", ["task=quadratic", f"opt={opt}", *found.options]).opt, resolve=True
    )
    with bounded(found.tensors.values(), path):
        rule: LearnedRule[Any] = build(node, "opt", (), LearnedRule)
    for name, needed in rule.state_dict().items():
        arrays.check(name, found.tensors[name], needed.shape)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    told = {
        "opt": node,
        "opt_name": opt,
        "command": command,
        "source": f"{path.name} of {kind}, SHA-256 {digest}",
        "licence": licence,
        "versions": versions(),
    }
    checkpoint.save(output, found.tensors, told)


class _Arrays:
    """Those of a file, by the ends of the paths to them, as a file may have them deeper inside."""

    def __init__(self, arrays: Mapping[str, Tensor], kind: str, path: Path) -> None:
        self._arrays, self._kind, self._path = arrays, kind, path

    def get(self, name: str) -> Tensor | None:
        ends = [path for path in self._arrays if f"/{path}".endswith(f"/{name}")]
        if len(ends) > 1:
            raise CheckpointError(f"{self._path} has two arrays {name}: {ends[0]} and {ends[1]}")
        if ends and not self._arrays[ends[0]].dim():
            raise CheckpointError(f"{self._path}: its {name} is a single number, not an array")
        return self._arrays[ends[0]].float() if ends else None

    def need(self, name: str) -> Tensor:
        found = self.get(name)
        if found is None:
            raise CheckpointError(
                f"{self._path} has no array {name}, which weights of {self._kind} have"
            )
        return found

    def run(self, name: str) -> list[Tensor]:
        """Those whose names have 0, 1, … in the place of ``{}``, in this order."""
        found: list[Tensor] = []
        while (array := self.get(name.format(len(found)))) is not None:
            found.append(array)
        return found

    def first(self) -> Tensor:
        """The first matrix of an MLP, which may be stored as one of each group of inputs."""
        parts = self.run("w0__{}")  # in the order of numbers, which is not that of names
        if not parts:
            return self.need("w0")
        if any(part.dim() < 2 or part.shape[-1] != parts[0].shape[-1] for part in parts):
            raise CheckpointError(f"{self._path}: its w0__0, w0__1, … are not of one matrix")
        return torch.cat([part.reshape(-1, part.shape[-1]) for part in parts])

    def check(self, name: str, array: Tensor, shape: Sequence[int]) -> None:
        if array.shape != torch.Size(shape):
            raise CheckpointError(
                f"{self._path}: its {name} is of shape {tuple(array.shape)}, and in {self._kind} "
                f"of {tuple(shape)}"
            )
        if not array.isfinite().all():
            raise CheckpointError(f"{self._path}: its {name} has numbers that are not finite")


def _celo(arrays: _Arrays) -> _Found:
    mlp, hidden_sizes = _mlp(arrays)
    tensors = {f"rule.{name}": tensor for name, tensor in mlp.items()}
    for layer, module in SCHEDULER.items():
        tensors[f"scheduler.weights.{layer}"] = arrays.need(f"{module}/w")
        tensors[f"scheduler.biases.{layer}"] = arrays.need(f"{module}/b")
    for part in ("hidden", "cell"):
        tensors[f"scheduler.initial_{part}"] = arrays.need(f"lstm_init_state/{part}")
    units = tensors["scheduler.initial_cell"].numel()
    return _Found(tensors, [f"opt.rule.hidden_sizes={hidden_sizes}", f"opt.units={units}"])


def _small_fc(arrays: _Arrays) -> _Found:
    tensors, hidden_sizes = _mlp(arrays)
    names = ("momentum_decays", "rms_decays", "adafactor_decays")
    tensors["decay_shifts"] = torch.cat([arrays.need(name).reshape(-1) for name in names])
    return _Found(tensors, [f"opt.hidden_sizes={hidden_sizes}"])


def _mlp(arrays: _Arrays) -> tuple[dict[str, Tensor], list[int]]:
    """Weights of the MLP for every parameter, stored as a stack of one or none; hidden sizes."""
    biases = arrays.run("b{}") or [arrays.need("b0")]
    weights = [arrays.first(), *(arrays.need(f"w{k}") for k in range(1, len(biases)))]
    tensors = {}
    for kind, layers, rank in (("weights", weights, 2), ("biases", biases, 1)):
        layers[-1] = layers[-1][..., :OUTPUTS]
        for index, layer in enumerate(layers):
            single = layer.squeeze(0) if layer.dim() == rank + 1 else layer
            tensors[f"{kind}.{index}"] = single.contiguous()
    return tensors, [bias.numel() for bias in biases[:-1]]


KINDS = {
    "celo": Kind("celo", _celo, "MIT, © 2025 Abhinav Moudgil, where the file is the authors'"),
    "small_fc": Kind("mlp", _small_fc, "that of the file"),
}
