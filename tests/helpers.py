"""What several test modules need: the config folder, small optimizees, runs of the command."""

import atexit
import contextlib
import copy
import functools
import importlib
import inspect
import json
import os
import pickle
import pty
import signal
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor

from l2lgd.config import defaults
from l2lgd.config.building import build
from l2lgd.data.images import Images
from l2lgd.meta.elsewhere import Elsewhere
from l2lgd.optimizers.base import LearnedRule, Optimizer, given
from l2lgd.optimizers.observation import Observation
from l2lgd.seeding import generator
from l2lgd.tasks.base import Optimizee
from l2lgd.tasks.classification import Perceptron
from l2lgd.tasks.images import Classifiers
from l2lgd.tasks.minibatches import Minibatches
from l2lgd.tasks.quadratic import QuadraticTask

SLOW = {"WANDB__SERVICE_WAIT": "300", "WANDB_INIT_TIMEOUT": "300"}  # W&B's own patience
PATIENCE = 600.0  # seconds: what takes one on idle cores takes many on busy ones
SCRIPTS = Path(__file__).parents[1] / "scripts"
CONF = Path(str(files("l2lgd.conf")))
SINGLE_TASKS = sorted(  # a mixture has no functions of its own
    file.stem
    for file in (CONF / "task").glob("*.yaml")
    if "MixtureTask" not in file.read_text(encoding="utf-8")
)
# Those whose YAML names a class; the others set options of one of these.
CLASSES_OF_TASKS = [
    name
    for name in SINGLE_TASKS
    if "\n_target_:" in (CONF / "task" / f"{name}.yaml").read_text(encoding="utf-8")
]
VERBS = ("meta_train", "evaluate", "tune", "stylize", "check", "benchmark", "figures")
PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
# A proxy that refuses connections: no download, and no waiting for one.
NO_NETWORK = dict.fromkeys(PROXIES, "http://127.0.0.1:9") | {"no_proxy": "", "NO_PROXY": ""}

# Variables that Python or a library reads when it starts or is imported.
READ_AT_START = {"OMP_NUM_THREADS", "TRITON_INTERPRET", "HOME"}


def thinned(everything: Sequence[Any], few: Sequence[Any]) -> Sequence[Any]:
    """Cases of a test: a few that have each part in them once, or, for make test-all, all."""
    assert len(few) < len(everything)
    return everything if os.environ.get("TEST_ALL") else few


def choices(group: str) -> list[str]:
    """The YAML files of a config group."""
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


@functools.cache
def composed(verb: str, *overrides: str) -> Any:
    """A verb's config as the command line composes it."""
    return defaults.composed(verb, overrides)


@functools.cache
def _resolved(verb: str, *overrides: str) -> dict[str, Any]:
    found: Any = OmegaConf.to_container(composed(verb, *overrides), resolve=True)
    return dict(found)


def node(verb: str, group: str, *overrides: str) -> dict[str, Any]:
    """One group of a composed config, interpolations resolved; the caller's to change."""
    found: dict[str, Any] = copy.deepcopy(_resolved(verb, *overrides)[group])
    return found


def optimizer_node(name: str) -> dict[str, Any]:
    """The config of ``opt=name`` on quadratics; a learning rate to be tuned is set to 0.01.

    Of several groups, the first has the first layer of :func:`classifiers`.
    """
    found = node("evaluate", "opt", "task=quadratic", f"opt={name}")
    if "learning_rate" in found and found["learning_rate"] is None:
        found["learning_rate"] = 0.01
    if "groups" in found:
        found["groups"][0]["match"] = "layer0.*"
    return found


def optimizer(name: str, dtype: torch.dtype = torch.float64) -> Any:
    """The optimizer of ``opt=name``."""
    built: Optimizer = build(optimizer_node(name), "opt")
    return built.to(dtype) if isinstance(built, LearnedRule) else built


def _is_learned(name: str) -> bool:
    module, _, kind = optimizer_node(name)["_target_"].rpartition(".")
    return issubclass(getattr(importlib.import_module(module), kind), LearnedRule)


