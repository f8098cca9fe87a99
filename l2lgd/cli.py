"""The command line: ``l2lgd VERB [Hydra overrides]``.

Hydra has no subcommands, so the verb is taken off here and chooses the primary config. Errors a
user can put right end in one line and exit status 2.
"""

import atexit
import importlib
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from l2lgd import launch
from l2lgd.arguments import ordered, quoted
from l2lgd.errors import ConfigError, Leave, ProcessLost
from l2lgd.terminal import say

if TYPE_CHECKING:
    from omegaconf import DictConfig

VERBS = {
    "meta-train": "meta-train a learned optimizer on a task",
    "evaluate": "compare a trained optimizer with tuned hand-designed ones",
    "tune": "search learning rates, or what else search= names",
    "figures": "draw the figures of the paper, evaluating what is missing",
    "stylize": "paint a photograph in the style of another picture",
}
PLAIN = {  # verbs without a config
    "optimizers": "list the trained optimizers that ship, or tell all about one",
    "new": "write the two files of a task or an optimizer of your own",
}
MODULES = {"optimizers": "listing", "new": "scaffold"}  # where those are, as functions
USAGE_ERROR, INTERRUPTED = 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    first = arguments[0] if arguments else "--help"
    if first in ("-h", "--help"):
        from l2lgd.help import overview

        return _show(overview(VERBS | PLAIN))
    if first == "--version":
        print(f"l2lgd {version('l2lgd')}")
        return 0
    if first in ("-sc", "--shell-completion", "--shell_completion"):
        return _complete(arguments)
    if first not in VERBS | PLAIN:
        return _fail(_unknown_verb(first, arguments))
    rest = arguments[1:]
    if first in PLAIN:
        return _plain(first, rest)
    if {"-h", "--help"} & set(rest):
        from l2lgd.help import verb_help

        return _show(verb_help(first, VERBS[first]))
    return _run(first, rest)


def _plain(verb: str, words: list[str]) -> int:
    """A verb that Hydra has no part in."""
    module = importlib.import_module(f"l2lgd.{MODULES[verb]}")
    run, usage = getattr(module, verb), module.USAGE
    if {"-h", "--help"} & set(words):
        return _show(f"l2lgd {verb}: {PLAIN[verb]}\n\n{usage}")
    try:
        said = run(words)
    except Exception as error:
        from l2lgd.explanations import explanation

        message = explanation(error)
        if message is None:
            raise
        return _fail(message)
    return _show(said) if said else 0


