"""Commands that are printed are pasted into a shell, whatever a folder is called."""

import re
import subprocess
from pathlib import Path

from helpers import l2lgd

from l2lgd.config.overrides import option
from l2lgd.runs.sweeps import Sweep

STRANGE = "a=b, [c] 'd' \"e\" #~ größe no\u00a0break \u202f soft\u00ad 👩\u200d🔬"
TINY = ("task=quadratic", "logger=none", "meta_steps=2", "num_functions=2", "num_steps=5")
TINY += ("unroll.lengths=[5]", "validate_every=2", "validation_functions=2", "threads=1")


def pasted(line: str, *more: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a printed command, with the words that a shell makes of it."""
    ran = subprocess.run(
        ["sh", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True, check=True
    )
    program, *words = ran.stdout.split("\0")[:-1]
    assert program == "l2lgd"
    done = l2lgd(*words, *more, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done


def between(text: str, before: str, after: str) -> str:
    found = re.search(f"{re.escape(before)}(.*?){re.escape(after)}", text)
    assert found, text
    return found[1]


def test_those_of_a_run(tmp_path: Path) -> None:
    words = (*TINY, option("hydra.run.dir", STRANGE))
    ran = l2lgd("meta-train", *words, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    few = ("baselines=[]", "num_functions=2", "num_steps=5", "logger=none", "hydra.run.dir=e")
    evaluate = between(ran.stdout + ran.stderr, "\nl2lgd evaluate", "\n")
    pasted(f"l2lgd evaluate{evaluate}", *few, cwd=tmp_path)
    assert (tmp_path / "e" / "summary.json").is_file()
    refused = l2lgd("meta-train", *words, cwd=tmp_path)
    assert refused.returncode == 2
    resume = between(refused.stderr, "go on with ", ", or choose")
    pasted(f"l2lgd meta-train {resume}", cwd=tmp_path)
    refused = l2lgd("meta-train", option("resume", STRANGE), "num_steps=6", cwd=tmp_path)
    assert refused.returncode == 2
    weights = between(refused.stderr, "from its weights with ", "\n")
    pasted(f"l2lgd meta-train {weights}", *TINY, "hydra.run.dir=next", cwd=tmp_path)


def test_those_of_a_sweep(tmp_path: Path) -> None:
    words = ("--multirun", *TINY, "meta_learning_rate=0.01,-1", option("hydra.sweep.dir", STRANGE))
    ran = l2lgd("meta-train", *words, cwd=tmp_path)
    assert ran.returncode == 2
    again = between(ran.stderr, "to run them again: ", "\n")
    pasted(again, "meta_learning_rate=0.02", cwd=tmp_path)
    assert not Sweep.read(tmp_path / STRANGE).left()
    refused = l2lgd("meta-train", *words, cwd=tmp_path)
    again = between(refused.stderr, "left undone with ", ", or choose")
    pasted(f"l2lgd meta-train {again}", cwd=tmp_path)
