"""Optimizers made ready for a comparison: trained weights loaded, learning rates tuned."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from l2lgd.config import nearest
from l2lgd.errors import CheckpointError, ConfigError
from l2lgd.kept_losses import digest
from l2lgd.optimizers.base import LearnedOptimizer, Optimizer
from l2lgd.run import Run
from l2lgd.saved import described, load_weights
from l2lgd.tasks.base import Split
from l2lgd.tracking import NullTracker
from l2lgd.trainer import Trainer
from l2lgd.tuning import Search, TunedRates, grid_search
from l2lgd.weights import SHIPPED

log = logging.getLogger(__name__)

LOWEST_RATE, HIGHEST_RATE = 1e-4, 10.0  # where the grid begins; it grows when the best is at an end


def opt_config(run: Run, name: str, said: str = "") -> dict[str, Any]:
    """The config of a choice of the group ``opt``, as composed for this run's task.

    Args:
        said: where the name was given, for the message; in ``baselines`` by default.

    Raises:
        ConfigError: there is no such choice.
    """
    hydra = HydraConfig.get()
    search = [o for o in hydra.overrides.hydra if o.startswith("hydra.searchpath=")]
    loader = GlobalHydra.instance().config_loader()
    known = loader.get_group_options("opt", config_name=hydra.job.config_name, overrides=search)
    if name not in known:
        said = said or f"baselines=[{name}]"
        raise ConfigError(f"{said}: there is no opt={name}{nearest(name, known)}")
    overrides = [f"task={run.task_name}", f"opt={name}", *search]
    composed = compose(hydra.job.config_name, overrides=overrides)
    node: Any = OmegaConf.to_container(composed.opt, resolve=True)
    return node


class Trained(NamedTuple):
    """A learned optimizer with its weights, and where they come from."""

    optimizer: LearnedOptimizer
    file: str
    options: dict[str, Any]  # its config
    metadata: dict[str, Any]  # of the file


def trained(run: Run, name: str, node: dict[str, Any], split: Split) -> Trained:
    """A learned optimizer with the weights of ``checkpoint=``, or those that ship.

    Its options are those it was trained with, which the checkpoint carries, except for those
    that the command line sets.

    Raises:
        CheckpointError: there are no such weights, they are another optimizer's, or not readable.
    """
    label = run.options.checkpoint if name == run.opt_name else None
    if label is None:
        recipe = run.config["task"].get("recipe") or {}
        stems = recipe.get("weights_of", [run.task_name])
        own = getattr(run.options, "weights_dir", None)  # an option of evaluate
        folder = Path(own).expanduser() if own else SHIPPED
        candidates = (folder / f"{stem}-{name}.safetensors" for stem in stems)
        shipped = next((path for path in candidates if path.is_file()), None)
        if shipped is None:
            raise CheckpointError(
                f"no trained weights {f'in {own}' if own else 'ship'} for task={run.task_name} "
                f"opt={name}; run l2lgd meta-train task={run.task_name} opt={name} and evaluate it "
                f"with opt={name} checkpoint=FILE"
            )
        label = str(shipped) if own else f"l2lgd/shipped/{shipped.relative_to(SHIPPED).as_posix()}"
        path = shipped
    else:
        path = Path(label).expanduser()
    metadata = described(path)
    if metadata.get("opt_name", name) != name:
        raise CheckpointError(
            f"{path} holds weights of opt={metadata['opt_name']}, not of opt={name}; give opt="
            f"{metadata['opt_name']}"
        )
    options = metadata.get("opt", node)
    if name == run.opt_name:
        options = _with_given(options, node)
    optimizer = run.build_optimizer(options, f"{path}: opt")
    if not isinstance(optimizer, LearnedOptimizer):
        raise CheckpointError(f"{path} does not hold a learned optimizer")
    load_weights(path, optimizer)
    ancestor: dict[str, Any] | None = metadata
    while ancestor:
        _warn_of_shared_images(run, path, ancestor.get("data"), split)
        ancestor = ancestor.get("begun_from")
    return Trained(optimizer, label, options, metadata)


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
    if not trained_on or not now or trained_on["source"] == now["source"]:
        return
    on_embedded = now["source"] == "embedded"  # none of which is a test image of full MNIST
    if on_embedded or (trained_on["source"] == "embedded" and split != "test"):
        log.warning(
            "NOT HELD OUT: %s was meta-trained on %s from %s, this evaluation uses %s; the "
            "embedded digits are training images of full MNIST, so images are shared",
            path.name,
            trained_on["name"],
            trained_on["source"],
            now["source"],
        )


def tuned(run: Run, name: str, node: dict[str, Any]) -> tuple[Optimizer, Search]:
    """A hand-designed optimizer at the best learning rate for this problem, and its search.

    Found before, by the package's authors or the user, or searched now.
    """
    num_functions, seed = run.options.tune_functions, run.options.tune_seed
    rates = TunedRates(SHIPPED / "tuned", Path(run.options.tuned_dir).expanduser())
    key = tuning_key(run, name, node, num_functions, seed)
    search = rates.find(key)
    if search is None:
        log.info("%s: no tuned learning rate for this problem yet, searching", name)
        search = search_learning_rate(run, node, num_functions, seed, LOWEST_RATE, HIGHEST_RATE)
        rates.store(key, search, {"command": run.command()})
    return run.build_optimizer({**node, "learning_rate": search.best_rate}), search


def needs_tuning(node: dict[str, Any]) -> bool:
    """Does an optimizer's config leave its learning rate open?"""
    return "learning_rate" in node and node["learning_rate"] is None


