"""The process of a command: signals wherever they arrive, use from Python, any encoding."""

import io
import json
import sys
from pathlib import Path

import pytest
from helpers import python, served

from l2lgd.cli.main import main

SMALL = ("task=quadratic", "logger=none", "num_functions=2", "num_steps=4", "threads=1")
TRAINING = ("meta-train", *SMALL, "unroll.lengths=[2]", "meta_steps=1000000", "checkpoint_every=1")
TRAINING += ("validate_every=1000000", "validation_functions=2", "hydra.run.dir=run")

# Has the process send itself a signal once, when it comes to a place, and perhaps swallow what
# that raises.
ASKED = """
import importlib.abc, signal, sys
place, swallows, *words = sys.argv[1:]

def ask():
    try:
        signal.raise_signal(signal.SIGTERM)
    except BaseException:
        if swallows == "raises":
            raise

class Importing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == place:
            sys.meta_path.remove(self)
            ask()

if ":" in place:
    module, _, path = place.partition(":")
    *parents, name = path.split(".")
    owner = importlib.import_module(module)
    for parent in parents:
        owner = getattr(owner, parent)
    whole = getattr(owner, name)

    def asking(*arguments, **options):
        setattr(owner, name, whole)
        ask()
        return whole(*arguments, **options)

    setattr(owner, name, asking)
else:
    sys.modules.pop(place, None)
    sys.meta_path.insert(0, Importing())
from l2lgd.cli.main import main
sys.exit(main(words))
"""
PLACES = (
    "l2lgd.verbs.meta_train",  # imports
    "l2lgd.config.defaults:_recommended",  # composing
    "l2lgd.kernels.build:library",  # compiling
    "l2lgd.meta.trainer:Trainer._meta_step",
    "l2lgd.meta.trainer:save_last",
)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("swallows", ["raises", "swallows"])
def test_one_signal_ends_a_run_wherever_it_arrives(
    place: str, swallows: str, tmp_path: Path
) -> None:
    ran = served("-c", ASKED, place, swallows, *TRAINING, cwd=tmp_path)
    assert ran.returncode == 130, ran.stderr
    assert "Traceback" not in ran.stderr
    last = ran.stderr.splitlines()[-1]
    assert last.startswith("l2lgd: interrupted")
    begun = place in PLACES[2:]
    assert ("to go on: l2lgd meta-train resume=" in last) == begun
    saved = (tmp_path / "run" / "checkpoints" / "last.safetensors").is_file()
    stepped = place.endswith("_meta_step") and swallows == "swallows"
    assert saved == (place.endswith("save_last") or stepped), "what was begun is written"


# As PyTorch does whose first import was cut off, it cannot be imported any more.
CUT_OFF = """
import importlib.abc, signal, sys

class Importing(importlib.abc.MetaPathFinder):
    swallows = sys.argv.pop(1) == "swallows"
    begun = False

    def find_spec(self, name, path, target=None):
        if name == "torch":
            again, self.begun = self.begun, True
            try:
                if not again:
                    signal.raise_signal(signal.SIGTERM)
            except KeyboardInterrupt:
                if not self.swallows:
                    raise
            raise RuntimeError("Only a single TORCH_LIBRARY can be used")

sys.meta_path.insert(0, Importing())
from l2lgd.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def without_hydra_s(text: str) -> list[str]:
    """The lines but those in which Hydra says which jobs it begins."""
    return [line for line in text.splitlines() if "[HYDRA]" not in line]


@pytest.mark.parametrize("swallows", ["raises", "swallows"])
def test_a_sweep_that_ends_in_its_first_import_says_how_to_go_on(
    swallows: str, tmp_path: Path
) -> None:
    words = ("meta-train", "--multirun", *SMALL, "seed=1,2", "hydra.sweep.dir=sweep")
    ran = python("-c", CUT_OFF, swallows, *words, cwd=tmp_path)
    assert ran.returncode == 130, ran.stderr
    assert without_hydra_s(ran.stderr) == [
        "l2lgd: interrupted; 2 of 2 jobs did not succeed; to run them again: "
        "l2lgd meta-train rerun=sweep"
    ]
    assert not (tmp_path / "sweep" / "1").exists(), "no further job is begun"
    # Nor can a ranking be shown of a job that has ended.
    path = tmp_path / "sweep" / "0" / "job.json"
    ended = {"job": 0, "overrides": ["seed=1"], "status": "completed", "value": 1.0, "seconds": 1}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(ended), encoding="utf-8")
    ran = python("-c", CUT_OFF, swallows, "meta-train", "rerun=sweep", cwd=tmp_path)
    assert ran.returncode == 130, ran.stderr
    assert without_hydra_s(ran.stderr) == [
        "l2lgd: interrupted; 1 of 2 jobs did not succeed; to run them again: "
        "l2lgd meta-train rerun=sweep"
    ]


FROM_PYTHON = """
import logging, os, signal, sys, threading
import torch
from l2lgd.cli.main import main

def state():
    handlers = [signal.getsignal(way) for way in (signal.SIGINT, signal.SIGTERM)]
    root = logging.getLogger()
    streams = sys.stdout.errors, sys.stderr.errors
    return (dict(os.environ), handlers, sys.argv[:], sys.path[:], os.getcwd(), root.handlers[:],
            root.level, streams, torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32)

