"""What people type, as Hydra's parser wants it."""

import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from l2lgd.errors import ConfigError

HYDRA_FLAGS = {  # and whether a value must follow
    "--multirun": False,
    "-m": False,
    "--run": False,
    "-r": False,
    "--cfg": True,
    "-c": True,
    "--resolve": False,
    "--package": True,
    "-p": True,
    "--info": False,
    "-i": False,
    "--config-dir": True,
    "-cd": True,
    "--config-path": True,
    "-cp": True,
    "--config-name": True,
    "-cn": True,
    "--hydra-help": False,
}
LONG_FLAGS = {
    "-c": "--cfg",
    "-p": "--package",
    "-cd": "--config-dir",
    "-cp": "--config-path",
    "-cn": "--config-name",
}
GROUPS = ("task", "opt", "estimator", "unroll", "logger", "search", "scale", "suite", "experiment")
NO_NAME = r"([-+.\de]+|[-+]?inf|(?i:true|false|nan))"  # Hydra reads it as a number or truth value
PLAIN = r"[A-Za-z0-9_/.+@%-]+"  # needs no quotes
CFG_KINDS = ("job", "hydra", "all")
INFO_KINDS = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
POSITIONAL = {"stylize": ("content", "style")}  # options that a verb takes without their names
SHORT = {"stylize": {"-o": "output"}}
WORDS = {"stylize": "content.jpg style.jpg -o painted.png"}  # an example of both, for people


def ordered(verb: str, arguments: list[str]) -> list[str]:
    """Hydra's flags, then options with their names.

    Raises:
        ConfigError: a flag does not exist or lacks its value, or there are too many words.
    """
    return _flags_first(_named(verb, arguments))


def quoted(value: object, interpolated: bool = False) -> str:
    """As the value of an option, whatever characters it has.

    Args:
        interpolated: OmegaConf is to replace ``${…}`` in it.
    """
    text = str(value)
    if not interpolated:
        text = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    mark = "'" if '"' in text else '"'  # in a shell, the others look better inside '…'
    # Hydra takes backslashes as such, but before quotes.
    text = re.sub(rf"(\\*){mark}", rf"\1\1\\{mark}", text)
    return mark + re.sub(r"(\\+)$", r"\1\1", text) + mark


def option(name: str, value: object) -> str:
    """``name=value``, quoted for Hydra where that is needed."""
    text = str(value)
    if text.startswith("~"):  # would be a home directory
        text = f"./{text}"
    plain = re.fullmatch(PLAIN, text) and not re.fullmatch(f"{NO_NAME}|(?i:null)", text)
    return f"{name}={text if plain else quoted(text)}"


def any_option(name: str, value: object) -> str:
    """``name=value`` for a value of a config: a number, a word, null, a list or a mapping."""
    return option(name, value) if isinstance(value, str) else f"{name}={_literal(value)}"


def _literal(value: object) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_literal, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{_literal(part)}' for key, part in value.items())}}}"
    return quoted(value) if isinstance(value, str) else repr(value)


def typed(name: str, value: object) -> str:
    """:func:`option` as it is typed in a shell."""
    return shlex.quote(option(name, value))