OPTIMIZERS = choices("opt")
LEARNED = [name for name in OPTIMIZERS if _is_learned(name)]
HAND_DESIGNED = [n for n in OPTIMIZERS if optimizer_node(n)["_target_"].endswith(".HandDesigned")]
LIBRARY = [n for n in OPTIMIZERS if optimizer_node(n)["_target_"].endswith(".LibraryOptimizer")]


def quadratics(num_functions: int = 3, n: int = 10, dtype: torch.dtype = torch.float64) -> Any:
    """Stacked quadratics, always the same ones."""
    task = QuadraticTask(dimension=n)
    task.setup("", torch.device("cpu"), dtype)
    return task.sample("train", num_functions, generator(0, "quadratics"))


def classifiers(num_functions: int = 3, dtype: torch.dtype = torch.float64) -> Classifiers:
    """Stacked MLPs 9-4-3 on random images; initial weights large enough for real gradients."""
    draw = generator(0, "classifiers")
    pixels = torch.randint(0, 256, (40, 3, 3), generator=draw, dtype=torch.uint8)
    labels = torch.randint(0, 3, (40,), generator=draw)
    initial = 0.5 * torch.randn(num_functions, 9 * 4 + 4 + 4 * 3 + 3, generator=draw)
    return Classifiers(
        Images(pixels, labels, 3),
        Perceptron([9, 4, 3], torch.sigmoid),
        Minibatches(40, 5, seed=1, stacked=num_functions),
        initial.to(dtype),
    )


OPTIMIZEES = {"quadratics": quadratics, "classifiers": classifiers}


def run_steps(chosen: Any, optimizee: Optimizee, num_steps: int) -> Tensor:
    """θ_0 … θ_T (T + 1, B, n) by the plain loop: no blocks, no unrolls."""
    parameters, chosen = optimizee.initial_parameters, chosen.named(optimizee.shapes)
    state = chosen.initial_state(parameters)
    visited, elsewhere = [parameters], Elsewhere(optimizee)
    with torch.no_grad():
        for step in range(num_steps):
            loss, gradient = optimizee.loss_and_gradient(parameters, step)
            seen = None
            if chosen.observes:
                evaluate = elsewhere.at(step) if "evaluate" in chosen.observes else None
                seen = Observation(parameters, loss, step, num_steps, evaluate)
            update, state = chosen.step(gradient, state, **given(seen))
            parameters = parameters + update
            visited.append(parameters)
    return torch.stack(visited)


def updates(chosen: Any, gradients: Tensor) -> Tensor:
    """What an optimizer proposes on a stream of gradients (U, B, n), were all of θ at 0.5."""
    parameters, loss = torch.full_like(gradients[0], 0.5), gradients.new_ones(gradients.shape[1])
    state, horizon = chosen.initial_state(parameters), len(gradients)
    proposed = []
    with torch.no_grad():
        for step, gradient in enumerate(gradients):
            seen = None
            if chosen.observes:
                seen = Observation(parameters, loss, step, horizon)
            if "evaluate" in chosen.observes:
                seen = seen._replace(evaluate=functools.partial(_bowls, gradient))
            update, state = chosen.step(gradient, state, **given(seen))
            proposed.append(update)
    return torch.stack(proposed)


def _bowls(gradient: Tensor, parameters: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    """Losses and gradients of quadratics with these gradients at θ = 0.5."""
    away = parameters - 0.5
    loss = 1 + ((gradient[rows] + away / 2) * away).sum(1)
    return loss, gradient[rows] + away


def tensors_of(state: Any) -> list[Tensor]:
    """Every tensor in a state, however it is nested."""
    if isinstance(state, Tensor):
        return [state]
    if isinstance(state, dict):
        return [tensor for part in state.values() for tensor in tensors_of(part)]
    if isinstance(state, list | tuple):
        return [tensor for part in state for tensor in tensors_of(part)]
    return []


def environment(**changes: str) -> dict[str, str]:
    """Of a run: one thread, nothing of W&B or Hydra inherited."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("WANDB_", "HYDRA_", "COMP_"))
    }
    return {**kept, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", **SLOW, **changes}


def l2lgd(*arguments: str, cwd: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command as a user does."""
    return served("-m", "l2lgd", *arguments, cwd=cwd, **changes)


def served(*arguments: str, cwd: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """As :func:`python`, without seconds of imports where that makes no difference.

    Arguments begin with ``-m``, ``-c`` or a script.
    """
    if sys.platform == "linux" and not changes.keys() & READ_AT_START:
        return _server().run(arguments, cwd, environment(**changes))
    return python(*arguments, cwd=cwd, **changes)


def begun(*arguments: str, cwd: Path, **changes: str) -> "subprocess.Popen[bytes] | BegunRun":
    """As :func:`served`, but it goes on by itself, to be met by signals; nobody sees its output."""
    variables = environment(**changes)
    if sys.platform == "linux" and not changes.keys() & READ_AT_START:
        return _server().begin(arguments, cwd, variables)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, *arguments], cwd=cwd, env=variables, **quiet)


