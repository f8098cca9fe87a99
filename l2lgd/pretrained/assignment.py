"""Which weights take which parameters, by the names of parameters."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import Tensor

from l2lgd.errors import ConfigError
from l2lgd.optimizers import base
from l2lgd.optimizers.groups import Grouped
from l2lgd.pretrained import weights as trained
from l2lgd.pretrained.options import warn
from l2lgd.results.losses import digest

# What wrappers of models put into the names of parameters: torch.compile, FSDP, activation
# checkpoints, Lightning, DataParallel and whoever does as it does.
WRAPPERS = {
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
    "_original_module",
    "module",
}
UNNAMED = "*"  # the pattern that fits a parameter without a name
MAPPING = ""  # whose patterns they are where weights= is a mapping


class Function(NamedTuple):
    """Parameters of a group that one optimizer takes for the coordinates of one function."""

    key: str  # of that optimizer
    indices: tuple[int, ...]  # of the parameters in their group
    names: tuple[str, ...]  # of these to the optimizer, all different


class Assignment:
    """The trained optimizers that parameters have been given, and which has which.

    Args:
        allow_targets: packages that the class of an optimizer may come from, besides l2lgd.
    """

    def __init__(self, allow_targets: Iterable[str]) -> None:
        given = (allow_targets,) if isinstance(allow_targets, str) else allow_targets
        self._allow_targets = tuple(given)
        self.optimizers: dict[str, base.Optimizer] = {}  # by key, on the CPU in float32
        self._names: dict[Tensor, str] = {}  # as they were when a parameter came
        self._fitted: set[tuple[str, str]] = set()  # weights and patterns that got a parameter
        self._warned: set[tuple[str, str]] = set()

    def learn_names(self, group: Mapping[str, Any]) -> None:
        """Keep the names of a group's parameters, which may be reordered later."""
        names = group.get("param_names") or []
        self._names |= dict(zip(group["params"], names, strict=False))

    def functions(self, group: Mapping[str, Any]) -> list[Function]:
        """Which optimizer takes which parameters of a group.

        Raises:
            CheckpointError: there are no such weights.
            ConfigError: patterns without names, or a name that none fits.
        """
        shared: dict[str, list[int]] = {}
        apart, all_names = [], self._names_of(group)
        for index, names in enumerate(all_names):
            key = self._key_of(names, group["weights"])
            if self.optimizers[key].coordinatewise or self.optimizers[key].tensorwise:
                apart.append(Function(key, (index,), (names[1] if names else "",)))
            else:
                shared.setdefault(key, []).append(index)
        return apart + [
            Function(key, tuple(indices), _told_apart([all_names[index] for index in indices]))
            for key, indices in shared.items()
        ]

    def digest(self, group: Mapping[str, Any]) -> str:
        """Of the weights of a group, whichever parameters of a model it has."""
        weights = group["weights"]
        rules = {UNNAMED: weights} if isinstance(weights, str) else weights
        found = hashlib.sha256()
        for pattern, label in rules.items():
            optimizer = self._loaded(label)
            found.update(f"{pattern} {type(optimizer).__name__} ".encode())
            if isinstance(optimizer, base.LearnedRule):
                found.update(digest(optimizer.state_dict()).encode())
        return found.hexdigest()[:16]

    def warn_of_unused(self, groups: Iterable[Mapping[str, Any]]) -> None:
        """Say once of each pattern, but for ``*``, that no parameter of any group fits it."""
        for label, pattern in self._patterns(groups):
            if (label, pattern) not in self._fitted | self._warned and pattern != UNNAMED:
                self._warned.add((label, pattern))
                whose = "" if label == MAPPING else f" {label}"
                warn(
                    f"weights{whose}: no parameter's name fits {pattern}, so the other patterns "
                    "take all; compare the names of model.named_parameters()"
                )

    def _names_of(self, group: Mapping[str, Any]) -> list[tuple[str, ...]]:
        """Of each parameter the names by which a pattern may fit it; none where it has no name."""
        parameters, given = group["params"], group.get("param_names")
        if given is None or len(given) != len(parameters):  # changed by hand
            given = [None] * len(parameters)
        names = [self._names.get(p, name) for p, name in zip(parameters, given, strict=True)]
        bare = _below_all([unwrapped(name) for name in names if name is not None])
        return [() if name is None else (name, *bare[unwrapped(name)]) for name in names]

    def _key_of(self, names: tuple[str, ...], weights: str | Mapping[str, str]) -> str:
        """The key of a parameter's optimizer."""
        if isinstance(weights, str):
            return self._member_of(names, weights)
        if not names and list(weights) != [UNNAMED]:
            raise ConfigError(
                "patterns of weights need names: give model.named_parameters() instead of "
                "model.parameters()"
            )
        label = self._fit(names, MAPPING, weights.items())
        if label is None:
            raise ConfigError(
                f'weights: {names[0]} fits none of {", ".join(weights)}; end them with "*": NAME'
            )
        return self._member_of(names, label)

    def _member_of(self, names: tuple[str, ...], label: str) -> str:
        """The key of the one optimizer, or of that among several which takes the parameter."""
        optimizer = self._loaded(label)
        if not isinstance(optimizer, Grouped):
            return label
        if not names:
            example = f"{label}:{next(iter(optimizer.learned))}"
            raise ConfigError(
                f"weights {label} are of several optimizers, by the names of parameters: give "
                f"model.named_parameters(), or one of them, as in {example}"
            )
        member = self._fit(names, label, optimizer.patterns())
        if member is None:
            member = optimizer.member_of(names[0])  # which says what is wrong
        key = f"{label}:{member}"
        self.optimizers.setdefault(key, optimizer.member(member))
        return key

    def _loaded(self, label: str) -> base.Optimizer:
        if label not in self.optimizers:
            if type(torch.empty(0)) is not Tensor:
                raise RuntimeError(
                    "LearnedOptimizer cannot be made in fake mode, where files have no numbers: "
                    "make it before"
                )
            self.optimizers[label] = trained.load(label, self._allow_targets)
        return self.optimizers[label]

    def _fit(
        self, names: tuple[str, ...], label: str, rules: Iterable[tuple[str, str]]
    ) -> str | None:
        """What the first pattern that fits one of a parameter's names stands for."""
        for pattern, use in rules:
            if any(fnmatchcase(name, pattern) for name in names or ("",)):
                self._fitted.add((label, pattern))
                return use
        return None

    def _patterns(self, groups: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, str]]:
        """All that there are, with what they are of."""
        for group in groups:
            weights = group["weights"]
            if not isinstance(weights, str):
                yield from ((MAPPING, pattern) for pattern in weights)
            for label in [weights] if isinstance(weights, str) else weights.values():
                optimizer = self.optimizers.get(label)
                if isinstance(optimizer, Grouped):
                    yield from ((label, pattern) for pattern, _ in optimizer.patterns())


def unwrapped(name: str) -> str:
    """A parameter's name without what wrappers of its model have put into it."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _told_apart(each: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """One name of each parameter of a function: without wrappers; a number where it has none."""
    for which in (1, 0):  # with them, where two would have the same
        found = tuple(str(k) if not names else names[which] for k, names in enumerate(each))
        if len(set(found)) == len(found):
            return found
    return tuple(map(str, range(len(each))))


def _below_all(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Each name, and it without what all begin with, such as the attribute that has the model."""
    paths = [name.split(".") for name in names]
    depth = 0
    while paths and all(len(path) > depth + 2 and path[depth] == paths[0][depth] for path in paths):
        depth += 1
    return {name: (name, ".".join(path[depth:])) for name, path in zip(names, paths, strict=True)}