small = sys.argv[1:]
sweep = ["evaluate", "--multirun", *small, "seed=0,1", "hydra.sweep.dir=sweep"]
torch.set_num_threads(3)
before = state()
found = [main(["evaluate", *small, "seed=x"]) for _ in range(2)]
found += [main(["evaluate", *small, "deterministic=true", "hydra.job.chdir=true"])]
found += [main(["evaluate", *small, "matmul_precision=medium"])]
found += [main(sweep), main(["evaluate", *small]), main(["--version"])]
thread = threading.Thread(target=lambda: found.append(main(["evaluate", *small])))
thread.start()
thread.join()
assert found == [2, 2, 0, 0, 0, 0, 0, 0], found
assert state() == before, (state(), before)
"""


def test_commands_run_from_python_again_and_again_and_in_a_thread(tmp_path: Path) -> None:
    words = ("-c", FROM_PYTHON, *SMALL, "baselines=[]")
    ran = served(*words, cwd=tmp_path, WANDB_MODE="", L2LGD_DATA="", MPLBACKEND="agg")
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr
    assert ran.stdout.count("2 jobs: sweep") == 1, "of the command that ran it alone"
    assert not (tmp_path / "tuned").exists()


FREE = """
import fcntl, sys
from l2lgd.cli.main import main

words = ["meta-train", *sys.argv[1:], "meta_steps=2", "validate_every=2", "validation_functions=2"]
swept = [*words, "--multirun", "seed=0,1"]
assert main([*words, "hydra.run.dir=run"]) == 0
assert main(["meta-train", "resume=run"]) == 0
assert main([*swept, "hydra.sweep.dir=here"]) == 0
assert main([*swept, "hydra.sweep.dir=cores", "hydra/launcher=cores"]) == 0
for folder in ("run", "here", "here/0", "here/1", "cores", "cores/0", "cores/1"):
    with open(f"{folder}/.lock") as file:  # another open file is as another process
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
"""


def test_folders_are_free_when_a_command_from_python_has_ended(tmp_path: Path) -> None:
    ran = served("-c", FREE, *SMALL, "unroll.lengths=[2]", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr


WITHIN = """
import os, sys
import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.version import getbase
from l2lgd.cli.main import main

words = ["evaluate", *sys.argv[1:]]
sys.argv = ["own", "hydra.run.dir=own"]

def own(config):
    before = GlobalHydra.instance().hydra, HydraConfig.get(), getbase()
    assert main(words) == main([*words, "--multirun", "seed=0,1"]) == 0
    assert (GlobalHydra.instance().hydra, HydraConfig.get(), getbase()) == before

with hydra.initialize_config_dir(os.getcwd(), version_base="1.2"):
    assert main(words) == 0
    assert hydra.compose("own") == {"x": 1}
    assert not HydraConfig.initialized()
hydra.main(config_path=os.getcwd(), config_name="own", version_base="1.2")(own)()
"""


def test_commands_run_within_programs_that_use_hydra(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("x: 1\n", encoding="utf-8")
    ran = served("-c", WITHIN, *SMALL, "baselines=[]", cwd=tmp_path, HYDRA_FULL_ERROR="1")
    assert ran.returncode == 0, ran.stderr


ENCODED = """
import io, sys
from l2lgd.cli.main import main
sys.stdout = io.TextIOWrapper(open(1, "wb", closefd=False), encoding=sys.argv[1])
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "koi8-r"])
def test_an_encoding_that_lacks_letters_costs_no_result(encoding: str, tmp_path: Path) -> None:
    words = ("evaluate", *SMALL, "baselines=[]", "num_functions=1")
    ran = served("-c", ENCODED, encoding, *words, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "lstm (learned)" in ran.stdout
    assert "Traceback" not in ran.stderr
    stream, out = io.BytesIO(), sys.stdout
    sys.stdout = text = io.TextIOWrapper(stream, encoding=encoding)
    try:
        for shown in (
            ["--help"],
            ["evaluate", "--help"],
            ["optimizers"],
            ["optimizers", "nothing"],
        ):
            assert main(shown) == (2 if "nothing" in shown else 0)
        assert sys.stdout.errors == "strict", "as it was"
    finally:
        text.flush()
        sys.stdout = out
    said = stream.getvalue().decode(encoding)
    for word in ("usage: l2lgd VERB [option=value", "everyday options:", "mnist-lstm"):
        assert word in said


DRAWING = """
import sys
from l2lgd.cli.main import main
import l2lgd.verbs.evaluate as evaluate

def draw(*_):
    raise KeyboardInterrupt

evaluate.plot_curves = draw
sys.exit(main(sys.argv[1:]))
"""


def test_the_table_and_the_summary_come_before_the_picture(tmp_path: Path) -> None:
    words = ("evaluate", *SMALL, "baselines=[]", "hydra.run.dir=run")
    ran = served("-c", DRAWING, *words, cwd=tmp_path)
    assert ran.returncode == 130, ran.stderr
    assert "lstm (learned)" in ran.stdout
    assert (tmp_path / "run" / "summary.json").is_file()