RANK = """
import pickle, sys
from {module} import {name}
{name}(int(sys.argv[1]), *pickle.loads(bytes.fromhex(sys.argv[2])))
"""


def spawn(
    function: Callable[..., None], arguments: tuple[Any, ...], nprocs: int, cwd: Path
) -> None:
    """As PyTorch's, without seconds of imports; ``cwd`` is where the processes run."""
    file = Path(inspect.getfile(function))
    code = RANK.format(module=file.stem, name=function.__name__)
    paths = os.pathsep.join(map(str, (file.parent, Path(__file__).parent)))
    given = pickle.dumps(arguments).hex()
    runs = [
        begun("-c", code, str(rank), given, cwd=cwd, PYTHONPATH=paths) for rank in range(nprocs)
    ]
    assert [run.wait() for run in runs] == [0] * nprocs


def on_terminal(
    *arguments: str, cwd: Path, columns: int, rows: int = 100, **changes: str
) -> tuple[int, bytes]:
    """As :func:`served`, on a terminal of that size; exit status, and all that was written."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (rows, columns))
    written = bytearray()

    def read() -> None:
        with contextlib.suppress(OSError):  # nobody has the terminal open any more
            while found := os.read(master, 65536):
                written.extend(found)

    reader = threading.Thread(target=read)
    reader.start()
    variables = environment(TERM="xterm-256color", **changes)
    for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        variables.pop(name, None)
    try:
        ran = _server().run(arguments, cwd, variables, Path(os.ttyname(slave)))
    finally:
        os.close(slave)
        reader.join()
        os.close(master)
    return ran.returncode, bytes(written)


def screen(written: bytes, columns: int, rows: int = 100) -> list[str]:
    """What is on a terminal in the end, without blank rows."""
    import pyte  # not needed by tests of a machine with a GPU, which may lack it

    terminal = pyte.Screen(columns, rows)
    pyte.ByteStream(terminal).feed(written)
    return [row.rstrip() for row in terminal.display if row.strip()]


class Server:
    """The process of ``served.py``."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("served.py"))],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._folder = tempfile.TemporaryDirectory()
        atexit.register(self._end)

    def run(
        self,
        arguments: Sequence[str],
        cwd: Path,
        variables: Mapping[str, str],
        terminal: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """As ``python ARGUMENTS``; on a terminal, which then has what is written."""
        streams = {name: Path(self._folder.name) / name for name in ("stdout", "stderr")}
        for path in streams.values():
            path.write_bytes(b"")
        shown = streams if terminal is None else dict.fromkeys(streams, terminal)
        request = {"arguments": arguments, "cwd": str(cwd.resolve()), "environment": variables}
        request |= {name: str(path) for name, path in shown.items()}
        status = self._answer(request)
        out, err = (path.read_text("utf-8", errors="replace") for path in streams.values())
        assert status, f"no exit status of {arguments}: {err}"
        return subprocess.CompletedProcess(arguments, int(status), out, err)

    def begin(
        self, arguments: Sequence[str], cwd: Path, variables: Mapping[str, str]
    ) -> "BegunRun":
        """As ``python ARGUMENTS``, which goes on by itself; nobody sees what it writes."""
        request = {"arguments": arguments, "cwd": str(cwd.resolve()), "environment": variables}
        request |= {"stdout": os.devnull, "stderr": os.devnull, "background": True}
        return BegunRun(self, int(self._answer(request)))

    def status(self, pid: int) -> int | None:
        """The exit status of a run that was begun; None before its end."""
        found: int | None = json.loads(self._answer({"process": pid}))
        return found

    def _answer(self, request: Mapping[str, Any]) -> str:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    def _end(self) -> None:
        self._process.communicate()
        self._folder.cleanup()


class BegunRun:
    """A run of the server in the background, with what tests need of a ``Popen``."""

    def __init__(self, server: Server, pid: int) -> None:
        self._server, self.pid = server, pid
        self.returncode: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.kill()
        self.wait()

    def poll(self) -> int | None:
        """The exit status; None before its end."""
        if self.returncode is None:
            self.returncode = self._server.status(self.pid)
        return self.returncode

    def wait(self) -> int:
        """The exit status, when it has ended."""
        wait_until(lambda: self.poll() is not None, "end")
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, way: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, way)

    def kill(self) -> None:
        """Send it SIGKILL, unless it has ended."""
        self.send_signal(signal.SIGKILL)


