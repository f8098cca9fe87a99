"""``--help``, read off the YAML files, where every option has its line of meaning."""

import dataclasses
import re
import textwrap
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable

from l2lgd.config.choices import choices, first_comment, text_of
from l2lgd.config.options import OPEN_CHOICES, RECOMMENDED, may_be_recommended
from l2lgd.config.overrides import GROUPS, WORDS

WIDTH = 80
LONGEST_NAME = 26  # a longer one has a line to itself
OPTION = re.compile(r"^( *)([\w]+):([^#]*)(?:#\s*(.*))?$")
MEANINGS = {  # of the groups
    "task": "the functions that are optimized",
    "opt": "the optimizer",
    "estimator": "how the meta-gradient is had",
    "unroll": "how trajectories are cut into unrolls",
    "logger": "what records the metrics",
    "search": "what is searched",
    "scale": "how much is evaluated",
    "suite": "the tasks of a benchmark",
    "experiment": "a complete run by name",
}
EVERYDAY = {  # what help shows first
    "meta-train": """task opt experiment meta_steps num_functions num_steps meta_learning_rate
        validate_every initial_weights resume seed device threads logger""",
    "evaluate": """task opt checkpoint baselines num_functions num_steps split reuse
        seed device threads data_dir logger""",
    "tune": """task search baselines opt checkpoint lowest_rate highest_rate trials num_functions
        num_steps meta_steps seed device threads logger""",
    "stylize": """content style output size num_steps checkpoint beside learning_rate
        seed device threads""",
    "check": """task opt estimator unroll task.augment.levels data_dir allow_targets threads""",
    "benchmark": """optimizers tasks suite scale seeds reference trials workers
        results_dir seed device data_dir""",
    "figures": """figure scale figures.style figures.overlay of reuse workers vgg
        seed device data_dir""",
}
EXAMPLES = {
    "meta-train": "task=mnist opt=lstm",
    "evaluate": "task=mnist num_functions=20",
    "tune": "task=mnist baselines=[adam,sgd]",
    "stylize": WORDS["stylize"],
    "check": "--config-dir conf allow_targets=[mine] task=bowls opt=gru",
    "benchmark": "scale=small optimizers=[mnist-lstm,untuned_adam]",
    "figures": "figure=4",
}
ENDING = """Lists are written without blanks: baselines=[adam,sgd]. hydra.run.dir=FOLDER chooses the
folder of the run. Hydra's flags work too: --multirun runs every combination of values such as
seed=0,1,2; --cfg job shows the config and ends; --config-dir DIR adds configs of yours."""

Rows = dict[str, str]  # what an option or a choice means, by its name


def overview(verbs: Mapping[str, str]) -> str:
    """The help of ``l2lgd`` alone."""
    lines = [
        "l2lgd: learning to learn by gradient descent by gradient descent",
        "",
        "usage: l2lgd VERB [option=value …]",
        "",
        "verbs:",
        *columns(verbs.items()),
        "",
        "examples:",
        "  l2lgd meta-train task=mnist opt=lstm",
        "  l2lgd evaluate task=mnist",
        "  l2lgd meta-train --multirun seed=0,1,2 meta_learning_rate=0.001,0.003",
        "",
        *columns(
            [
                ("l2lgd VERB --help", "the options of a verb"),
                ("l2lgd VERB --cfg job", "the config that would run"),
                ("l2lgd --version", "the version"),
            ]
        ),
        'Shell completion (bash): eval "$(l2lgd -sc install=bash)"',
    ]
    return "\n".join(lines)


def verb_help(verb: str, meaning: str, words: Iterable[str] = ()) -> str:
    """The help of one verb: its everyday options, the others, each config group with its choices.

    Args:
        words: what else was typed; the options shown of a group are those of its choice there.
    """
    conf = files("l2lgd.conf")
    text = text_of(verb.replace("-", "_"))
    chosen = _chosen(conf, text, words)
    own = _options(text, lambda name: may_be_recommended(verb.replace("-", "_"), name))
    own = {name: said for name, said in own.items() if name not in chosen}
    groups = {group: f"{MEANINGS[group]} [{choice}]" for group, choice in chosen.items()}
    everyday = EVERYDAY[verb].split()
    rest = {name: said for name, said in own.items() if name not in everyday}
    arguments = f"{WORDS[verb]} " if verb in WORDS else ""
    lines = [
        f"l2lgd {verb}: {meaning}",
        "",
        f"usage: l2lgd {verb} {arguments}[option=value …]",
        f"such as: l2lgd {verb} {EXAMPLES[verb]}",
        "",
        "everyday options:",
        *columns((name, (own | groups)[name]) for name in everyday),
        "",
        "other options:",
        *columns(rest.items()),
    ]
    for group, choice in chosen.items():
        lines += ["", f"{group}=  {MEANINGS[group]}", *columns(_choices(group).items())]
        fields = _of_choice(conf / group, group, choice)
        if fields:
            lines += [f"options of {group}={choice}:", *columns(fields.items())]
    return "\n".join([*lines, "", *textwrap.wrap(ENDING, WIDTH, break_on_hyphens=False)])


