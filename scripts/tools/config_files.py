"""What the YAML files of ``conf/`` say: options with their defaults, comments, types, choices."""

import dataclasses
import functools
import importlib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, NamedTuple

import yaml

from l2lgd.cli.help import entries
from l2lgd.cli.help import shown as shown_default
from l2lgd.config.options import FILLED, RECOMMENDED
from l2lgd.meta.schedules import Unroll

CONF = files("l2lgd.conf")
NO_OPTIONS = ("defaults", "hydra", "_target_", RECOMMENDED)


class Option(NamedTuple):
    """An option of a YAML file."""

    name: str  # with those of the mappings that it is in
    default: str  # as it stands there
    meaning: str

    @property
    def shown(self) -> str:
        """The default as a person reads it."""
        return shown_default(self.default)


def options(text: str) -> Iterator[Option]:
    """Those of a YAML file, in its order, but for what belongs to Hydra or to other options."""
    for path, value, comment in entries(text):
        if path[0] in NO_OPTIONS:
            continue
        node = functools.reduce(lambda inner, part: inner[part], path, loaded(text))
        if not value and isinstance(node, list):
            value = compact(node)  # which stands in the lines below
        if value:
            yield Option(".".join(path), value, comment)


def with_meaning(option: Option, group: str, parents: Iterable[str]) -> Option:
    """The option, with what a parent of its file says where that says nothing."""
    for parent in parents:
        if option.meaning or not is_choice(group, parent):
            break
        text = read(CONF / group / f"{parent}.yaml")
        same = [other for other in options(text) if other.name == option.name]
        above = [value for key, value in defaults(text) if key == ""]
        for other in same or [option._replace(meaning="")]:
            option = option._replace(meaning=with_meaning(other, group, above).meaning)
    return option


def recommended(group: str, choice: str) -> dict[str, Any]:
    """What a task recommends, or what it is made of does: values of options, by full name."""
    text = read(CONF / group / f"{choice}.yaml")
    found: dict[str, Any] = {}
    for key, parent in defaults(text):
        if key == "" and is_choice(group, parent):
            found |= recommended(group, parent)
    return found | dict(_flat(loaded(text).get(RECOMMENDED) or {}))


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def filled_by_tasks(verb: str) -> set[str]:
    """Options of a verb that a task may have another default for."""
    return set(FILLED.get(verb, ()))


def defaults(text: str) -> Iterator[tuple[str, str]]:
    """Groups and choices of a defaults list; the group of the file itself is called ''.

    One inside the other, ``opt@optimizer``, has the name that it is chosen by on the command line.
    """
    for entry in loaded(text).get("defaults", []):
        if entry == "_self_":
            continue
        if isinstance(entry, str):
            yield "", entry
            continue
        for key, value in entry.items():
            other, at, where = key.removeprefix("override ").lstrip("/").partition("@")
            inside = at and not where.startswith("_global_")  # as opt@opt.optimizer is typed
            name = f"{other}@{other}.{where}" if inside else other
            yield name, "null" if value is None else str(value)


def constructor(group: str, choice: str) -> type | None:
    """The class that a choice builds, for the types of its options."""
    if group == "unroll":
        return Unroll
    text = read(CONF / group / f"{choice}.yaml")
    target = loaded(text).get("_target_")
    if target is not None:
        module, _, name = target.rpartition(".")
        found: type = getattr(importlib.import_module(module), name)
        return found
    for key, parent in defaults(text):
        if key == "" and is_choice(group, parent):
            return constructor(group, parent)
    return None


def type_in(kind: type | None, name: str) -> Any:
    """The type of an option in a dataclass or a constructor; None where that does not say."""
    found: Any = kind
    for part in name.split("."):
        if not isinstance(found, type):
            return None
        hints = typing.get_type_hints(found if dataclasses.is_dataclass(found) else found.__init__)
        if part not in hints:
            return None
        found = hints[part]
    return found


def type_name(kind: Any) -> str:
    """A type as a person reads it."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(type_name(part) for part in inner)
    if origin in (list, tuple) and inner:
        return f"list of {type_name(inner[0])}"
    if kind is Any or origin is dict or kind is dict:
        return "any" if kind is Any else "mapping"
    if kind is type(None):
        return "null"
    return str(getattr(kind, "__name__", kind))


def is_choice(group: str, choice: str) -> bool:
    """Is there such a file, or does it come from Hydra?"""
    return (CONF / group / f"{choice}.yaml").is_file()


def read(file: Traversable) -> str:
    return file.read_text(encoding="utf-8")


def loaded(text: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = yaml.safe_load(text) or {}
    return found


def compact(value: Any) -> str:
    """As one types it on the command line."""
    if isinstance(value, list):
        return f"[{','.join(map(compact, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {compact(part)}' for key, part in value.items())}}}"
    return yaml.safe_dump(value).partition("\n")[0]
