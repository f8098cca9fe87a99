"""The command line: ``l2lgd VERB [Hydra overrides]``.

Hydra has no subcommands, so the verb is taken off here and chooses the primary config. Errors a
user can put right end in one line and exit status 2.
"""

import contextlib
import importlib
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from l2lgd.cli.answers import fail
from l2lgd.cli.before_hydra import words_of
from l2lgd.cli.completion import complete
from l2lgd.cli.mistakes import refuse, unknown_verb
from l2lgd.cli.sweep_report import after_sweep, forget_sweeps
from l2lgd.cli.verbs import MODULES, PLAIN, VERBS
from l2lgd.config.allowed import allow_packages_of
from l2lgd.config.overrides import asks_for_sweep, ordered
from l2lgd.errors import Leave, ProcessLost
from l2lgd.storage import locks
from l2lgd.system import launch, signals
from l2lgd.system.environment import variable
from l2lgd.system.terminal import printable

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit status."""
    arguments = list(arguments)
    if arguments[:1] == ["help"]:  # help VERB is VERB --help
        arguments = [*arguments[1:2], "--help"]
    first = arguments[0] if arguments else "--help"
    if first in ("-h", "--help"):
        from l2lgd.cli.help import overview

        return _show(overview(VERBS | PLAIN))
    if first in ("--version", "-V", "version"):
        return _show(f"l2lgd {version('l2lgd')}")
    if first in ("-sc", "--shell-completion", "--shell_completion"):
        return complete(arguments)
    if first not in VERBS | PLAIN:
        return fail(_unknown_verb(first, arguments))
    try:
        Path.cwd()
    except OSError as error:  # much of what is imported later would end in its own way
        return fail(f"the working directory is not there any more ({error.strerror}): cd to one")
    rest = arguments[1:]
    if rest == ["help"]:
        rest = ["--help"]
    if first in PLAIN:
        return _plain(first, rest)
    if {"-h", "--help"} & set(rest):
        from l2lgd.cli.help import verb_help

        return _show(verb_help(first, VERBS[first], rest))
    return _run(first, rest)


def _plain(verb: str, words: list[str]) -> int:
    """A verb that Hydra has no part in."""
    module = importlib.import_module(f"l2lgd.cli.{MODULES[verb]}")
    run, usage = getattr(module, verb), module.USAGE
    if {"-h", "--help"} & set(words):
        return _show(f"l2lgd {verb}: {PLAIN[verb]}\n\n{usage}")
    try:
        said = run(words)
    except Exception as error:
        from l2lgd.config.messages import explanation

        message = explanation(error)
        if message is None:
            raise
        return fail(message)
    return _show(said) if said else 0


def _show(text: str) -> int:
    """Print what may be piped to a program that ends before it has read all of it."""
    try:
        print(printable(text, kept="\n"), flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's own flush
        if not isinstance(error, BrokenPipeError):
            return fail(f"could not write to standard output: {error.strerror}")
    return 0


def _run(verb: str, overrides: list[str]) -> int:
    """Hand a verb to Hydra, and put what goes wrong into one line."""
    traceback_wanted = variable("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # has Hydra raise its errors instead of printing them
    forget_sweeps()
    try:
        refuse(verb, overrides)
        overrides = ordered(verb, overrides)
        words = words_of(verb, overrides)
        if words is not None:
            _hydra_main(verb, words)
    except (Leave, Exception) as caught:
        signals.check()  # what an interruption has led to
        error = caught.error if isinstance(caught, Leave) else caught
        from l2lgd.config.messages import explanation, one_line

        failed = after_sweep(error)
        if failed and not traceback_wanted:
            return fail(failed)
        message = explanation(error)
        if message is None and asks_for_sweep(overrides):
            message = f"the sweep could not be run: {one_line(error)}"
        if message is None or traceback_wanted:
            raise error from None
        return fail(message, not isinstance(error, ProcessLost))
    failed = after_sweep()
    return fail(failed) if failed else 0


def _hydra_main(verb: str, overrides: list[str]) -> None:
    import hydra

    from l2lgd.config import defaults

    name = verb.replace("-", "_")
    defaults.install()

    def job(config: "DictConfig") -> float:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        from l2lgd.config.messages import explanation
        from l2lgd.runs.folder import whence
        from l2lgd.storage.paths import typed_in

        ours = HydraConfig.get()
        try:
            with signals.held():  # an interruption of PyTorch's import can end in an abort of C++
                from l2lgd.system import runtime

                verb_module = importlib.import_module(f"l2lgd.verbs.{name}")
            with typed_in(*whence(ours)), runtime.left_as_found(), locks.let_go():
                value: float = getattr(verb_module, name)(config)
            return value
        except Exception as error:
            signals.check()  # of a sweep, no further job is begun
            if ours.mode == RunMode.MULTIRUN or explanation(error) is None:
                raise
            raise Leave(error) from error

    allow_packages_of(overrides, Path.cwd())
    launch.end_with_parent()
    sys.argv = ["l2lgd", *overrides]
    with _own_logging(), _own_hydra():
        hydra.main(version_base="1.3", config_path="pkg://l2lgd.conf", config_name=name)(job)()


@contextlib.contextmanager
def _own_logging() -> Iterator[None]:
    """Hydra sets up logging for the run; who called this one from Python has their own."""
    import logging

    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        for handler in root.handlers[:]:
            if handler not in handlers:
                root.removeHandler(handler)
                handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)


@contextlib.contextmanager
def _own_hydra() -> Iterator[None]:
    """Who called this one from Python may be within a Hydra program of their own."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.singleton import Singleton
    from hydra.version import VersionBase

    kinds: list[Any] = [GlobalHydra, HydraConfig, VersionBase]
    before = {kind: Singleton._instances.pop(kind, None) for kind in kinds}
    try:
        yield
    finally:
        for kind, instance in before.items():
            Singleton._instances.pop(kind, None)
            if instance is not None:
                Singleton._instances[kind] = instance


def _unknown_verb(word: str, arguments: Sequence[str]) -> str:
    verbs = [argument for argument in arguments if argument in VERBS]
    if word.startswith("-") and verbs:
        others = [argument for argument in arguments if argument != verbs[0]]
        return f"the verb comes first: l2lgd {shlex.join([verbs[0], *others])}"
    return unknown_verb(word, [*VERBS, *PLAIN])
