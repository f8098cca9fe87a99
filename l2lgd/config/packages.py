"""Which packages the classes of a config are from, and in which versions; nothing is imported."""

import functools
import hashlib
import importlib.util
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any

from l2lgd.config.old_names import TARGETS


def packages_of(node: Any) -> dict[str, str | None]:
    """The packages outside l2lgd that a ``_target_`` of a node, or within it, is from.

    Returns:
        The version of each; None where it is not installed, as one of the working directory.
    """
    names = {target.partition(".")[0] for target in targets_of(node)}
    return {name: installed(name) for name in sorted(names - {"l2lgd", ""})}


def targets_of(node: Any) -> list[str]:
    """Every ``_target_`` of a node, its own first, under today's names."""
    found: list[str] = []
    level = [node]
    while level:
        nodes = [part for part in level if isinstance(part, Mapping)]
        told = [part.get("_target_") for part in nodes]
        found += [TARGETS.get(target, target) for target in told if isinstance(target, str)]
        level = [value for part in nodes for value in part.values()]
        level += [value for part in level if isinstance(part, list) for value in part]
    return found


def sources_of(node: Any) -> dict[str, str]:
    """A hash of the source of each module outside l2lgd that a ``_target_`` of a node is in.

    What those modules import is not looked at. A module without a source file has the hash "".
    """
    modules = {target.rpartition(".")[0] for target in targets_of(node)}
    return {
        module: _hash_of(module)
        for module in sorted(modules)
        if module and module.partition(".")[0] != "l2lgd"
    }


def _hash_of(module: str) -> str:
    try:
        found = importlib.util.find_spec(module)
        return hashlib.sha256(Path(str(found and found.origin)).read_bytes()).hexdigest()[:16]
    except (ImportError, ValueError, OSError):
        return ""


@functools.cache
def installed(package: str) -> str | None:
    """The version of what is installed under the name that is imported; None for nothing."""
    for name in packages_distributions().get(package, [package]):
        try:
            return version(name)
        except (PackageNotFoundError, ValueError):  # no name that a distribution may have
            continue
    return None
