"""Write docs/reference/configuration.md: every option of every verb and config group.

Run as ``python scripts/tools/config_reference.py [--check]``; with ``--check`` nothing is written,
and the exit status is 1 if the page is not up to date. Options and their meanings are read off the
YAML files in ``conf/``, types off the schemas of verbs and constructors that ``_target_`` names.
"""

import argparse
import dataclasses
import functools
import importlib
import re
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from l2lgd.cli.help import entries
from l2lgd.cli.help import shown as shown_default
from l2lgd.cli.main import VERBS
from l2lgd.config.overrides import GROUPS
from l2lgd.config.schemas import SCHEMAS
from l2lgd.meta.schedules import Unroll

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "configuration.md"
CONF = files("l2lgd.conf")
ALL_GROUPS = (*GROUPS, "hydra/launcher")
MEANINGS = {  # of the groups
    "task": "The distribution over functions that is optimized.",
    "opt": "The optimizer, learned or hand-designed.",
    "unroll": "How meta-training cuts trajectories into unrolls, and what it minimises.",
    "logger": "What shows a run beside the files in its folder.",
    "search": "What `l2lgd tune` searches.",
    "scale": "How many functions the evaluations of `l2lgd figures` are of.",
    "experiment": "Settings of several groups at once.",
    "hydra/launcher": "Where the jobs of a sweep run ([sweeps.md](../how-to/sweeps.md)).",
}
SET_ELSEWHERE = ("defaults", "hydra", "recipe")  # no options of the file that they stand in
BEGINNING = """# Configuration

<!-- Written by scripts/tools/config_reference.py from conf/ and the code; edit those. -->

Every option of every verb and group, with its type, its default and what it means. `l2lgd VERB
--help` has the same on the terminal, `l2lgd VERB --cfg job` the composed values. Options are set as
`name=value`, those of a group as `group.name=value`, the choice of a group as `group=choice`, lists
as `[1,2]`.

Where a default says "or what the task says", the recipe of the chosen task can have another one; it
stands below the options of the task.
"""


class Option(NamedTuple):
    """An option of a YAML file."""

    name: str  # with those of the mappings that it is in
    default: str
    meaning: str


