"""Learned optimizers made ready for a comparison: their weights loaded."""

import logging
import shlex
from pathlib import Path
from typing import Any, NamedTuple

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from l2lgd.config.overrides import quoted, typed
from l2lgd.config.schemas import about_task
from l2lgd.errors import CheckpointError, ConfigError, nearest
from l2lgd.meta.state import described, load_weights
from l2lgd.optimizers.base import LearnedRule
from l2lgd.pretrained.weights import SHIPPED, bounded_by, find, shipped_label
from l2lgd.runs.run import Run
from l2lgd.storage.paths import as_typed
from l2lgd.system.terminal import printable
from l2lgd.tasks.base import Split

log = logging.getLogger(__name__)


def opt_config(run: Run, name: str, said: str = "") -> dict[str, Any]:
    """The config of a choice of the group ``opt``, as composed for this run's task.

    Args:
        said: where the name was given, for the message; in ``baselines`` by default.

    Raises:
        ConfigError: there is no such choice.
    """
    known = choices_of("opt")
    if name not in known:
        said = said or f"baselines=[{name}]"
        raise ConfigError(f"{said}: there is no opt={name}{nearest(name, known)}")
    composed = composed_with(f"task={run.task_name}", f"opt={name}")
    return dict(composed["opt"])


def choices_of(group: str) -> list[str]:
    """The choices of a config group, those of one's own included."""
    loader, job = GlobalHydra.instance().config_loader(), HydraConfig.get().job
    return loader.get_group_options(group, config_name=job.config_name, overrides=_searchpath())


def composed_with(*overrides: str, verb: str | None = None) -> dict[str, Any]:
    """The config of the verb that runs, or another one, with other words.

    Interpolations are resolved.
    """
    name = verb or HydraConfig.get().job.config_name
    composed = compose(name, overrides=[*overrides, *_searchpath()])
    found: Any = OmegaConf.to_container(composed, resolve=True)
    return dict(found)


def _searchpath() -> list[str]:
    given = HydraConfig.get().overrides.hydra
    return [override for override in given if override.startswith("hydra.searchpath=")]


class Trained(NamedTuple):
    """A learned optimizer with its weights, and where they come from."""

    optimizer: LearnedRule
    file: str
    options: dict[str, Any]  # its config
    metadata: dict[str, Any]  # of the file


def given_weights(run: Run) -> dict[str, str]:
    """The files, or the names of weights that ship, that were typed, by optimizer.

    Raises:
        ConfigError: ``checkpoint=`` and ``checkpoints=`` both name the weights of ``opt``.
    """
    name, one = run.opt_name, run.options.checkpoint
    found = _of_checkpoints(run)
    if one is None:
        return found
    if name in found:
        raise ConfigError(
            f"checkpoint={one} and checkpoints={{{name}: {found[name]}}} both name the weights of "
            f"opt={name}; leave one of them out"
        )
    return {name: one, **found}


