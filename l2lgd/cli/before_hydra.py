"""What is done with the words of a command line before Hydra sees them.

``resume=`` and ``rerun=`` stand for the words of an earlier run or sweep, and under torchrun all
processes but the first keep off its folder.
"""

import atexit
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from l2lgd.config.allowed import allow_packages_of
from l2lgd.config.old_names import current
from l2lgd.config.options import FILLED, RECOMMENDED
from l2lgd.config.overrides import (
    asks_for_sweep,
    at_home,
    ordered,
    quoted,
    typed,
    value_of,
    with_whole_paths,
)
from l2lgd.errors import CheckpointError, ConfigError
from l2lgd.storage.files import check_writable
from l2lgd.system import launch, signals
from l2lgd.system.terminal import say

TAKE_WEIGHTS = ("evaluate", "tune", "stylize")  # as checkpoint=
RESUMED = ("meta-train", "tune")  # with resume=
WORKERS_END = 10.0  # seconds


def words_of(verb: str, overrides: list[str]) -> list[str] | None:
    """The words that Hydra gets in place of those that were typed; None where nothing is left.

    Raises:
        ConfigError: they ask for what cannot be done.
    """
    overrides = [with_whole_paths(at_home(word), Path.cwd()) for word in overrides]
    _refuse_recommended(overrides)
    overrides = current(overrides, FILLED.get(verb.replace("-", "_"), ()))
    if path_option(overrides, "rerun") is not None:
        return _of_rerun(verb, overrides)
    return _of_this_process(verb, _with_folder(verb, _with_opt(verb, overrides)))


def _with_opt(verb: str, overrides: list[str]) -> list[str]:
    """For ``checkpoint=`` without ``opt=``: the choice that the weights say they are of."""
    label = path_option(overrides, "checkpoint")
    names = {o.lstrip("+").partition("=")[0] for o in overrides}
    if verb not in TAKE_WEIGHTS or label is None or names & {"opt", "experiment"}:
        return overrides
    from l2lgd.pretrained import weights

    try:
        name = weights.find(str(label)).metadata.get("opt_name")
    except CheckpointError:
        return overrides  # the verb says so, or that it takes none
    return [*overrides, f"opt={name}"] if re.fullmatch(r"[A-Za-z]\w*", name or "") else overrides


def _refuse_recommended(overrides: list[str]) -> None:
    """What a task recommends has been taken, or not, before anything that is typed."""
    for word in overrides:
        name = word.lstrip("+~").partition("=")[0]
        option = name.removeprefix(f"task.{RECOMMENDED}.")
        if option != name:
            raise ConfigError(f"{word}: give {option}= itself; it has the last word")


def _of_rerun(verb: str, overrides: list[str]) -> list[str] | None:
    """For ``rerun=FOLDER``: what a sweep has left undone, by the launcher that it had."""
    from l2lgd.runs import launching, sweeps
    from l2lgd.storage import locks

    folder = path_option(overrides, "rerun")
    assert folder is not None
    sweep = sweeps.Sweep.read(folder)
    if sweep.verb != verb:
        raise ConfigError(f"rerun={folder} is a sweep of l2lgd {sweep.verb}, not of {verb}")
    flags = [o for o in overrides if o.startswith("-") and o not in ("--multirun", "-m")]
    own = [o for o in overrides if not o.startswith(("-", "rerun="))]
    of_hydra = [o for o in own if o.lstrip("+").startswith("hydra")]
    changes = [o for o in own if o not in of_hydra]
    if any(o.lstrip("+").startswith("resume=") for o in changes):
        raise ConfigError("rerun= goes on with the jobs of a sweep; leave resume= out")
    _hold(folder)
    sweeps.started.append(folder)
    allowed = [o for job in sweep.jobs for o in job.overrides]
    jobs = sweeps.again(sweep, changes)
    if not jobs:
        return None
    for job in sweep.left():  # the system may not have ended all workers of a killed sweep yet
        locks.wait_for(job.folder, WORKERS_END)
    allow_packages_of([*allowed, *changes], Path.cwd())
    launching.run_only(jobs, lambda: sweeps.begin_again(sweep, changes))
    where = f"hydra.sweep.dir={quoted(folder)}"
    return ["--multirun", *flags, *sweep.overrides, *of_hydra, where]


