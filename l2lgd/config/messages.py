"""Errors in one line, for the person at the terminal."""

import shlex

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException
from yaml import YAMLError

from l2lgd.config.overrides import GROUPS
from l2lgd.errors import UserError, is_disk_full, is_out_of_memory, nearest

OF_HYDRA = ("Config group override", "Unable to configure", "Invalid defaults list")  # ValueErrors
AMBIGUOUS = "Ambiguous value for argument '"  # Hydra's words for values with commas
OF_PLUGINS = ("joblib", "submitit_slurm", "submitit_local")  # launchers of packages of their own


def explanation(error: BaseException) -> str | None:
    """What went wrong and the way out, or None for what is a defect of the program."""
    told = str(error) if isinstance(error, UserError) else ""
    if is_out_of_memory(error) and "memory" not in told:  # or it would name another cause
        return _out_of_memory()
    if isinstance(error, UserError):
        return told
    if isinstance(error, MissingConfigException):
        group, _, choice = (error.missing_cfg_file or "").rpartition("/")
        if group == "hydra/launcher" and choice in OF_PLUGINS:
            return f"hydra/launcher={choice} is not installed: pip install 'l2lgd[sweeps]'"
        if group and error.options:
            return f"there is no {group}={choice}{nearest(choice, error.options)}"
        return one_line(error)
    if isinstance(error, OverrideParseException):
        return _unreadable_override(error.override)
    if isinstance(error, HydraException) and str(error).startswith(AMBIGUOUS):
        return _several_values(str(error))
    if isinstance(error, InterpolationResolutionError) and error.full_key:
        return f"{error.full_key}: {one_line(error).partition(' full_key:')[0]}"
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _misspelt_option(error) or one_line(error)
    if isinstance(error, ValueError) and str(error).startswith(OF_HYDRA):
        cause = error.__cause__ and explanation(error.__cause__)  # of a log file, for one
        return cause or one_line(error)
    if isinstance(error, YAMLError | UnicodeDecodeError):
        return f"a YAML file cannot be read: {one_line(error)}"
    if isinstance(error, RecursionError):
        return "a config refers to itself, or a file is nested too deeply"
    if isinstance(error, RuntimeError) and "home directory" in str(error):  # of Path.expanduser
        return "a path begins with ~ and the name of a user who is not there"
    if isinstance(error, RuntimeError | OverflowError) and "overflow" in str(error).lower():
        return f"a number is too large: {one_line(error).partition('. ')[0]}"
    if is_disk_full(error):
        return "the disk is full; free some space, or choose another hydra.run.dir"
    if isinstance(error, OSError) and "temporary directory" in str(error):  # of tempfile
        return "the disk is full, or no temporary folder is writable; free some space or set TMPDIR"
    if isinstance(error, OSError) and error.filename:
        return f"could not use {error.filename}: {error.strerror}"
    if isinstance(error, RuntimeError) and "deterministic" in str(error):  # PyTorch's
        return f"{one_line(error).partition('. ')[0]}; leave deterministic=true out"
    return None


def _out_of_memory() -> str:
    """What to do about it depends on who has set the limit."""
    less = "take a smaller num_functions or shorter unroll.lengths"
    try:
        from resource import RLIM_INFINITY, RLIMIT_AS, getrlimit
    except ImportError:  # Windows
        return f"out of memory; {less}"
    limit, _ = getrlimit(RLIMIT_AS)
    if limit == RLIM_INFINITY:
        return f"out of memory; {less}"
    return f"out of memory: ulimit -v is {limit / 1e9:.1f} GB here; raise it, or {less}"


def one_line(error: BaseException) -> str:
    """The text of an error, or of its cause, without line breaks."""
    text = str(error) or (str(error.__cause__) if error.__cause__ else type(error).__name__)
    return " ".join(text.split())


def _unreadable_override(override: str) -> str:
    """Most often a value has characters that mean something to Hydra, such as ~ or parentheses."""
    name, _, value = override.partition("=")
    if not (name and value):
        return f"{override} cannot be read; options are given as name=value"
    if value.count("[") != value.count("]"):
        return f"{override} cannot be read; a bracket is not closed, or not opened"
    quoted = shlex.quote(f'{name}="{value}"')
    return f"{override} cannot be read; a value with special characters takes quotes: {quoted}"


def _several_values(said: str) -> str:
    override = said.removeprefix(AMBIGUOUS).partition("'\n")[0]
    name, _, value = override.partition("=")
    return (
        f"{override}: several values are a list, {name}=[{value}], or a sweep, with --multirun; "
        "text with a comma takes quotes"
    )


def _misspelt_option(error: BaseException) -> str | None:
    """The nearest option to one that does not exist, or one of that name in a group."""
    cause = error.__cause__
    if not isinstance(cause, OmegaConfBaseException) or cause.full_key is None:
        return None
    if not isinstance(cause.parent_node, DictConfig) or cause.key in cause.parent_node:
        return None
    known = [str(key) for key in cause.parent_node if key not in ("_target_", "hydra")]
    inside = [f"{part}.{cause.key}" for part in GROUPS if _has(cause.parent_node, part, cause.key)]
    if inside and cause.key != "name":
        return f"there is no option {cause.full_key}; did you mean {' or '.join(inside)}?"
    meant = "learning_rate" if cause.key == "lr" else str(cause.key)
    return f"there is no option {cause.full_key}{nearest(meant, known)}"


def _has(config: DictConfig, group: str, option: object) -> bool:
    node = config._get_node(group) if group in config else None
    return isinstance(node, DictConfig) and not node._is_none() and option in node
