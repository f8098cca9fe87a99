"""The benchmarks run, and what they claim to compare is the same."""

import json
import subprocess
from pathlib import Path

import pytest
from helpers import python

SCRIPTS = Path(__file__).parents[1] / "scripts"


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return python(str(SCRIPTS / script), *arguments)


def test_the_textbook_loop_has_our_meta_gradient() -> None:
    done = run("bench_meta_step.py", "--cases", "quadratic-128", "--seconds", "0", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.keys() == {"device", "threads", "cases"}
    (case,) = found["cases"]
    assert (case["name"], case["coordinates"], case["functions"]) == ("quadratic-128", 10, 128)
    assert case["unroll"] == 20
    assert case["meta_gradient_error"] < 1e-4
    assert case["speedup"] == case["textbook_seconds"] / case["seconds"]
    for name in ("textbook_peak_bytes", "peak_bytes"):
        assert 1e7 < case[name] < 1e11


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--threads", "0"), "threads=0: must be at least 1"),
        (("--device", "abacus"), "device=abacus: choose"),
        (("--seconds", "nan"), "must be finite"),
    ],
)
def test_mistakes_end_in_a_line(arguments: tuple[str, ...], message: str) -> None:
    done = run("bench_meta_step.py", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_case_is_named() -> None:
    done = run("bench_meta_step.py", "--cases", "mnist")
    assert done.returncode == 2
    assert "no case mnist; choose among quadratic-128, mnist-1" in done.stderr
