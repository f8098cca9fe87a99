"""What newcomers type, answered with what they meant before Hydra sees it.

Only words that cannot be right are refused here; what depends on the composed config is answered in
:mod:`l2lgd.config.messages`.
"""

import re
import shlex
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from l2lgd.cli.help import entries, groups_of
from l2lgd.config.choices import choices, text_of
from l2lgd.config.overrides import HYDRA_FLAGS, INFO_KINDS, POSITIONAL, SHORT, WORDS, typed
from l2lgd.errors import ConfigError, close_to, nearest

STEPS = ("meta_steps", "num_steps")
RATE = ("meta_learning_rate", "learning_rate")
ALIASES = {  # words of other programs, and what may be meant here: options, or options with a value
    "lr": RATE,
    "rate": RATE,
    "learning_rate": RATE,
    "outer_lr": ("meta_learning_rate",),
    "meta_lr": ("meta_learning_rate",),
    "grad_clip": ("meta_clip",),
    "clip": ("meta_clip",),
    "steps": STEPS,
    "n_steps": STEPS,
    "max_steps": STEPS,
    "iterations": STEPS,
    "iters": STEPS,
    "epochs": STEPS,
    "horizon": ("num_steps",),
    "unroll_length": ("unroll.lengths=[{}]",),
    "truncation": ("unroll.lengths=[{}]",),
    "bptt": ("unroll.lengths=[{}]",),
    "functions": ("num_functions",),
    "num_problems": ("num_functions",),
    "optimizer": ("opt",),
    "optimiser": ("opt",),
    "rule": ("opt",),
    "dataset": ("task",),
    "data": ("task", "data_dir"),
    "problem": ("task",),
    "checkpoint": ("initial_weights", "resume"),
    "weights": ("checkpoint", "initial_weights"),
    "model": ("checkpoint", "initial_weights"),
    "load": ("checkpoint", "initial_weights"),
    "continue": ("resume",),
    "resume": ("checkpoint",),
    "gpu": ("device=cuda",),
    "gpus": ("device=cuda",),
    "cuda": ("device=cuda",),
    "cpu": ("device=cpu",),
    "cores": ("threads",),
    "jobs": ("workers", "threads"),
    "out": ("output", "hydra.run.dir"),
    "output": ("hydra.run.dir",),
    "outdir": ("hydra.run.dir",),
    "output_dir": ("hydra.run.dir",),
    "save_dir": ("hydra.run.dir",),
    "wandb": ("logger=wandb", "logger=none"),
    "tensorboard": ("logger=tensorboard",),
    "verbose": ("hydra.verbose=true",),
    "fig": ("figure",),
}
RATES = {  # verbs in which a rate has no option of its own
    "evaluate": "rates of baselines= are tuned; one of your own: opt=adam opt.learning_rate={}",
    "tune": "rates are searched from lowest_rate= to highest_rate=",
}
FLAGS = ("--help", "--version")  # in the place of a verb
VERBS_MEANT = {  # by other words
    "train": "meta-train",
    "run": "meta-train",
    "fit": "meta-train",
    "eval": "evaluate",
    "test": "evaluate",
    "compare": "evaluate",
    "search": "tune",
    "plot": "figures",
    "draw": "figures",
    "figure": "figures",
    "paint": "stylize",
    "style": "stylize",
    "bench": "benchmark",
    "arena": "benchmark",
    "leaderboard": "benchmark",
    "verify": "check",
    "lint": "check",
    "list": "optimizers",
    "weights": "optimizers",
    "optimizer": "optimizers",
    "create": "new",
    "init": "new",
}
NONE = ("null", "off", "no", "false", "none", "0", "")
A_FIGURE = re.compile(r"(?:fig(?:ure)?_?)?(\d+|strip|sharing|mixture|all)")


def refuse(verb: str, arguments: Sequence[str]) -> None:
    """Raise ConfigError, with what was probably meant, for words that no verb takes."""
    rest, files_taken = list(arguments), len(POSITIONAL.get(verb, ()))
    while rest:
        word = rest.pop(0)
        if word.partition("=")[0] in HYDRA_FLAGS:
            takes = HYDRA_FLAGS.get(word, False)
            if rest and (takes or (word in ("--info", "-i") and rest[0] in INFO_KINDS)):
                rest.pop(0)
        elif word in SHORT.get(verb, {}):
            del rest[:1]
        elif re.match(r"--?[A-Za-z]", word):
            raise ConfigError(_flag(verb, word, rest))
        elif files_taken and not word.startswith("-") and ("=" not in word or Path(word).is_file()):
            files_taken -= 1
        elif "=" in word:
            _check_option(verb, word, rest)
        elif not word.startswith(("-", "~")):
            raise ConfigError(_bare(verb, word, rest))


def unknown_verb(word: str, verbs: Sequence[str]) -> str:
    """The answer to a first word that is no verb."""
    if "=" in word:
        return f"the verb comes first, as in l2lgd meta-train {word}"
    meant = word.lower().replace("_", "-")
    meant = VERBS_MEANT.get(meant, meant)
    if meant in verbs:
        return f"there is no verb {word}; did you mean {meant}?"
    flag = word.startswith("-")
    return f"there is no verb {word}{nearest(word, FLAGS if flag else verbs)}"