@functools.cache
def _server() -> Server:
    return Server()


def art_options(gallery: dict[str, str]) -> list[str]:
    """Overrides that have neural art paint the small pictures of the fixture ``gallery``."""
    return [
        f"task.content={gallery['content']}",
        f"task.style={gallery['style']}",
        f"task.vgg.weights={gallery['vgg']}",
        "task.size=16",
    ]


def python(
    *arguments: str, cwd: Path | None = None, **changes: str
) -> subprocess.CompletedProcess[str]:
    """Run this Python in a process of its own, with changes to :func:`environment`."""
    return _completed([sys.executable, *arguments], cwd, **changes)


def prepared(preparation: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """As :func:`python`, once its process has executed the preparation."""
    return _completed(after(preparation, *arguments), cwd)


def _completed(
    command: Sequence[str], cwd: Path | None, **changes: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def after(preparation: str, *arguments: str) -> list[str]:
    """A command that is ``python ARGUMENTS`` once its process has executed the preparation.

    A ``preexec_fn`` would fork this process, which has threads; newer versions of Python warn.
    """
    become = "import os, sys; os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    return [sys.executable, "-c", f"{preparation}\n{become}", *arguments]


def wait_until(
    holds: Callable[[], bool], what: str, process: "subprocess.Popen[Any] | BegunRun | None" = None
) -> None:
    """Wait for a state, however slow the machine is.

    Args:
        what: that is waited for, for the message of a test that fails.
        process: which is to bring it about, and has failed where it ends before.
    """
    end = time.monotonic() + PATIENCE
    while not holds():
        ended = process is not None and process.poll() is not None
        if ended and holds():  # just before it ended
            return
        assert not ended, f"the process ended before there was {what}"
        assert time.monotonic() < end, f"no {what} within {PATIENCE} s"
        time.sleep(0.005)


@contextlib.contextmanager
def begun_sweep(*words: str, cwd: Path) -> "Iterator[subprocess.Popen[bytes] | BegunRun]":
    """The process of ``l2lgd meta-train --multirun``, when its first job has a checkpoint.

    Args:
        cwd: where the folder ``sweep`` will be.
    """
    command = ("-m", "l2lgd", "meta-train", "--multirun", *words, "hydra.sweep.dir=sweep")
    last = cwd / "sweep" / "0" / "checkpoints" / "last.safetensors"
    with begun(*command, cwd=cwd) as process:
        wait_until(last.is_file, "checkpoint", process)
        yield process


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a metrics.jsonl."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def assert_same_picture(one: Path, other: Path) -> None:
    """Not to the byte: fonts are drawn a little differently by other versions of FreeType."""
    pictures = []
    for path in (one, other):
        with Image.open(path) as picture:
            pictures.append(np.asarray(picture.convert("L"), dtype=float))
    assert pictures[0].shape == pictures[1].shape
    assert np.abs(pictures[0] - pictures[1]).mean() < 1.0


def unavailable(reason: str) -> None:
    """Skip what needs data that is not here; where CI promises the data, that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(f"CI is set, so this must run: {reason}")
    pytest.skip(reason)
