"""Hydra's sweepers and launchers, overheard: the plan of a sweep is what they run."""

import errno
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from l2lgd.errors import ConfigError

Jobs = Sequence[Sequence[str]]  # the overrides of each
NUMBERS = ("${hydra:job.num}", "${hydra.job.num}")  # folders of jobs that cannot be wrong
_given: list["Given"] = []  # what the next sweep is, whatever sweeper its config names
_make_sweeper, _make_launcher = Plugins.instantiate_sweeper, Plugins.instantiate_launcher


class Given(Sweeper):
    """Runs jobs that no product of options gives.

    Args:
        begin: called when all of them are known to compose, before any is run.
    """

    def __init__(self, jobs: Jobs, begin: Callable[[], None]) -> None:
        self._jobs, self._begin = [list(job) for job in jobs], begin

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.hydra_context, self.config = hydra_context, config
        self._launcher = _make_launcher(Plugins.instance(), hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> Any:
        self.validate_batch_is_legal(self._jobs)
        self._begin()
        for result in self._launcher.launch(self._jobs, initial_job_idx=0):
            _ = result.return_value  # raises what ended the job


class Noted(Launcher):
    """A launcher whose jobs are written down before they are run."""

    def __init__(
        self,
        launcher: Launcher,
        context: HydraContext,
        config: DictConfig,
        note: Callable[[Jobs], None],
    ) -> None:
        self._launcher, self._context, self._config, self._note = launcher, context, config, note
        self._jobs: list[Sequence[str]] = []
        self.sweeper: Any = None

    def setup(self, **_: Any) -> None:
        """The launcher inside has had it."""

    def launch(self, job_overrides: Jobs, initial_job_idx: int) -> Sequence[JobReturn]:
        batches = getattr(self.sweeper, "overrides", None) or []  # Hydra's own knows all of them
        known = [job for batch in batches for job in batch]
        told = [*self._jobs[:initial_job_idx], *job_overrides]
        self._jobs = known if len(known) > len(told) else told
        self._check_folders()
        self._note(self._jobs)
        results = self._launcher.launch(job_overrides, initial_job_idx)
        last = initial_job_idx + len(job_overrides) == len(known)
        if not known or last:
            return results
        # Where one has failed, the batches after it are run all the same.
        return [result for result in results if result.status == JobStatus.COMPLETED]

    def _check_folders(self) -> None:
        """Raise ConfigError where jobs would share a folder, or could not have one."""
        sweep: Any = OmegaConf.to_container(self._config.hydra.sweep, resolve=False)
        if sweep["subdir"] in NUMBERS:
            return
        before, owners = HydraConfig.instance().cfg, dict[str, int]()
        for number, overrides in enumerate(self._jobs):
            loader = self._context.config_loader
            config = loader.load_sweep_config(self._config, list(overrides))
            with open_dict(config):
                config.hydra.job.num, config.hydra.job.id = number, str(number)
            HydraConfig.instance().set_config(config)
            name = str(config.hydra.sweep.subdir)
            other = owners.setdefault(name, number)
            if other != number:
                raise ConfigError(
                    f"jobs {other} and {number} would share the folder {name}; "
                    "choose another hydra.sweep.subdir"
                )
            try:
                (Path(config.hydra.sweep.dir) / name).lstat()
            except OSError as error:
                if error.errno == errno.ENAMETOOLONG:
                    raise ConfigError(
                        f"the name of the folder of job {number} is too long ({len(name)} "
                        "characters); choose another hydra.sweep.subdir"
                    ) from error
        HydraConfig.instance().cfg = before


def run_only(jobs: Jobs, begin: Callable[[], None]) -> None:
    """Have the next sweep run these jobs."""
    _given[:] = [Given(jobs, begin)]


def are_given() -> bool:
    """Are there jobs of :func:`run_only` that no sweep has taken yet?"""
    return bool(_given)


def overhear(folder: Path, note: Callable[[Jobs], None]) -> None:
    """Have the jobs of the sweep of a folder noted as soon as they are known, unless given."""

    def sweeper(self: Plugins, **about: Any) -> Sweeper:
        if _is_of(about["config"], folder) and _given:
            given = _given.pop()
            given.setup(**about)
            return given
        made = _make_sweeper(self, **about)
        own = getattr(made, "launcher", None)
        if isinstance(own, Noted):
            own.sweeper = made
        return made

    def launcher(
        self: Plugins, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> Launcher:
        made = _make_launcher(self, hydra_context, task_function, config)
        return Noted(made, hydra_context, config, note) if _is_of(config, folder) else made

    # Hydra has no place to ask for its jobs.
    Plugins.instantiate_sweeper = sweeper  # type: ignore[method-assign]
    Plugins.instantiate_launcher = launcher  # type: ignore[method-assign]


def _is_of(config: DictConfig, folder: Path) -> bool:
    return Path(config.hydra.sweep.dir) == folder
