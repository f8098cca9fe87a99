"""scripts/clients, as far as it needs nothing but PyTorch."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from helpers import SCRIPTS, python, served

CLIENTS = SCRIPTS / "clients"
MODULES = sorted(CLIENTS.glob("client_*.py"))
PAGE = (SCRIPTS.parent / "docs" / "how-to" / "clients.md").read_text("utf-8")
SHARDED = ("ddp", "zero", "fsdp1", "fsdp1-flat", "fsdp2", "tensor_parallel")
SHARDED += ("distributed_checkpoint",)


def script(name: str) -> ModuleType:
    sys.path.insert(0, str(CLIENTS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(CLIENTS))


OWN = script("pytorch_own_tests")
NAMES = [name for name in vars(OWN) if name.startswith("test_") and "cuda" not in name]


@pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="PyTorch was built without gloo",
)
def test_sharded_training_goes_on_to_the_same_bits_and_is_that_of_one_process() -> None:
    ran = python(str(CLIENTS), *SHARDED, COLUMNS="200")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for name in SHARDED:
        (row,) = [line for line in ran.stdout.splitlines() if f"│ {name} " in line]
        assert "same bits after resume" in row
        assert "from one process" in row


def test_what_is_no_client_is_said() -> None:
    ran = served(str(CLIENTS), "keras", cwd=CLIENTS)
    assert ran.returncode == 2
    assert "no client keras; choose among lightning, " in ran.stderr


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_the_page_shows_the_code_that_is_run(path: Path) -> None:
    source = path.read_text("utf-8").partition("\n\n# not on the page")[0]
    _, code = source.split("\n\n", 1)  # without its docstring
    assert f"```python\n{code.strip()}\n```" in PAGE


def test_the_page_shows_nothing_else() -> None:
    assert PAGE.count("```python") == len(MODULES)


# Other options are tried by scripts/clients/pytorch_own.py.
EVERYTHING = {"maximize": True, "weight_decay": 1e-3, "skip_zero_gradients": True}


@pytest.mark.parametrize("options", [{}, EVERYTHING], ids=["plain", "everything"])
@pytest.mark.parametrize("name", NAMES)
def test_what_pytorch_asks_of_its_own_optimizers(name: str, options: dict[str, object]) -> None:
    getattr(OWN, name)(options)


def test_what_is_left_out_of_pytorchs_tests_has_a_reason() -> None:
    own = script("pytorch_own")
    assert all(own.LEFT_OUT.values())
    assert not set(own.LEFT_OUT) & {*NAMES, *own.COVERED}
    assert set(own.COVERED.values()) <= set(NAMES)