def _show(text: str) -> int:
    """Print what may be piped to a program that ends before it has read all of it."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's own flush
    return 0


def _run(verb: str, overrides: list[str]) -> int:
    """Hand a verb to Hydra, and put what goes wrong into one line."""
    traceback_wanted = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # has Hydra raise its errors instead of printing them
    try:
        overrides = ordered(verb, overrides)
        if _path_override(overrides, "rerun") is not None:
            _run_again(verb, overrides)
        else:
            _hydra_main(verb, _of_this_process(verb, _with_folder(verb, overrides)))
    except KeyboardInterrupt as interrupt:
        return _interrupted(interrupt)
    except (Leave, Exception) as caught:
        error = caught.error if isinstance(caught, Leave) else caught
        from l2lgd.explanations import explanation, one_line

        failed = _after_sweep(error)
        if failed and not traceback_wanted:
            return _fail(failed)
        message = explanation(error)
        if message is None and {"-m", "--multirun"} & set(overrides):
            message = f"the sweep could not be run: {one_line(error)}"
        if message is None or traceback_wanted:
            raise error from None
        return _fail(message, not isinstance(error, ProcessLost))
    failed = _after_sweep()
    return _fail(failed) if failed else 0


def _run_again(verb: str, overrides: list[str]) -> None:
    """For ``rerun=FOLDER``: what a sweep has left undone, by the launcher that it had."""
    from l2lgd import sweeps

    folder = _path_override(overrides, "rerun")
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
    if jobs:
        _allow_packages_here([*allowed, *changes])
        sweeps.run_only(jobs)
        where = f"hydra.sweep.dir={quoted(folder)}"
        _hydra_main(verb, ["--multirun", *flags, *sweep.overrides, *of_hydra, where])


def _allow_packages_here(overrides: list[str]) -> None:
    """Let packages that are allowed be found in the working directory, too."""
    allowed = any(o.lstrip("+").startswith("allow_targets=") for o in overrides)
    if allowed and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def _after_sweep(gave_up: Exception | None = None) -> str:
    """Show the ranking of a sweep that this process has run; what to say of jobs that are left.

    Args:
        gave_up: what ended the sweep before its jobs did.
    """
    sweeps = sys.modules.get("l2lgd.sweeps")
    if sweeps is None or not sweeps.started or not (sweeps.started[-1] / sweeps.SWEEP).is_file():
        return ""
    sweep = sweeps.Sweep.read(sweeps.started[-1])
    if gave_up is not None and not any(job.begun for job in sweep.jobs):
        return ""  # nothing was run: what went wrong says so itself
    from l2lgd import ranking
    from l2lgd.explanations import one_line

    ranking.show(sweep)
    left = sweep.left()
    if not left:
        return ""
    for job in left:
        said = job.error or "did not end"
        say(f"job {job.number} ({shlex.join(job.overrides)}): {said}")
    if gave_up is not None and not any(job.error for job in left):
        say(f"the launcher gave up: {one_line(gave_up)}")
    command = shlex.join(["l2lgd", sweep.verb, f"rerun={sweep.folder}"])
    return f"{len(left)} of {len(sweep.jobs)} jobs did not succeed; to run them again: {command}"


def _hydra_main(verb: str, overrides: list[str]) -> None:
    import hydra

    name = verb.replace("-", "_")

    def job(config: "DictConfig") -> float:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        from l2lgd.explanations import explanation
        from l2lgd.verbs import VERBS as functions

        try:
            return functions[name](config)
        except Exception as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN or explanation(error) is None:
                raise
            raise Leave(error) from error

    _allow_packages_here(overrides)
    _stop_as_ctrl_c_does()
    launch.end_with_parent()
    sys.argv = ["l2lgd", *overrides]
    hydra.main(version_base="1.3", config_path="pkg://l2lgd.conf", config_name=name)(job)()


def _stop_as_ctrl_c_does() -> None:
    """When the system ends the process, or the terminal closes (unless nohup says otherwise)."""
    for way in _ways_to_end():
        if way == signal.SIGTERM or signal.getsignal(way) != signal.SIG_IGN:
            signal.signal(way, _ended)


def _ways_to_end() -> list[signal.Signals]:
    names = ("SIGINT", "SIGTERM", "SIGHUP")  # the last one not on Windows
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


_ended_by_system = False  # rather than by Ctrl-C


def _ended(number: int, frame: FrameType | None) -> None:
    global _ended_by_system
    _ended_by_system = number != signal.SIGINT
    for way in _ways_to_end():  # one is enough: what is under way is to end in good order
        signal.signal(way, signal.SIG_IGN)
    signal.default_int_handler(number, frame)


def _with_folder(verb: str, overrides: list[str]) -> list[str]:
    """For ``resume=FOLDER``: that run's own overrides first, and its folder as the run folder."""
    folder = _path_override(overrides, "resume") if verb == "meta-train" else None
    _hold(folder)
    if folder is None:
        _refuse_to_sweep_over(_path_override(overrides, "hydra.sweep.dir"))
        return overrides
    stored = folder / ".hydra" / "overrides.yaml"
    if not stored.is_file():
        raise ConfigError(f"resume={folder}: there is no run in that folder (no {stored})")
    if {"-m", "--multirun"} & set(overrides):
        raise ConfigError("resume= goes on with one run; leave --multirun out")
    import yaml

    from l2lgd.explanations import one_line

    own = [o for o in overrides if not o.lstrip("+").startswith("resume=")]
    file = stored
    try:
        before = yaml.safe_load(file.read_text("utf-8"))
        if not isinstance(before, list):
            raise TypeError("it is no list of options")
        file = stored.with_name("hydra.yaml")
        of_hydra = yaml.safe_load(file.read_text("utf-8"))["hydra"]
        before = [*_own_configs(of_hydra), *(str(override) for override in before)]
    except (yaml.YAMLError, ValueError, OSError, LookupError, TypeError) as error:
        raise ConfigError(
            f"{file} cannot be read ({one_line(error)}); begin a new run, initial_weights= takes "
            "the best weights of this one"
        ) from error
    where = [f"resume={quoted(folder)}", f"hydra.run.dir={quoted(folder)}"]
    where.append("hydra.output_subdir=null")
    return [*before, *own, *where]


def _own_configs(of_hydra: dict[str, Any]) -> list[str]:
    """The words by which an earlier run was told where the user's own configs are."""
    sources = of_hydra["runtime"]["config_sources"]
    folders = [s["path"] for s in sources if s["provider"] == "command-line"]
    search = [o for o in of_hydra["overrides"]["hydra"] if o.startswith("hydra.searchpath=")]
    return [*(f"--config-dir={folder}" for folder in folders), *search]