def columns(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Names, and beside them what they mean, indented where it takes several lines."""
    rows = list(rows)
    fitting = [len(name) for name, _ in rows if len(name) <= LONGEST_NAME]
    width = max(fitting, default=LONGEST_NAME)
    lines = []
    for name, said in rows:
        wrapped = textwrap.wrap(
            said, WIDTH - width - 4, break_long_words=False, break_on_hyphens=False
        )
        first = wrapped.pop(0) if wrapped and len(name) <= width else ""
        lines.append(f"  {name:<{width}}  {first}".rstrip())
        lines += [" " * (width + 4) + line for line in wrapped]
    return lines


def entries(text: str) -> Iterator[tuple[list[str], str, str]]:
    """Of each key of a YAML file the path to it, its value and its comment, either may be empty."""
    path: list[str] = []
    for line in text.splitlines():
        match = OPTION.match(line)
        if match:
            indent, key, value, comment = match.groups()
            path = [*path[: len(indent) // 2], key]
            yield path, value.strip(), comment or ""


def groups_of(text: str) -> dict[str, str]:
    """The groups that a verb has, and what is chosen by default."""
    found = dict(re.findall(r"^  - (\w+): (\w+)(?: +#.*)?$", text, flags=re.MULTILINE))
    return {group: found[group] for group in GROUPS if group in found}


def shown(value: str, by_task: bool = False) -> str:
    """A default as a person reads it.

    Args:
        by_task: tasks may have another one.
    """
    variable = re.fullmatch(r"\$\{oc\.env:(\w+),\"?([^\"]*)\"?\}", value)
    if variable:
        return f"${variable[1]} or {variable[2]}"
    plain = re.sub(r"\$\{([\w.]+)\}", r"\1", value)  # of another option
    if plain.startswith("["):
        plain = plain.replace(", ", ",")  # as it is typed
    return f"{plain}, or the task's" if by_task else plain


def _chosen(conf: Traversable, text: str, words: Iterable[str]) -> dict[str, str]:
    """Of each group of a verb the choice: that among the words, or the default."""
    chosen = groups_of(text)
    for word in words:
        group, _, choice = word.partition("=")
        if group in chosen and (conf / group / f"{choice}.yaml").is_file():
            chosen[group] = choice
    return chosen


def _options(text: str, by_task: Callable[[str], bool], prefix: str = "") -> Rows:
    """What every option of a YAML file that has a comment means, under its full name."""
    found = {}
    for path, value, comment in entries(text):
        name = prefix + ".".join(path)
        if comment and value and not name.startswith(f"task.{RECOMMENDED}."):
            default = shown(value, by_task(name))
            found[name] = f"{comment} {default if default[0] == '[' else f'[{default}]'}"
    return found


def _of_choice(group: Traversable, name: str, choice: str) -> Rows:
    """The options of a choice, with those of the files that it is made of."""
    if choice == "null":
        return {}
    text = (group / f"{choice}.yaml").read_text(encoding="utf-8")
    if "@package _global_" in text:  # it sets options of others
        return {}
    found: Rows = {}
    for parent in re.findall(r"^  - (\w+)$", text, re.MULTILINE):
        if parent != "_self_":
            found |= _of_choice(group, name, parent)
    open_to_task = OPEN_CHOICES.get(name) == choice
    return found | _options(text, lambda option: open_to_task and _is_open(option), f"{name}.")


def _is_open(option: str) -> bool:
    """May a task have another default for an option of an open choice?"""
    from l2lgd.config.schemas import Recommended

    part, _, name = option.partition(".")
    schema = typing.get_type_hints(Recommended)[part]
    return name in {field.name for field in dataclasses.fields(schema)}


def _choices(group: str) -> Rows:
    """The choices of a group, each with the first comment of its file."""
    return {choice: first_comment(text_of(group, choice)) for choice in choices(group)}
