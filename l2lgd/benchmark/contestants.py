"""The optimizers of a benchmark by name: trained weights, or choices of the group ``opt``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from l2lgd.config.building import build
from l2lgd.config.packages import sources_of, targets_of
from l2lgd.errors import ConfigError, nearest
from l2lgd.evaluation.keys import library_of
from l2lgd.evaluation.learned import choices_of, composed_with
from l2lgd.optimizers.base import LearnedRule, Optimizer
from l2lgd.pretrained.weights import SUFFIX, Weights, find, names
from l2lgd.results.losses import digest
from l2lgd.runs.run import Run
from l2lgd.storage.paths import as_typed

SHIPPED_ONES = "shipped"  # in a list of names


@dataclass(frozen=True)
class Contestant:
    """An optimizer under its name in the benchmark.

    Args:
        weights: of a learned one; None for a choice of ``opt``.
    """

    name: str
    weights: Weights | None = None

    @property
    def learned(self) -> bool:
        return self.weights is not None

    def node(self, options: Sequence[str]) -> dict[str, Any]:
        """Its config, for the task that options of ``evaluate`` tell."""
        if self.weights is not None:
            return dict(self.weights.metadata.get("opt", {}))
        return dict(composed_with(*options, f"opt={self.name}", verb="evaluate")["opt"])

    def built(self, run: Run, node: Mapping[str, Any]) -> Optimizer:
        """The optimizer, on the device of a run; raises CheckpointError for bad weights."""
        if self.weights is not None:
            learned = self.weights.optimizer(run.options.allow_targets)
            return learned.to(run.device, run.task.dtype)
        return run.build_optimizer(node)

    def check(self, options: Sequence[str], allow_targets: Sequence[str]) -> None:
        """Raise ConfigError for a learned optimizer without weights, or a config that is wrong.

        Args:
            options: of ``evaluate``, that tell any task.
        """
        if self.weights is not None:
            return
        node = self.node(options)
        if isinstance(build(node, "opt", allow_targets, Optimizer), LearnedRule):
            raise ConfigError(
                f"optimizers=[{self.name}]: a learned optimizer is named by its weights, a name of "
                f"l2lgd optimizers or the path of a {SUFFIX} file"
            )

    def identity(self, node: Mapping[str, Any], optimizer: Optimizer) -> dict[str, Any]:
        """What tells it from others, wherever its weights lie."""
        found: dict[str, Any] = {"optimizer": dict(node), "sources": sources_of(node)}
        found |= library_of(node)
        if isinstance(optimizer, LearnedRule):
            found["weights"] = digest(optimizer.state_dict())
        return found

    def trained_on(self) -> list[str]:
        """The data sets, and the classes of tasks, that its weights were meta-trained on."""
        found, metadata = [], self.weights.metadata if self.weights else None
        while metadata:
            data = metadata.get("data") or {}
            parts = data.get("parts")
            for one in parts.values() if isinstance(parts, Mapping) else [data]:
                found += [str(one["name"])] if one and "name" in one else []
            targets = targets_of(metadata.get("task") or {})
            found += [target.rpartition(".")[2] for target in targets]
            metadata = metadata.get("begun_from")
        return list(dict.fromkeys(found))


def contestants(reference: str, others: Sequence[str]) -> list[Contestant]:
    """The reference, then the others of these names; ``shipped`` stands for all weights that ship.

    Raises:
        ConfigError: one is neither weights nor a choice of ``opt``.
        CheckpointError: a file of weights is missing or not readable.
    """
    every = [name for name in names() if "/" not in name]  # but for those of a study
    meant = [name for word in others for name in (every if word == SHIPPED_ONES else [word])]
    compared = [name for name in dict.fromkeys(meant) if name != reference]
    if not compared:
        raise ConfigError(f"optimizers=[{','.join(others)}]: name one to compare with {reference}")
    first = _contestant(reference, f"reference={reference}")
    return [first, *(_contestant(name, f"optimizers=[{name}]") for name in compared)]


def _contestant(name: str, said: str) -> Contestant:
    shipped, choices = names(), choices_of("opt")
    if name in choices:
        return Contestant(name)
    if name in shipped or name.endswith(SUFFIX) or as_typed(name).is_file():
        return Contestant(name, find(name))
    raise ConfigError(
        f"{said}: there is none{nearest(name, [*shipped, *choices])}; name weights of l2lgd "
        f"optimizers, a {SUFFIX} file, or a choice of opt"
    )
