"""Write the pages of docs/reference about options: one a verb, one a config group, their list.

Run as ``python scripts/tools/config_reference.py [--check]``; with ``--check`` nothing is written,
and the exit status is 1 if a page is not up to date. Options and their meanings are read off the
YAML files in ``conf/``, types off the schemas of verbs and constructors that ``_target_`` names.
"""

import importlib
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import config_files as conf
import generated
import yaml
from config_files import CONF, Option

from l2lgd.cli.verbs import MODULES, PLAIN, VERBS
from l2lgd.config.choices import choices, first_comment
from l2lgd.config.options import OPEN_CHOICES
from l2lgd.config.overrides import GROUPS, WORDS
from l2lgd.config.schemas import SCHEMAS

REFERENCE = generated.DOCS / "reference"
INDEX = REFERENCE / "configuration.md"  # has their list
ALL_GROUPS = (*GROUPS, "hydra/launcher")
MEANINGS = {  # of the groups
    "task": "The distribution over optimizees.",
    "opt": "The optimizer, learned or hand-designed.",
    "estimator": "How the gradient of the meta-loss is had.",
    "unroll": "How meta-training cuts trajectories into unrolls, and what it minimises.",
    "logger": "What shows a run beside the files in its folder.",
    "search": "What `l2lgd tune` searches.",
    "scale": "How much `l2lgd figures` and `l2lgd benchmark` evaluate.",
    "suite": "The tasks of `l2lgd benchmark`.",
    "experiment": "Complete runs by name: settings of several groups at once.",
    "hydra/launcher": "Where the jobs of a sweep run.",
}
NOTICE = (
    "<!-- Written by scripts/tools/config_reference.py from conf/ and the code; edit those. -->"
)
FROM_TASK = ", or the task's"


def main() -> int:
    """Write the pages, or check them; returns the exit status."""
    folders = (REFERENCE / "verbs", REFERENCE / "groups")
    purpose = (__doc__ or "").splitlines()[0]
    return generated.run("config_reference.py", purpose, pages(), folders)


def pages() -> dict[Path, str]:
    """All pages, with what they should say."""
    found = {verb_page(verb): verb_text(verb, meaning) for verb, meaning in VERBS.items()}
    found |= {verb_page(verb): plain_verb_text(verb, meaning) for verb, meaning in PLAIN.items()}
    found |= {group_page(group): group_text(group) for group in ALL_GROUPS}
    return found | {INDEX: generated.between_marks(INDEX, list_of_pages())}


def verb_page(verb: str) -> Path:
    return REFERENCE / "verbs" / f"{verb}.md"


def group_page(group: str) -> Path:
    return REFERENCE / "groups" / f"{group.rpartition('/')[2]}.md"


def list_of_pages() -> list[str]:
    """Lines of Markdown: a table of verbs, a table of groups."""
    lines = ["| verb | what it does |", "|---|---|"]
    for verb, meaning in (VERBS | PLAIN).items():
        lines.append(f"| [`{verb}`](verbs/{verb_page(verb).name}) | {marked(meaning)} |")
    lines += ["", "| group | what is chosen |", "|---|---|"]
    for group in ALL_GROUPS:
        lines.append(f"| [`{group}`](groups/{group_page(group).name}) | {MEANINGS[group]} |")
    return lines


def verb_text(verb: str, meaning: str) -> str:
    """The page of a verb: what it does, its options, its groups."""
    name = verb.replace("-", "_")
    text = conf.read(CONF / f"{name}.yaml")
    groups = {key: value for key, value in conf.defaults(text) if key in GROUPS}
    found = list(conf.options(text))
    preset = [o for o in found if o.name.partition(".")[0] in groups.keys() - {o.name}]
    own = [o for o in found if o not in preset]
    words = f"{WORDS[verb]} " if verb in WORDS else ""
    said = sentence((first_comment(text) or meaning).partition(": l2lgd ")[0])
    lines = [f"# `l2lgd {verb}`", "", NOTICE, "", marked(said), ""]
    lines += ["```text", f"l2lgd {verb} {words}[option=value …]", "```", ""]
    lines += [f"What it leaves behind: [files of a run](../files.md#{verb}).", ""]
    lines += ["## Options", ""]
    lines += table(own, SCHEMAS[name], filled=conf.filled_by_tasks(name))
    lines += ["", "## Groups", "", "| group | default | what is chosen |", "|---|---|---|"]
    for group, default in groups.items():
        name_and_link = f"[`{group}`](../groups/{group_page(group).name})"
        lines.append(f"| {name_and_link} | `{default}` | {MEANINGS[group]} |")
    if preset:
        lines += ["", "The verb sets these options of its groups:", ""]
        lines += value_table(preset)
    return "\n".join([*lines, ""])


def plain_verb_text(verb: str, meaning: str) -> str:
    """The page of a verb that has no config."""
    usage = importlib.import_module(f"l2lgd.cli.{MODULES[verb]}").USAGE
    usage = re.sub(r"^(usage: +| {7})", "", usage, flags=re.MULTILINE)
    commands, _, rest = usage.partition("\n\n")
    lines = [f"# `l2lgd {verb}`", "", NOTICE, "", marked(sentence(meaning)), ""]
    lines += ["```text", commands, "```", ""]
    lines += [" ".join(rest.split()), ""] if rest else []
    return "\n".join(lines)


