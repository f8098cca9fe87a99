"""What a task recommends, merged into a config while Hydra composes it.

The order is: the verb's own defaults and its groups, what the task recommends, the experiment, what
was typed. Hydra has no place between the groups and the experiment, so its composition is wrapped.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import hydra._internal.hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from l2lgd.config.allowed import allow_packages_of
from l2lgd.config.old_names import upgraded_task
from l2lgd.config.options import FILLED, OPEN_CHOICES, RECOMMENDED
from l2lgd.config.repository import Bounded, Repository

BEFORE_THE_TASK = "search/"  # a group that comes after the verb's own options, but before this


class Loader(ConfigLoaderImpl):
    """Hydra's, with what the task recommends. Launchers hand it to their workers by its name."""

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self.repository = Repository(config_search_path)

    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str]
    ) -> tuple[list[Override], CachingConfigRepository]:
        found, repository = super()._parse_overrides_and_create_caching_repo(config_name, overrides)
        return found, Bounded(repository)

    def load_sweep_config(
        self, master_config: DictConfig, sweep_overrides: list[str]
    ) -> DictConfig:
        # A worker of a launcher has a path of its own.
        allow_packages_of(sweep_overrides, Path(master_config.hydra.runtime.cwd))
        return super().load_sweep_config(master_config, sweep_overrides)

    def _compose_config_from_defaults_list(
        self, defaults: list[Any], repo: IConfigRepository
    ) -> DictConfig:
        place = _place(defaults)
        config = super()._compose_config_from_defaults_list(defaults[:place], repo)
        later = OmegaConf.create()
        if defaults[place:]:
            later = super()._compose_config_from_defaults_list(defaults[place:], repo)
        load = functools.partial(self._load_single_config, repo=repo)
        _fill(config, _recommended(config, later), defaults[:place], load)
        config.merge_with(later)
        _fill_horizons(config)
        return config


def install() -> None:
    """Have Hydra compose configs so from now on, in this process and the workers of launchers."""
    hydra._internal.hydra.ConfigLoaderImpl = Loader  # type: ignore[attr-defined]


def composed(verb: str, overrides: Sequence[str] = ()) -> DictConfig:
    """A verb's config as the command line composes it, for programs without one."""
    install()
    with hydra.initialize_config_module("l2lgd.conf", version_base="1.3"):
        return hydra.compose(verb, overrides=list(overrides))


def _recommended(config: DictConfig, later: DictConfig) -> DictConfig:
    """By the task, and by what says something else of it later, such as an experiment."""
    found = OmegaConf.create()
    for part in (config, later):
        task = part.get("task")
        told = upgraded_task(dict(task)).get(RECOMMENDED) if isinstance(task, DictConfig) else None
        if isinstance(told, Mapping):
            found.merge_with(told)
    return found


def _place(defaults: Sequence[Any]) -> int:
    """Behind the verb's own options, and the choice of what is searched."""
    own = [
        k
        for k, default in enumerate(defaults)
        if default.primary or (default.config_path or "").startswith(BEFORE_THE_TASK)
    ]
    return max(own, default=len(defaults) - 1) + 1


def _fill(
    config: DictConfig, recommended: Mapping[str, Any], defaults: Sequence[Any], load: Any
) -> None:
    verb = next((d.config_path for d in defaults if d.primary and d.config_path in FILLED), None)
    if verb is None or not recommended:
        return
    names = FILLED[verb]
    if config.get("search") == "meta_learning_rate":  # it meta-trains
        names = names | {"num_functions": "num_functions"}
    for option, name in names.items():
        if name in recommended:
            config[option] = recommended[name]
    for package, part, key in _open(defaults, load):
        if key in recommended.get(part, {}):
            OmegaConf.update(config, f"{package}.{key}", recommended[part][key])


def _fill_horizons(config: DictConfig) -> None:
    """Each task of a mixture has the horizon that it recommends, where none is given."""
    parts = OmegaConf.select(config, "task.tasks")
    for name, node in (parts if isinstance(parts, DictConfig) else {}).items():
        steps = OmegaConf.select(node, f"{RECOMMENDED}.num_steps") if node else None
        given = OmegaConf.select(config, "task.horizons")
        if steps is not None and (given is None or given.get(name) is None):
            OmegaConf.update(config, f"task.horizons.{name}", steps, force_add=True)


def _open(defaults: Sequence[Any], load: Any) -> Iterator[tuple[str, str, str]]:
    """Options that have the value of an open choice: package, part of what is recommended, name."""
    for k, default in enumerate(defaults):
        part, _, choice = (default.config_path or "").partition("/")
        if not choice or OPEN_CHOICES.get(part) != choice:
            continue
        package = default.package
        later = [load(default=other).config for other in defaults[k + 1 :] if other.config_path]
        for key in OmegaConf.select(load(default=default).config, package):
            option = f"{package}.{key}"
            if not any(_sets(other, option) for other in later):
                yield package, part, key


def _sets(config: DictConfig, option: str) -> bool:
    parent, _, key = option.rpartition(".")
    node = OmegaConf.select(config, parent) if isinstance(config, DictConfig) else None
    return isinstance(node, DictConfig) and key in node