def _with_folder(verb: str, overrides: list[str]) -> list[str]:
    """For ``resume=FOLDER``: that run's own overrides first, and its folder as the run folder."""
    folder = path_option(overrides, "resume") if verb in RESUMED else None
    _hold(folder)
    if folder is None:
        return overrides
    if asks_for_sweep(overrides):
        raise ConfigError("resume= goes on with one run; leave --multirun and hydra.mode= out")
    if launch.rank() == 0 and folder.is_dir():
        check_writable(folder / "metrics.jsonl")
    before = current(_words_before(verb, folder), FILLED[verb.replace("-", "_")])
    own = [_from_here(o) for o in overrides if not o.lstrip("+").startswith("resume=")]
    where = [f"resume={quoted(folder)}", f"hydra.run.dir={quoted(folder)}"]
    where += ["hydra.output_subdir=null", "hydra.mode=RUN"]  # of a sweep's config, it was a job
    return sorted([*before, *own, *where], key=lambda word: not word.startswith("-"))  # flags first


def _words_before(verb: str, folder: Path) -> list[str]:
    """Of the command that began the run of a folder: as Hydra keeps them, or a checkpoint."""
    from yaml import YAMLError

    from l2lgd.config.messages import one_line
    from l2lgd.config.yaml_files import load_yaml

    file = stored = folder / ".hydra" / "overrides.yaml"
    try:
        before = load_yaml(file)
        if not isinstance(before, list):
            raise TypeError("it is no list of options")
        file = stored.with_name("hydra.yaml")
        of_hydra = load_yaml(file)["hydra"]
        return [*_own_configs(of_hydra), *map(str, before)]
    except (YAMLError, ValueError, OSError, LookupError, TypeError, AttributeError) as error:
        words = _words_in_checkpoint(verb, folder)
        if words is not None:
            say(f"{file} cannot be read: the command of the run is taken from its last checkpoint")
            return words
        if not stored.exists():
            from l2lgd.runs.sweeps import SWEEP

            missing = f"there is no run in that folder (no {stored})"
            if (folder / SWEEP).exists():
                missing = (
                    f"that is a sweep; to go on with it: l2lgd {verb} {typed('rerun', folder)}"
                )
            raise ConfigError(f"resume={folder}: {missing}") from error
        raise ConfigError(
            f"{file} cannot be read ({one_line(error)}), and there is no checkpoint to "
            "go on from; begin a new run"
        ) from error


def _words_in_checkpoint(verb: str, folder: Path) -> list[str] | None:
    """Those of the command that a run's last checkpoint tells, if any does."""
    from l2lgd.runs.folder import told_by_checkpoint

    with signals.held():  # as PyTorch is imported
        words, typed_in = told_by_checkpoint(folder) or ([], folder)
    try:
        own = ordered(verb, words[words.index(verb) + 1 :])
    except (ConfigError, ValueError):
        return None
    return [with_whole_paths(word, typed_in) for word in own]


def _from_here(word: str) -> str:
    """``data_dir=`` of a resumed run, whose other relative paths are of where it was begun."""
    folder = path_option([word], "data_dir")
    return word if folder is None else f"data_dir={quoted(folder.absolute())}"


def _own_configs(of_hydra: dict[str, Any]) -> list[str]:
    """The words by which an earlier run was told where the user's own configs are."""
    sources, cwd = of_hydra["runtime"]["config_sources"], Path(of_hydra["runtime"]["cwd"])
    folders = [s["path"] for s in sources if s["provider"] == "command-line"]
    search = [o for o in of_hydra["overrides"]["hydra"] if o.startswith("hydra.searchpath=")]
    return [
        *(f"--config-dir={folder}" for folder in folders),
        *(with_whole_paths(word, cwd) for word in search),
    ]


def _of_this_process(verb: str, overrides: list[str]) -> list[str]:
    """Under torchrun: all processes but the first keep off the run folder and the terminal."""
    launch.check()
    if launch.size() == 1:
        return overrides
    if verb != "meta-train" or asks_for_sweep(overrides):
        raise ConfigError("torchrun shares one meta-train between processes, and nothing else")
    if launch.rank() == 0:
        return overrides
    where = []
    if path_option(overrides, "resume") is None:
        scratch = tempfile.mkdtemp(prefix="l2lgd-")
        atexit.register(shutil.rmtree, scratch, ignore_errors=True)
        where = [f"hydra.run.dir={scratch}"]
    return [*overrides, *where, "hydra.output_subdir=null", "hydra/job_logging=disabled"]


def path_option(overrides: list[str], option: str) -> Path | None:
    given = [o for o in overrides if o.lstrip("+").startswith(f"{option}=")]
    if not given or given[-1].partition("=")[2] in ("", "null"):
        return None
    return Path(value_of(given[-1])).expanduser()


def _hold(folder: Path | None) -> None:
    """Before Hydra writes into a folder that is there already; new ones are held by the run."""
    from l2lgd.storage import locks

    if folder is not None and folder.is_dir() and launch.rank() == 0:
        locks.hold(folder)
