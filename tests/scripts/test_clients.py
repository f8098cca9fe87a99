"""scripts/clients, as far as it needs nothing but PyTorch."""

from pathlib import Path

import pytest
import torch
from helpers import SCRIPTS, python

CLIENTS = SCRIPTS / "clients"
PAGE = SCRIPTS.parent / "docs" / "how-to" / "clients.md"
SHARDED = ("ddp", "zero", "fsdp1", "fsdp1-flat", "fsdp2", "tensor_parallel")
SHARDED += ("distributed_checkpoint",)

needs_gloo = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="PyTorch was built without gloo",
)


@needs_gloo
def test_sharded_training_goes_on_to_the_same_bits_and_is_that_of_one_process() -> None:
    ran = python(str(CLIENTS), *SHARDED, COLUMNS="200")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for name in SHARDED:
        (row,) = [line for line in ran.stdout.splitlines() if f"│ {name} " in line]
        assert "same bits after resume" in row
        assert "from one process" in row


def test_what_is_no_client_is_said() -> None:
    ran = python(str(CLIENTS), "keras")
    assert ran.returncode == 2
    assert "no client keras; choose among lightning, " in ran.stderr


@pytest.mark.parametrize("path", sorted(CLIENTS.glob("client_*.py")), ids=lambda path: path.stem)
def test_the_page_shows_the_code_that_is_run(path: Path) -> None:
    source = path.read_text("utf-8").partition("\n\n# not on the page")[0]
    _, code = source.split("\n\n", 1)  # without its docstring
    assert f"```python\n{code.strip()}\n```" in PAGE.read_text("utf-8")


def test_the_page_has_a_section_for_every_client() -> None:
    assert PAGE.read_text("utf-8").count("```python") == len(list(CLIENTS.glob("client_*.py")))
