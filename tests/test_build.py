"""Compiling the kernel, on machines of all kinds."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import environment

USE = """
import torch
from l2lgd.optimizers.coordinatewise import CoordinatewiseLSTM
learned = CoordinatewiseLSTM()
with torch.no_grad():
    learned.step(torch.ones(1, 40), learned.initial_state(torch.ones(1, 40)))
print(learned.implementation())
"""


def implementation(cache: Path, **variables: str) -> tuple[str, str]:
    """What a fresh process with an empty cache uses, and what it says on standard error."""
    done = subprocess.run(
        [sys.executable, "-c", USE],
        env=environment() | {"XDG_CACHE_HOME": str(cache), **variables},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


def test_without_a_compiler_pytorch_does_it(tmp_path: Path) -> None:
    found, said = implementation(tmp_path, PATH=str(tmp_path), CXX="")
    assert found == "PyTorch"
    assert said.count("no C++ compiler") == 1


def test_a_compiler_without_openmp_will_do(tmp_path: Path) -> None:
    real = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if real is None:
        pytest.skip("no C++ compiler")
    picky = tmp_path / "picky"
    picky.write_text(
        f'#!/bin/sh\nfor a; do [ "$a" = -fopenmp ] && exit 1; done\nexec {real} "$@"\n',
        encoding="utf-8",
    )
    picky.chmod(0o755)
    found, said = implementation(tmp_path, CXX=str(picky))
    assert (found, said) == ("C++", "")


def test_a_compiler_that_fails_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho out of ink >&2\nexit 1\n", encoding="utf-8")
    broken.chmod(0o755)
    found, said = implementation(tmp_path, CXX=str(broken))
    assert found == "PyTorch"
    assert f"{broken} failed: out of ink" in said
