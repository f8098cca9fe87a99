"""Files: who may read them, and that they are whole."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers import served

from l2lgd.errors import UserError
from l2lgd.storage import checkpoint, locks
from l2lgd.storage.files import write_atomically

RUN = """
import os, sys
os.umask(0o{umask:03o})
from l2lgd.cli.main import main
sys.exit(main("meta-train task=quadratic logger=none threads=1 meta_steps=2 num_functions=2 "
    "num_steps=5 unroll.lengths=[5] validate_every=2 validation_functions=2 "
    "hydra.run.dir=run".split()))
"""


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("hidden", [0o077, 0o027, 0o002, 0o000])
def test_the_umask_says_who_may_read(hidden: int, umask: None, tmp_path: Path) -> None:
    os.umask(hidden)
    write_atomically(tmp_path / "new" / "summary.json", b"{}")
    checkpoint.save(tmp_path / "last.safetensors", {"x": torch.zeros(1)}, {})
    checkpoint.keep_previous(tmp_path / "last.safetensors")
    locks.hold(tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 4
    assert {mode(path) for path in files} == {0o666 & ~hidden}


def test_nothing_of_a_run_is_for_others_where_the_umask_says_so(tmp_path: Path) -> None:
    ran = served("-c", RUN.format(umask=0o077), cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    found = {path.name: mode(path) for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert found.keys() >= {"metrics.jsonl", "summary.json", "best.safetensors", "config.yaml"}
    assert {name for name, own in found.items() if own & 0o077} == set()


def test_a_long_name_and_a_failure_leave_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 250)
    write_atomically(path, b"1")
    write_atomically(path, b"2")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"2"
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    with pytest.raises(UserError, match="could not write"):
        write_atomically(tmp_path / "folder", b"3")
    assert {p.name for p in tmp_path.iterdir()} == {path.name, "folder"}
