"""What changes the last digits of a run that goes on is told, once."""

import logging
from pathlib import Path
from typing import Any

import pytest
from helpers import l2lgd

from l2lgd.storage import checkpoint
from l2lgd.verbs.resuming import warn_of_other_bits

TINY = ("task=quadratic", "logger=none", "meta_steps=2", "num_functions=2", "num_steps=5")
TINY += ("unroll.lengths=[5]", "validate_every=2", "validation_functions=2", "threads=1")
STORED: dict[str, Any] = {
    "device": "cpu",
    "threads": 2,
    "implementation": "C++",
    "processor": "AVX2",
    "versions": {"torch": "2.9.0"},
}


def test_another_number_of_threads_is_told_in_one_warning(tmp_path: Path) -> None:
    ran = l2lgd("meta-train", *TINY, "hydra.run.dir=run", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    same = l2lgd("meta-train", "resume=run", cwd=tmp_path)
    assert "other arithmetic" not in same.stdout + same.stderr
    ran = l2lgd("meta-train", "resume=run", "threads=2", cwd=tmp_path)
    assert (ran.stdout + ran.stderr).count("other arithmetic (threads: 1 → 2)") == 1
    _, stored = checkpoint.load(tmp_path / "run" / "checkpoints" / "last.safetensors")
    assert stored["implementation"] in ("C++", "PyTorch")
    assert stored["processor"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, ""),
        ({"implementation": "PyTorch"}, "implementation: C++ → PyTorch"),
        ({"processor": "AVX512"}, "processor: AVX2 → AVX512"),
        ({"versions": {"torch": "2.14.1"}}, "torch: 2.9.0 → 2.14.1"),
        ({"threads": 4, "implementation": "PyTorch"}, "threads: 2 → 4; implementation: C++ → "),
        ({"device": "cuda:1", "processor": "GPU"}, "device: cpu → cuda"),
    ],
)
def test_each_of_its_causes_is_named(
    change: dict[str, Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        warn_of_other_bits(STORED, STORED | change)
    assert len(caplog.messages) == bool(said)
    assert said in "".join(caplog.messages)


def test_what_an_earlier_version_has_not_stored_is_not_compared(
    caplog: pytest.LogCaptureFixture,
) -> None:
    known = ("device", "threads", "versions")
    warn_of_other_bits({key: STORED[key] for key in known}, STORED)
    warn_of_other_bits({}, STORED | {"device": "None"})
    assert not caplog.messages
