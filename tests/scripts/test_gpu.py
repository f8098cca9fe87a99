"""What ``make gpu`` runs, small and on the CPU, so that it works when it counts."""

import argparse
import json
from pathlib import Path

import pytest
from helpers import SCRIPTS, python

GPU = str(SCRIPTS / "bench" / "gpu.py")


def test_every_part_runs(tmp_path: Path) -> None:
    ran = python(GPU, "--device", "cpu", "--quick", "--output", str(tmp_path))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads((tmp_path / "cpu.json").read_text("utf-8"))
    assert {"card", "python", "torch", "command"} <= found["about"].keys()
    parts = found["parts"]
    names = ["contract", "meta_step", "evaluate", "images", "learned_optimizer", "determinism"]
    assert list(parts) == [*names, "profile"]
    assert {row["holds"] for row in parts["contract"]["tables"][0]} == {True}
    (case,) = parts["meta_step"]["tables"][0]
    assert case["meta_gradient_error"] < 1e-4
    assert case["first_order_seconds"] is None
    assert {row["same bits"] for row in parts["determinism"]["tables"][0]} == {True}
    assert {row["first steps, difference"] for row in parts["evaluate"]["tables"][0]} == {0}
    table = (tmp_path / "cpu.md").read_text("utf-8")
    for name in parts:
        assert f"\n## {name}: " in table


def test_a_part_that_fails_leaves_its_traceback_and_the_others_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS / "bench"))
    import gpu

    given = argparse.Namespace(device="cpu", quick=True)
    monkeypatch.setitem(gpu.PARTS, "nosuch", ("", 1))
    outcome = gpu.in_own_process("nosuch", given)
    assert outcome["failed"] == "exit status 2"
    assert "invalid choice: 'nosuch'" in outcome["said"]
    monkeypatch.setattr(gpu, "QUICK", 0.01)
    slow = gpu.in_own_process("profile", given)
    assert slow["failed"] == "took more than 0.01 s"
    found = {"about": {"card": "x"}, "parts": {"profile": slow, "images": {"seconds": 1.0}}}
    assert "**Failed: took more than 0.01 s**" in gpu.as_table(found)


def test_without_a_gpu_it_says_so() -> None:
    ran = python(GPU, CUDA_VISIBLE_DEVICES="")
    assert ran.returncode == 2
    assert ran.stdout.count("\n") == 1
    assert "no CUDA GPU" in ran.stdout
