"""``--help``, read off the YAML files, where every option has its line of meaning."""

import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable

from l2lgd.config.overrides import GROUPS, WORDS

OPTION = re.compile(r"^( *)([\w]+):([^#]*)(?:#\s*(.*))?$")


def overview(verbs: Mapping[str, str]) -> str:
    """The help of ``l2lgd`` alone."""
    width = max(map(len, verbs))
    lines = [
        "l2lgd: learning to learn by gradient descent by gradient descent",
        "",
        "usage: l2lgd VERB [option=value …] [--multirun]",
        "",
        "verbs:",
        *(f"  {verb:<{width}}  {meaning}" for verb, meaning in verbs.items()),
        "",
        "examples:",
        "  l2lgd meta-train task=mnist opt=lstm",
        "  l2lgd evaluate task=mnist",
        "  l2lgd meta-train --multirun seed=0,1,2 meta_learning_rate=0.001,0.003",
        "",
        "l2lgd VERB --help lists the options of a verb, l2lgd VERB --cfg job shows them composed.",
        'Shell completion (bash): eval "$(l2lgd -sc install=bash)"',
    ]
    return "\n".join(lines)


def verb_help(verb: str, meaning: str) -> str:
    """The help of one verb: its options, then each config group with its choices."""
    conf = files("l2lgd.conf")
    words = f"{WORDS[verb]} " if verb in WORDS else ""
    text = (conf / f"{verb.replace('-', '_')}.yaml").read_text(encoding="utf-8")
    lines = [
        f"l2lgd {verb}: {meaning}",
        "",
        f"usage: l2lgd {verb} {words}[option=value …]",
        "",
        "options:",
    ]
    lines += _options(text)
    defaults = dict(re.findall(r"^  - (\w+): (\w+)(?: +#.*)?$", text, flags=re.MULTILINE))
    for group in GROUPS:
        if group in defaults:
            lines += ["", f"{group}=  (default: {defaults[group]})", *_choices(conf / group)]
    lines += [
        "",
        "Options of a chosen group are set as in opt.output_scale=0.1; in the chosen files:",
    ]
    for group in GROUPS:
        if group in defaults and defaults[group] != "null":
            choice = (conf / group / f"{defaults[group]}.yaml").read_text(encoding="utf-8")
            lines += _options(choice, f"{group}.")
    lines += ["", "Hydra's flags work too: --multirun, --cfg job, --info, --config-dir DIR"]
    return "\n".join(lines)


def entries(text: str) -> Iterator[tuple[list[str], str, str]]:
    """Of each key of a YAML file the path to it, its value and its comment, either may be empty."""
    path: list[str] = []
    for line in text.splitlines():
        match = OPTION.match(line)
        if match:
            indent, key, value, comment = match.groups()
            path = [*path[: len(indent) // 2], key]
            yield path, value.strip(), comment or ""


def _options(text: str, prefix: str = "") -> list[str]:
    """Every option of a YAML file that has a comment, under its full name."""
    rows = [
        (prefix + ".".join(path), value, comment)
        for path, value, comment in entries(text)
        if comment and value
    ]
    width = max((len(name) for name, _, _ in rows), default=0)
    return [f"  {name:<{width}}  {comment} [{shown(value)}]" for name, value, comment in rows]


def shown(value: str) -> str:
    """A default as a person reads it: the fallback of an interpolation, not the interpolation."""
    select = re.search(r"\$\{oc\.select:task\.recipe\.\w+,([^}]*)\}", value)
    if select:
        return f"{select[1]}, or what the task says"
    variable = re.fullmatch(r"\$\{oc\.env:(\w+),\"?([^\"]*)\"?\}", value)
    return f"${variable[1]} or {variable[2]}" if variable else value


def _choices(group: Traversable) -> list[str]:
    """The choices of a group, each with the first comment of its file."""
    rows = []
    for file in sorted(group.iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".yaml"):
            comments = re.findall(r"^# (?!@)(.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            rows.append((file.name.removesuffix(".yaml"), comments[0] if comments else ""))
    width = max((len(name) for name, _ in rows), default=0)
    return [f"  {name:<{width}}  {comment}" for name, comment in rows]