def _of_this_process(verb: str, overrides: list[str]) -> list[str]:
    """Under torchrun: all processes but the first keep off the run folder and the terminal."""
    if launch.size() == 1:
        return overrides
    if verb != "meta-train" or {"-m", "--multirun"} & set(overrides):
        raise ConfigError("torchrun shares one meta-train between processes, and nothing else")
    if launch.rank() == 0:
        return overrides
    where = []
    if _path_override(overrides, "resume") is None:
        scratch = tempfile.mkdtemp(prefix="l2lgd-")
        atexit.register(shutil.rmtree, scratch, ignore_errors=True)
        where = [f"hydra.run.dir={scratch}"]
    return [*overrides, *where, "hydra.output_subdir=null", "hydra/job_logging=disabled"]


def _path_override(overrides: list[str], option: str) -> Path | None:
    values = [o.partition("=")[2] for o in overrides if o.lstrip("+").startswith(f"{option}=")]
    if not values or values[-1] in ("", "null"):
        return None
    return Path(values[-1].strip("'\"")).expanduser()


def _hold(folder: Path | None) -> None:
    """Before Hydra writes into a folder that is there already; new ones are held by the run."""
    from l2lgd import locks

    if folder is not None and folder.is_dir() and launch.rank() == 0:
        locks.hold(folder)


def _refuse_to_sweep_over(folder: Path | None) -> None:
    if folder is None:
        return
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"hydra.sweep.dir={folder} is a file; choose another folder")
    if any(folder.glob("*/.hydra")):
        raise ConfigError(
            f"{folder} already holds a sweep; run what it has left undone with rerun={folder}, or "
            "choose another hydra.sweep.dir"
        )
    if "${" not in str(folder):
        from l2lgd.checkpoint import check_writable

        check_writable(folder / "sweep.json")


def _unknown_verb(word: str, arguments: Sequence[str]) -> str:
    from l2lgd.config import nearest

    verbs = [argument for argument in arguments if argument in VERBS]
    if word.startswith("-") and verbs:
        others = [argument for argument in arguments if argument != verbs[0]]
        return f"the verb comes first: l2lgd {shlex.join([verbs[0], *others])}"
    return f"there is no verb {word}{nearest(word, VERBS | PLAIN)}"


def _interrupted(interrupt: KeyboardInterrupt) -> int:
    """Say so, and with what command to go on."""
    before = interrupt.__context__
    if isinstance(before, ProcessLost):  # torchrun ends all processes as soon as one has ended
        return _fail(str(before), everybodys=False)
    rank, left = launch.rank(), _after_sweep()
    way_on = left or (f"to go on: {interrupt}" if str(interrupt) else "")
    if rank == 0 or _ended_by_system:  # Ctrl-C reaches all processes, and one word is enough
        whose = f" (process {rank})" if rank else ""
        say(f"l2lgd{whose}: interrupted{way_on and '; '}{way_on}")
    return INTERRUPTED


def _fail(message: str, everybodys: bool = True) -> int:
    """Say what went wrong.

    Args:
        everybodys: other processes of this run are likely to say the same.
    """
    rank = launch.rank()
    if rank and everybodys:
        # Most mistakes are everybody's: then rank 0 says so, and torchrun stops the others.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(USAGE_ERROR))
        time.sleep(5)
    say(f"l2lgd{f' (process {rank})' if rank else ''}: {message}")
    return USAGE_ERROR


def _complete(arguments: list[str]) -> int:
    """Shell completion; Hydra knows nothing of verbs, so they are answered here."""
    line = os.environ.get("COMP_LINE")
    query = len(arguments) > 1 and arguments[1].startswith("query=")
    if query and line is not None:
        words = line.split()
        finished = words[1:] if line.endswith(" ") else words[1:-1]
        if not finished:
            start = "" if line.endswith(" ") else words[-1]
            verbs = VERBS | PLAIN
            print(" ".join(verb for verb in verbs if verb.startswith(start) or len(words) == 1))
            return 0
        verb = finished[0]
        if verb not in VERBS:
            return 0
        os.environ["COMP_LINE"] = line.replace(f" {verb}", "", 1)
    else:
        verb = "meta-train"
    import hydra

    def nothing(config: Any) -> None:
        pass

    sys.argv = ["l2lgd", *arguments]
    name = verb.replace("-", "_")
    hydra.main(version_base="1.3", config_path="pkg://l2lgd.conf", config_name=name)(nothing)()
    return 0
