"""What an evaluation has to be told so that its task and horizon are those of a run."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from l2lgd.config.differences import flattened
from l2lgd.config.old_names import upgraded
from l2lgd.config.options import AUGMENT, RECOMMENDED
from l2lgd.config.overrides import any_option
from l2lgd.storage.paths import as_typed, where_typed

OF_TRAINING = (RECOMMENDED, AUGMENT)  # keys of a task that no evaluation heeds
SAME = ("task", "num_steps", "data_dir")  # options that functions and their steps depend on
MISSING = "???"  # OmegaConf's, of an option that has to be given


def options_of_evaluation(config: Mapping[str, Any], choices: Sequence[str]) -> list[str]:
    """The words beside ``task=`` and ``opt=`` by which ``evaluate`` has the functions of a run.

    They are what differs from its defaults, whether it was typed or is an experiment's. Options of
    ``opt`` are those that were typed, or have no default: weights carry all of them, but the
    optimizer is built from its config first.

    Args:
        config: of the run, interpolations resolved.
        choices: the words ``task=`` and ``opt=``.
    """
    hydra = HydraConfig.get().overrides
    search = [word for word in hydra.hydra if word.startswith("hydra.searchpath=")]
    try:
        composed = compose("evaluate", overrides=[*choices, *search])
        defaults: Any = upgraded(OmegaConf.to_container(composed, resolve=True))  # type: ignore[arg-type]
    except (HydraException, OmegaConfBaseException):
        # No reason to fail: the run has reached its end, and its configs may be for it alone.
        kept = ("task.", "num_steps=", "data_dir=", "opt.")
        words = (word for word in hydra.task if word.lstrip("+~").startswith(kept))
        return [word for word in words if f"task.{AUGMENT}" not in word]
    given = {word.lstrip("+~").partition("=")[0] for word in hydra.task}
    return [*_differing(config, defaults, SAME), *_of_opt(config, defaults, given)]


def _differing(
    config: Mapping[str, Any], defaults: Mapping[str, Any], names: Sequence[str]
) -> Iterator[str]:
    own, others = (
        flattened({name: _of_evaluation(node[name]) for name in names})
        for node in (config, defaults)
    )
    for name in sorted(others.keys() - own.keys()):
        if others[name] is not None and not _below(name, own):  # Hydra deletes nothing that is null
            yield f"~{name}"
    for name, value in own.items():
        if name not in others:
            yield any_option(f"++{name}", _from_here(value))
        elif others[name] != value:
            yield any_option(name, _from_here(value))


def _below(name: str, own: Mapping[str, Any]) -> bool:
    """Is what lies around an option another value now, such as null in place of a mapping?"""
    return any(name.startswith(f"{other}.") for other in own)


def _of_opt(config: Mapping[str, Any], defaults: Mapping[str, Any], given: set[str]) -> list[str]:
    own, others = flattened({"opt": config["opt"]}), flattened({"opt": defaults["opt"]})
    wanted = [name for name in own if others.get(name) == MISSING or _is_given(name, given)]
    return [
        any_option(name if name in others else f"++{name}", _from_here(own[name]))
        for name in wanted
    ]


def _is_given(name: str, given: set[str]) -> bool:
    """Was an option typed, or a mapping that it is in?"""
    return any(name == word or name.startswith(f"{word}.") for word in given - {"opt"})


def _of_evaluation(node: Any) -> Any:
    if not isinstance(node, Mapping):
        return node
    return {key: value for key, value in node.items() if key not in OF_TRAINING}


def _from_here(value: Any) -> Any:
    """A path that was typed in another folder, where the run was begun, as it is from this one."""
    here = Path(HydraConfig.get().runtime.cwd)
    # Without a slash, it is a word more often than a path.
    if not isinstance(value, str) or "/" not in value or where_typed() == here:
        return value
    found = as_typed(value)
    return str(found) if found.exists() else value
