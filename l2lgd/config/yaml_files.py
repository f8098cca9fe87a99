"""YAML files of people, bounded while they are read.

With aliases, ten lines stand for 10¹⁰ values, and OmegaConf would make every one of them.
"""

import os
from pathlib import Path
from typing import Any

import yaml

from l2lgd.storage.nesting import DEEPEST, LARGEST

LONGEST = 500_000  # bytes


def load_yaml(path: Path) -> Any:
    """What a file says.

    Raises:
        YAMLError: it is not YAML, too large, or nested too deeply.
        OSError, UnicodeDecodeError: it cannot be read.
    """
    with path.open(encoding="utf-8") as file:
        if os.fstat(file.fileno()).st_size > LONGEST:
            raise yaml.YAMLError(f"it has more than {LONGEST:,} bytes")
        try:
            return yaml.load(file, _Bounded)
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
            if isinstance(error, UnicodeDecodeError):
                raise
            raise yaml.YAMLError(f"a value is none of its type: {error}") from error


class _Bounded(yaml.SafeLoader):  # type: ignore[misc]
    """Counts values as if there were no aliases, and stops where they are too many."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._count = self._depth = 0
        self._sizes: dict[int, int] = {}  # by the identities of nodes

    def compose_node(self, parent: Any, index: Any) -> Any:
        alias = self.check_event(yaml.AliasEvent)
        before = self._count
        self._count, self._depth = self._count + 1, self._depth + 1
        if self._depth > DEEPEST:
            raise yaml.YAMLError("it is nested too deeply")
        node = super().compose_node(parent, index)
        if isinstance(node, yaml.ScalarNode):
            self._count += node.value.count("${")  # each stands for a value
        if not alias:
            self._sizes[id(node)] = self._count - before
        elif id(node) not in self._sizes:
            raise yaml.YAMLError("it refers to itself")
        else:
            self._count += self._sizes[id(node)]
        if self._count > LARGEST:
            raise yaml.YAMLError(f"it has more than {LARGEST} values")
        self._depth -= 1
        return node