def search_learning_rate(
    run: Run, node: dict[str, Any], num_functions: int, seed: int, lowest: float, highest: float
) -> Search:
    """Grid search on the validation problems; the best final loss wins (section 3 of the paper)."""
    trainer = Trainer(run.task, seed, NullTracker())

    def final_loss(rate: float) -> float:
        optimizer = run.build_optimizer({**node, "learning_rate": rate})
        curves = trainer.evaluate(optimizer, "validation", num_functions, run.options.num_steps)
        log.debug("learning rate %.4g: %.4g", rate, curves.final_loss())
        return curves.final_loss()

    return grid_search(final_loss, lowest, highest)


def tuning_key(
    run: Run, name: str, node: dict[str, Any], num_functions: int, seed: int
) -> dict[str, Any]:
    """What a tuned learning rate depends on."""
    optimizer = {k: v for k, v in node.items() if k != "learning_rate"}
    return {
        "task_name": run.task_name,
        "task": task_options(run.config["task"], run.task.not_in_keys),
        "data": same_images(run.task.data_description()),
        "optimizer_name": name,
        "optimizer": optimizer,
        "num_steps": run.options.num_steps,
        "num_functions": num_functions,
        "seed": seed,
    }


def losses_key(
    run: Run, name: str, node: dict[str, Any], optimizer: Optimizer, rate: float | None
) -> dict[str, Any]:
    """What the losses of an evaluation depend on, as JSON has it."""
    options = run.options
    key = {
        "task_name": run.task_name,
        "task": task_options(run.config["task"], run.task.not_in_keys),
        "data": same_images(run.task.data_description()),
        "optimizer_name": name,
        "optimizer": {**node, "learning_rate": rate},
        "split": options.split,
        "num_functions": options.num_functions,
        "num_steps": options.num_steps,
        "seed": options.seed,
        "device": run.device.type,
    }
    if isinstance(optimizer, LearnedOptimizer):
        key["weights"] = digest(optimizer.state_dict())
    found: dict[str, Any] = json.loads(json.dumps(key))
    return found


def task_options(node: dict[str, Any], others: Sequence[str]) -> dict[str, Any]:
    """Those that tell tasks apart, as they are in a key; one that is null is as good as absent."""
    left_out = ("recipe", *others)
    return {k: v for k, v in node.items() if k not in left_out and v is not None}


def same_images(data: dict[str, object] | None) -> dict[str, object] | None:
    """What tells data apart: the same images from another place are the same data."""
    return data and {key: value for key, value in data.items() if key != "source"}