def value_of(override: str) -> str:
    """The value that is given, without the quotes that Hydra takes off."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    text = override.partition("=")[2]
    if not text.startswith(("'", '"')):  # a name is often typed as it is
        return text
    try:
        value = OverridesParser.create().parse_override(override).value()
    except HydraException:
        return text.strip("'\"")
    return re.sub(r"\\\$\{", "${", value) if isinstance(value, str) else text


def asks_for_sweep(words: Iterable[str]) -> bool:
    """Do they say that there is to be a sweep, rather than a config?"""
    words = list(words)
    modes = [value_of(word) for word in words if word.lstrip("+").startswith("hydra.mode=")]
    return bool({"-m", "--multirun"} & set(words)) or modes[-1:] not in ([], ["RUN"])


def at_home(word: str) -> str:
    """With the home in place of ``~`` where a value begins so: Hydra has no such sign."""
    return _VALUE.sub(_at_home, word)


# Text in quotes, or an unquoted value from its ~ on, which may be one of a mapping.
_VALUE = re.compile(
    r"""(['"])(?:\\.|(?!\1).)*\1|(?<=[=,\[])~(?:\$\{[^}]*\}|[^,\]])*"""
    r"""|(?<=: )~(?:\$\{[^}]*\}|[^,}])*"""
)


def _at_home(found: re.Match[str]) -> str:
    quote = found[1] or ""
    text = re.sub(r"\\([^$])", r"\1", found[0].removeprefix(quote).removesuffix(quote))
    try:
        return quoted(Path(text).expanduser(), True) if text.startswith("~") else found[0]
    except RuntimeError:  # there is no such user
        return found[0]


QUOTES = "'\""


def with_whole_paths(word: str, cwd: Path) -> str:
    """Where configs are, whatever the working directory is later."""
    name, _, value = word.lstrip("+").partition("=")
    if name == "--config-dir":
        return f"{name}={cwd / value.strip(QUOTES)}"
    if name != "hydra.searchpath":
        return word
    places = [place.strip(f" {QUOTES}") for place in value.strip("[]").split(",")]
    whole = [
        place if "://" in place or not place else str(cwd / place)
        for place in (place.removeprefix("file://") for place in places)
    ]
    if whole == places:
        return word
    return f"{name}=[{','.join(quoted(place) for place in whole if place)}]"


def _named(verb: str, arguments: list[str]) -> list[str]:
    names, short = list(POSITIONAL.get(verb, ())), SHORT.get(verb, {})
    found, rest = [], list(arguments)
    while rest:
        word = rest.pop(0)
        if HYDRA_FLAGS.get(word) and rest:
            found.append(word)
            word = rest.pop(0)
        elif word in short:
            if not rest:
                raise ConfigError(f"{word} needs a value")
            word = f"{short[word]}={quoted(rest.pop(0))}"
        elif names and not word.startswith("-") and ("=" not in word or Path(word).is_file()):
            word = f"{names.pop(0)}={quoted(word)}"
        found.append(word)
    return found


def _flags_first(arguments: list[str]) -> list[str]:
    """Hydra's parser wants its flags before the overrides; people put them anywhere."""
    from l2lgd.errors import nearest

    flags, overrides, rest = [], [], list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            _check(word)
            overrides.append(word)
            continue
        flag, given, _ = word.partition("=")
        if flag not in HYDRA_FLAGS:
            raise ConfigError(f"there is no flag {flag}{nearest(flag, HYDRA_FLAGS)}")
        if HYDRA_FLAGS[flag] and not given:
            if not rest:
                raise ConfigError(f"{flag} needs a value")
            word = f"{LONG_FLAGS.get(flag, flag)}={rest.pop(0)}"
            if word.startswith("--cfg=") and word.removeprefix("--cfg=") not in CFG_KINDS:
                raise ConfigError(f"{word}{nearest(word.removeprefix('--cfg='), CFG_KINDS)}")
        elif given and flag in LONG_FLAGS:
            word = word.replace(flag, LONG_FLAGS[flag], 1)
        elif flag in ("--info", "-i") and not given and rest and rest[0] in INFO_KINDS:
            word = f"--info={rest.pop(0)}"
        flags.append("--info=all" if word in ("--info", "-i") else word)
    return [*flags, *overrides]


def _check(override: str) -> None:
    """Raise ConfigError for what Hydra has no good answer to."""
    if override.startswith("="):
        raise ConfigError(f"{override} cannot be read; options are given as name=value")
    group = rf"\+?({'|'.join(GROUPS)})=['\"]?"
    if re.fullmatch(group + NO_NAME, override) or override == "search=null":
        raise ConfigError(f"there is no {override}; l2lgd VERB --help lists the choices")
    if re.match(group + r"(.*[,/\\['\"])?(\.\.|/)", override):  # run folders have these names
        raise ConfigError(f"{override}: choices are names, l2lgd VERB --help lists them")
    if override.startswith("hydra.job.name=") and re.search(r"[/\\]", override):
        raise ConfigError(f"{override}: it names the log file, in the run folder")