def _flag(verb: str, word: str, rest: Sequence[str]) -> str:
    """``--name value``, ``--name=value``, or a flag that nothing has."""
    name, given, value = word.lstrip("-").partition("=")
    name = name.replace("-", "_")
    if not given and rest and _is_bare(rest[0]):
        value = rest[0]
    flag, typed = close_to(word.partition("=")[0], HYDRA_FLAGS, 0.8), word.partition("=")[0]
    if flag:
        return f"there is no flag {typed}; did you mean {flag}?"
    near = close_to(name, _options(verb), 0.7)
    hint = _hint(verb, name, value) or (_hint(verb, near, value) if near else "")
    if hint:
        return f"{word}: options are given as name=value{hint}"
    return f"there is no flag {typed}; l2lgd {verb} --help lists the options"


def _check_option(verb: str, word: str, rest: Sequence[str]) -> None:
    """Raise ConfigError for another program's name, and for a value in several words."""
    name, _, value = word.lstrip("+").partition("=")
    if not value and rest and _is_bare(rest[0]):
        raise ConfigError(f"{word} {rest[0]}: leave the blank out; {word}{rest[0]}")
    if value.startswith(("[", "{")) and not _closed(value):
        whole = word
        for more in rest:
            whole += more
            if _closed(whole):
                raise ConfigError(f"{word} cannot be read; lists have no blanks: {whole}")
        raise ConfigError(f"{word} cannot be read; a bracket is not closed")
    if re.split(r"[.@/]", name)[0] in _options(verb):
        _check_choice(verb, name, value)
        return
    hint = _hint(verb, name, value)
    if hint:
        raise ConfigError(f"there is no option {name}{hint}")


def _check_choice(verb: str, group: str, value: str) -> None:
    """Raise ConfigError for values that a group never has."""
    plain = value.strip("'\"")
    if group == "logger" and plain.lower() in NONE and plain != "none":
        raise ConfigError(f"there is no logger={value}; did you mean logger=none?")
    if group == "unroll" and re.fullmatch(r"\[?\d+(,\d+)*\]?", plain):
        lengths = plain.strip("[]")
        raise ConfigError(f"there is no unroll={value}; did you mean unroll.lengths=[{lengths}]?")
    if group in _groups(verb) and group != "experiment" and plain.lower() in NONE:
        known = choices(group)
        if plain not in known:
            raise ConfigError(f"there is no {group}={value}; choose one of {', '.join(known)}")


def _bare(verb: str, word: str, rest: Sequence[str]) -> str:
    """A word that is neither a flag nor name=value."""
    unreadable = f"{word} cannot be read; options are given as name=value"
    figures = [A_FIGURE.fullmatch(one) for one in (word, *rest)]
    if verb == "figures" and figures[0]:
        names = [one[1] for one in figures if one]
        value = names[0] if len(names) == 1 else f"[{','.join(names)}]"
        return f"{unreadable}; did you mean figure={value}?"
    name, value = word, ""
    if re.fullmatch(r"\w[\w.]*:.*", word):
        name, _, value = word.partition(":")
    following = [one for one in rest if one != "="] if not value else []
    if following and (_is_bare(following[0]) or following[0].startswith("=")):
        value = following[0].lstrip("=")
    name = name.replace("-", "_")
    groups = _any_choice(verb)
    hint = _hint(verb, name, value)
    if hint and (value or word not in groups):
        return unreadable + hint
    if word in groups:
        return f"{unreadable}; did you mean {groups[word]}={word}?"
    shipped = files("l2lgd") / "pretrained" / "shipped" / f"{word}.safetensors"
    weights = "checkpoint" if "checkpoint" in _options(verb) else "initial_weights"
    if weights in _options(verb) and (word.endswith(".safetensors") or shipped.is_file()):
        return f"{unreadable}; did you mean {typed(weights, word)}?"
    if verb == "meta-train" and (Path(word) / ".hydra").is_dir():
        return f"{unreadable}; did you mean {typed('resume', word)}?"
    if verb in WORDS:
        return f"{unreadable}; usage: l2lgd {verb} {WORDS[verb]}"
    return f"{unreadable}; l2lgd {verb} --help lists them"


def _hint(verb: str, name: str, value: str) -> str:
    """The option that has that name here, or that does what it does elsewhere, with the value."""
    if re.split(r"[.@/]", name)[0] in _options(verb):
        found = [name]
    elif ALIASES.get(name) == RATE and verb in RATES:
        return f"; {RATES[verb].format(value)}"
    else:
        words = ALIASES.get(name, ())
        found = [w for w in words if re.split(r"[.=]", w)[0] in _options(verb)]
    given = [
        word.format(value) if "=" in word else f"{word}={shlex.quote(value) if value else '…'}"
        for word in found
    ]
    return f"; did you mean {' or '.join(given)}?" if given else ""


def _options(verb: str) -> set[str]:
    """The first words of the names of all options of a verb."""
    text = _text(verb)
    names = [path[0] for path, _, _ in entries(text) if path[0] != "defaults"]
    return {*groups_of(text), *names, "rerun"}


def _groups(verb: str) -> dict[str, str]:
    return groups_of(_text(verb))


def _text(verb: str) -> str:
    return text_of(verb.replace("-", "_"))


def _any_choice(verb: str) -> dict[str, str]:
    """The group that each choice is of; of choices of one name, the first."""
    found: dict[str, str] = {}
    for group in _groups(verb):
        for choice in choices(group):
            found.setdefault(choice, group)
    return found


def _is_bare(word: str) -> bool:
    return "=" not in word and not word.startswith(("-", "~", "+"))


def _closed(value: str) -> bool:
    return value.count("[") <= value.count("]") and value.count("{") <= value.count("}")
