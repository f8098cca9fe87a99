"""Compiling the kernel, on machines of all kinds."""

from pathlib import Path

import pytest
from helpers import python

from l2lgd.kernels.build import find_compiler

USE = """
import torch
from l2lgd.optimizers.coordinatewise import CoordinatewiseLSTM
learned = CoordinatewiseLSTM()
with torch.no_grad():
    gradients = torch.linspace(-1, 1, 3000).view(3, 1, 1000)
    state = learned.initial_state(gradients[0])
    found = learned.vector_jacobian_product(gradients, state, gradients)
    print(learned.implementation(), sum(part.square().sum().item() for part in found) ** 0.5)
"""


def implementation(cache: Path, **variables: str) -> tuple[str, float, str]:
    """What a fresh process with an empty cache uses and computes, and its standard error."""
    done = python("-c", USE, XDG_CACHE_HOME=str(cache), **variables)
    assert done.returncode == 0, done.stderr
    name, norm = done.stdout.split()
    return name, float(norm), done.stderr


def test_without_a_compiler_pytorch_does_it(tmp_path: Path) -> None:
    found, _, said = implementation(tmp_path, PATH=str(tmp_path), CXX="")
    assert found == "PyTorch"
    assert said.count("no C++ compiler") == 1


def test_any_compiler_will_do_with_openmp_or_without(tmp_path: Path) -> None:
    real = find_compiler()
    if real is None:
        pytest.skip("no C++ compiler")
    usual, norm, said = implementation(tmp_path / "usual")
    assert (usual, said) == ("C++", "")
    picky = tmp_path / "picky++"
    picky.write_text(
        f'#!/bin/sh\nfor a; do [ "$a" = -fopenmp ] && exit 1; done\nexec {real} "$@"\n',
        encoding="utf-8",
    )
    picky.chmod(0o755)
    found, same, said = implementation(tmp_path / "picky", CXX=str(picky))
    assert (found, same, said) == ("C++", norm, "")
    _, plain, _ = implementation(tmp_path, CXX=str(tmp_path / "none"), PATH=str(tmp_path))
    assert norm == pytest.approx(plain, rel=1e-5)


def test_a_compiler_that_fails_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho out of ink >&2\nexit 1\n", encoding="utf-8")
    broken.chmod(0o755)
    found, _, said = implementation(tmp_path, CXX=str(broken))
    assert found == "PyTorch"
    assert f"{broken} failed: out of ink" in said