def trained(run: Run, name: str, node: dict[str, Any], split: Split) -> Trained:
    """A learned optimizer with the weights that were typed, or those that ship for the task.

    ``checkpoint=`` and ``checkpoints=`` take files, or the names of weights that ship.
    Its options are those it was trained with, which the checkpoint carries, except for those
    that the command line sets.

    Raises:
        CheckpointError: there are no such weights, they are another optimizer's, or not readable.
    """
    given, of_opt = given_weights(run).get(name), name == run.opt_name
    one_of_several = name in _of_checkpoints(run)
    if given is None:
        stems = about_task(run.config).weights_of or [run.task_name]
        own = getattr(run.options, "weights_dir", None)  # an option of evaluate
        folder = as_typed(own) if own else SHIPPED
        candidates = (folder / f"{stem}-{name}.safetensors" for stem in stems)
        shipped = next((path for path in candidates if path.is_file()), None)
        if shipped is None:
            raise CheckpointError(
                f"no trained weights {f'in {own}' if own else 'ship'} for task={run.task_name} "
                f"opt={name}; run l2lgd meta-train task={run.task_name} opt={name} and evaluate it "
                f"with {f'opt={name} checkpoint=FILE' if of_opt else _several(name)}"
            )
        label = str(shipped) if own else shipped_label(shipped)
        path, metadata = shipped, described(shipped)
    else:
        path, metadata = _chosen(given, name if one_of_several else None)
        label = shipped_label(path) if path.is_relative_to(SHIPPED) else given
    own_name = metadata.get("opt_name", name)
    if own_name != name:
        raise CheckpointError(
            f"{path} holds weights of opt={own_name}, not of opt={name}; "
            f"give {_several(own_name, str(given)) if one_of_several else f'opt={own_name}'}"
        )
    home = metadata.get("task_name", run.task_name)
    if home != run.task_name:
        log.info(
            "%s was meta-trained on task=%s, here it runs on task=%s",
            path.stem if path.is_relative_to(SHIPPED) else path,
            printable(home),
            run.task_name,
        )
    options = metadata.get("opt", node)
    if of_opt:
        options = _with_given(options, node)
    with bounded_by(path):
        optimizer = run.build_optimizer(options, f"{path}: opt")
    if not isinstance(optimizer, LearnedRule):
        raise CheckpointError(f"{path} does not hold a learned optimizer")
    load_weights(path, optimizer)
    ancestor: dict[str, Any] | None = metadata
    while ancestor:
        _warn_of_shared_images(run, path, ancestor.get("data"), split)
        ancestor = ancestor.get("begun_from")
    return Trained(optimizer, label, options, metadata)


def _of_checkpoints(run: Run) -> dict[str, str]:
    return dict(getattr(run.options, "checkpoints", None) or {})  # an option of evaluate


def _several(name: str, file: str = "FILE") -> str:
    """``checkpoints=`` as it is typed in a shell."""
    return shlex.quote(f"checkpoints={{{name}: {file if file == 'FILE' else quoted(file)}}}")


def _chosen(label: str, name: str | None) -> tuple[Path, dict[str, Any]]:
    """The file of ``checkpoint=``, and what it says about itself.

    Args:
        name: of the optimizer, where the file is one of ``checkpoints=``.
    """
    folder = as_typed(label)
    inside = folder / "checkpoints" / "best.safetensors"
    if inside.is_file():
        where = typed("checkpoint", inside) if name is None else _several(name, str(inside))
        raise CheckpointError(f"{folder} is a folder; its weights are {where}")
    found = find(label)
    return found.path, found.metadata


def _with_given(options: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """``options``, those that the command line sets as in ``node``."""
    changed, given = OmegaConf.create(options), OmegaConf.create(node)
    for override in HydraConfig.get().overrides.task:
        name = override.lstrip("+").partition("=")[0]
        if name.startswith("opt."):
            key = name.removeprefix("opt.")
            OmegaConf.update(changed, key, OmegaConf.select(given, key), force_add=True)
    plain: Any = OmegaConf.to_container(changed)
    return dict(plain)


def _warn_of_shared_images(
    run: Run, path: Path, trained_on: dict[str, Any] | None, split: Split
) -> None:
    """Splits are disjoint within a source, but the embedded digits train full MNIST too."""
    now = run.task.data_description()
    if not trained_on or not now or trained_on["name"] != now["name"]:
        return
    if isinstance(parts := trained_on.get("parts"), dict):  # of a mixture
        for part in parts.values():
            if part.get("name") == now["name"]:
                _warn_of_shared_images(run, path, part, split)
        return
    then, here = trained_on["source"], now["source"]
    if then == here == "embedded" and trained_on.get("note") != now.get("note"):
        why = "an earlier version split the embedded digits otherwise"
    # None of the embedded digits is a test image of full MNIST.
    elif then != here and (here == "embedded" or (then == "embedded" and split != "test")):
        why = "the embedded digits are training images of full MNIST"
    else:
        return
    log.warning(
        "NOT HELD OUT: %s was meta-trained on %s from %s, this evaluation uses %s; %s, so images "
        "are shared",
        path.name,
        printable(trained_on["name"]),
        printable(then),
        here,
        why,
    )