def main() -> int:
    """Write the page, or check it; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say if it is up to date")
    check = parser.parse_args().check
    text = page()
    if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == text:
        return 0
    if check:
        print(
            f"{PAGE.name} is not up to date: python scripts/tools/config_reference.py",
            file=sys.stderr,
        )
        return 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


def page() -> str:
    """The whole page."""
    parts = [BEGINNING]
    parts += [verb_section(verb, meaning) for verb, meaning in VERBS.items()]
    parts += [group_section(group) for group in ALL_GROUPS]
    return "\n".join(parts)


def verb_section(verb: str, meaning: str) -> str:
    """What a verb does, its groups with their defaults, and the table of its own options."""
    name = verb.replace("-", "_")
    text = read(CONF / f"{name}.yaml")
    groups = {key: value for key, value in defaults(text) if key in GROUPS}
    said = [f"[`{key}`](#{slug(key)}) (default `{value}`)" for key, value in groups.items()]
    found = list(options(text))
    preset = [
        option for option in found if option.name.partition(".")[0] in groups.keys() - {option.name}
    ]
    own = [option for option in found if option not in preset]
    lines = [f"## `l2lgd {verb}`", "", marked(first_comment(text) or meaning), ""]
    lines += [f"Groups: {', '.join(said)}.", ""]
    if preset:
        lines += [f"Set from these: {assignments(preset)}.", ""]
    return "\n".join([*lines, *table(own, SCHEMAS[name]), ""])


def group_section(group: str) -> str:
    """All choices of a group."""
    lines = [f"## `{group}`", "", MEANINGS[group], ""]
    for choice in choices(CONF / group):
        lines += choice_section(group, choice)
    return "\n".join(lines)


def choice_section(group: str, choice: str) -> list[str]:
    """What a choice is, what it is made of, its options, its recipe."""
    text = read(CONF / group / f"{choice}.yaml")
    parents = [value for key, value in defaults(text) if not key]
    found = [with_meaning(option, group, parents) for option in options(text)]
    paragraphs = [f"### `{group}={choice}`", marked(first_comment(text))]
    others = ", ".join(f"`{key}={value}`" for key, value in defaults(text) if key)
    if others:
        paragraphs.append(f"With {others}.")
    if parents:
        rest = ", but for:" if found else "."
        paragraphs.append(f"As {' and '.join(linked(group, name) for name in parents)}{rest}")
    if "@package _global_" in text and found:
        paragraphs.append(f"Sets {assignments(found)}.")
    else:
        prefix = f"{group.replace('/', '.')}."
        paragraphs.append("\n".join(table(found, constructor(group, choice), prefix)))
    recipe = loaded(text).get("recipe", {})
    if recipe:
        said = (f"`{key}={compact(value)}`" for key, value in recipe.items())
        paragraphs.append(f"Recipe: {', '.join(said)}.")
    return [line for paragraph in paragraphs if paragraph for line in (paragraph, "")]


def table(found: Iterable[Option], schema: type | None, prefix: str = "") -> list[str]:
    """Lines of Markdown; none where there are no options."""
    rows = []
    for name, default, meaning in found:
        kind = type_in(schema, name)
        if kind is None:  # what the schema does not say, the default may
            kind = type(yaml.safe_load(default))
        shown = shown_default(default).replace("|", "\\|")
        rows.append(f"| `{prefix}{name}` | {type_name(kind)} | `{shown}` | {marked(meaning)} |")
    return ["| option | type | default | meaning |", "|---|---|---|---|", *rows] if rows else []


def assignments(found: Iterable[Option]) -> str:
    """Options with their values, what they mean in brackets."""
    said = [(f"`{o.name}={shown_default(o.default)}`", marked(o.meaning)) for o in found]
    return ", ".join(f"{one} ({meaning})" if meaning else one for one, meaning in said)


def options(text: str) -> Iterator[Option]:
    """Those of a YAML file, in its order, but for what belongs to Hydra or to the recipe."""
    for path, value, comment in entries(text):
        if path[0] in (*SET_ELSEWHERE, "_target_"):
            continue
        node = functools.reduce(lambda inner, part: inner[part], path, loaded(text))
        if not value and isinstance(node, list):
            value = compact(node)  # which stands in the lines below
        if value:
            yield Option(".".join(path), value, comment)


def with_meaning(option: Option, group: str, parents: Iterable[str]) -> Option:
    """The option, with what a parent of its file says where that says nothing."""
    for parent in parents:
        if option.meaning:
            break
        text = read(CONF / group / f"{parent}.yaml")
        same = [other for other in options(text) if other.name == option.name]
        above = [value for key, value in defaults(text) if key == ""]
        for other in same or [option._replace(meaning="")]:
            meaning = with_meaning(other, group, above).meaning
            option = option._replace(meaning=meaning)
    return option


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
    """The class whose signature is the schema of a choice, or of what the choice is based on."""
    if group == "unroll":
        return Unroll
    text = read(CONF / group / f"{choice}.yaml")
    target = loaded(text).get("_target_")
    if target is not None:
        module, _, name = target.rpartition(".")
        found: type = getattr(importlib.import_module(module), name)
        return found
    for key, parent in defaults(text):
        if key == "" and (CONF / group / f"{parent}.yaml").is_file():
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


def choices(group: Traversable) -> list[str]:
    """Names of the YAML files of a group."""
    names = (entry.name for entry in group.iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


@functools.cache
def read(file: Traversable) -> str:
    return file.read_text(encoding="utf-8")


def loaded(text: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = yaml.safe_load(text) or {}
    return found


def first_comment(text: str) -> str:
    """Of a file, without Hydra's own."""
    (found,) = re.findall(r"^# (?!@)(.*)$", text, re.MULTILINE)[:1] or [""]
    return str(found)


def marked(meaning: str) -> str:
    """Plain words as Markdown: nothing in them is markup, but pages of the docs become links."""
    escaped = re.sub(r"[\\*|]|(?<!\w)_|_(?!\w)", r"\\\g<0>", meaning)
    escaped = escaped.replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"\bdocs/([\w/-]+/)?([\w-]+\.md)", r"[\2](../\1\2)", escaped)


def linked(group: str, choice: str) -> str:
    """The name of a choice; a link where it is one of ours."""
    known = (CONF / group / f"{choice}.yaml").is_file()
    return f"[`{choice}`](#{slug(f'{group}={choice}')})" if known else f"`{choice}`"


def slug(heading: str) -> str:
    """The anchor of a heading, as code hosts make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def compact(value: Any) -> str:
    """As one types it on the command line."""
    if isinstance(value, list):
        return f"[{','.join(map(compact, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {compact(part)}' for key, part in value.items())}}}"
    return yaml.safe_dump(value).partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main())