def group_text(group: str) -> str:
    """The page of a group: a list of its choices, then each with its options."""
    lines = [f"# `{group}`", "", NOTICE, "", MEANINGS[group], ""]
    lines += ["| choice | what it is |", "|---|---|"]
    for choice in choices(group):
        comment = first_comment(conf.read(CONF / group / f"{choice}.yaml"))
        lines.append(f"| {linked(group, choice, f'{group}={choice}')} | {marked(comment)} |")
    lines.append("")
    for choice in choices(group):
        lines += choice_section(group, choice)
    return "\n".join(lines)


def choice_section(group: str, choice: str) -> list[str]:
    """What a choice is, what it is made of, its options, the task's defaults."""
    text = conf.read(CONF / group / f"{choice}.yaml")
    parents = [value for key, value in conf.defaults(text) if not key]
    found = [conf.with_meaning(option, group, parents) for option in conf.options(text)]
    paragraphs = [f"## `{group}={choice}`", marked(sentence(first_comment(text)))]
    others = ", ".join(f"`{key}={value}`" for key, value in conf.defaults(text) if key)
    if others:
        paragraphs.append(f"It chooses {others}.")
    if parents:
        rest = ", but for:" if found else "."
        names = " and ".join(linked(group, name, name) for name in parents)
        paragraphs.append(f"As {names}{rest}")
    if "@package _global_" in text:
        paragraphs.append("\n".join(value_table(found)))
    else:
        prefix = f"{group.replace('/', '.')}."
        filled = filled_in_choice(group, choice)
        kind = conf.constructor(group, choice)
        paragraphs.append("\n".join(table(found, kind, prefix, filled)))
    task_defaults = conf.recommended(group, choice) if group == "task" else {}
    if task_defaults:
        set_to = [f"{name}={conf.compact(value)}" for name, value in task_defaults.items()]
        said = "The task's defaults for options of the verb and of other groups:"
        paragraphs.append("\n".join([said, "", "```text", *set_to, "```"]))
    return [line for paragraph in paragraphs if paragraph for line in (paragraph, "")]


def filled_in_choice(group: str, choice: str) -> set[str]:
    """Options of a choice that some task has another default for."""
    if OPEN_CHOICES.get(group) != choice:
        return set()
    every = (name for task in choices("task") for name in conf.recommended("task", task))
    return {name.partition(".")[2] for name in every if name.startswith(f"{group}.")}


def table(
    found: Iterable[Option], schema: type | None, prefix: str = "", filled: Iterable[str] = ()
) -> list[str]:
    """Lines of Markdown; none where there are no options."""
    rows = []
    for option in found:
        kind = conf.type_in(schema, option.name)
        if kind is None:  # what the schema does not say, the default may
            kind = type(yaml.safe_load(option.default))
        default = code(option.shown) + (FROM_TASK if option.name in filled else "")
        name = f"`{prefix}{option.name}`"
        rows.append(f"| {name} | {conf.type_name(kind)} | {default} | {marked(option.meaning)} |")
    return ["| option | type | default | meaning |", "|---|---|---|---|", *rows] if rows else []


def value_table(found: Sequence[Option]) -> list[str]:
    """Options that are set to a value; lines of Markdown, none where there are no options."""
    rows = [f"| `{o.name}` | {code(o.shown)} | {marked(o.meaning)} |" for o in found]
    if any(option.meaning for option in found):
        return ["| option | value | meaning |", "|---|---|---|", *rows]
    short = [f"| `{o.name}` | {code(o.shown)} |" for o in found]
    return ["| option | value |", "|---|---|", *short] if short else []


def code(value: str) -> str:
    """A value in a table."""
    return f"`{value}`".replace("|", "\\|")


def sentence(meaning: str) -> str:
    """A comment as a paragraph."""
    ended = meaning if meaning.endswith((".", ":")) or not meaning else f"{meaning}."
    is_option = "=" in ended.partition(" ")[0]
    return ended if is_option else ended[:1].upper() + ended[1:]


def marked(meaning: str) -> str:
    """Plain words as Markdown: nothing in them is markup, but pages of the docs become links."""
    escaped = re.sub(r"[\\*|$]|(?<!\w)_|_(?!\w)", r"\\\g<0>", meaning)
    escaped = escaped.replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"\bdocs/([\w/-]+/)?([\w-]+\.md)", r"[\2](../../\1\2)", escaped)


def linked(group: str, choice: str, text: str) -> str:
    """The name of a choice; a link where it is one of ours."""
    if not conf.is_choice(group, choice):
        return f"`{text}`"
    return f"[`{text}`](#{slug(f'{group}={choice}')})"


def slug(heading: str) -> str:
    """The anchor of a heading, as code hosts make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


if __name__ == "__main__":
    sys.exit(main())
