"""Compile kernels on first use and load them with ctypes."""

import ctypes
import functools
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch

SUFFIXES = {torch.float32: "float", torch.float64: "double"}  # of the functions for each type
logger = logging.getLogger(__name__)

FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fPIC", "-pthread")
TIMEOUT = 120  # seconds


@functools.cache
def library(name: str) -> ctypes.CDLL | None:
    """The compiled ``name.cpp``, or None (and the reason in the log) if it cannot be built here."""
    compiler = find_compiler()
    if compiler is None:
        return None
    openmp = openmp_of_pytorch()
    ways = (True, False) if openmp else (False,)
    for with_openmp in ways:
        try:
            if with_openmp:
                ctypes.CDLL(str(openmp), ctypes.RTLD_GLOBAL)
            # Every symbol is looked up now: Clang's OpenMP has other ones than the GNU's.
            return ctypes.CDLL(str(build(name, compiler, with_openmp)), os.RTLD_NOW)
        except subprocess.CalledProcessError as error:
            reason = f"{compiler} failed: {error.stderr.strip()}"
        except (OSError, RuntimeError, subprocess.TimeoutExpired) as error:  # no home, for one
            reason = str(error)
    logger.warning("no compiled %s, using PyTorch: %s", name, reason)
    return None


def call(name: str, function: str, dtype: torch.dtype, *arguments: Any) -> None:
    """Run a function of a library, in its form for numbers of that type.

    Args:
        arguments: as ctypes takes them.

    Raises:
        MemoryError: the function says that there is not enough.
    """
    if getattr(library(name), f"{function}_{SUFFIXES[dtype]}")(*arguments):
        raise MemoryError(f"not enough memory for {function}")


@functools.cache
def find_compiler() -> str | None:
    """Its path, or None (and a line in the log)."""
    names = (os.environ.get("CXX"), "c++", "g++", "clang++")
    found = next((path for name in names if name and (path := shutil.which(name))), None)
    if found is None:
        logger.warning("no C++ compiler ($CXX, c++, g++, clang++): using PyTorch")
    return found


def openmp_of_pytorch() -> Path | None:
    """The GNU OpenMP that PyTorch brings: two of them would take each other's cores."""
    package = Path(torch.__file__).parent
    folders = (package / "lib", package.parent / "torch.libs")
    found = (path for folder in folders for path in sorted(folder.glob("libgomp*.so*")))
    return next(found, None)


def build(name: str, compiler: str, openmp: bool) -> Path:
    """The shared library of ``name.cpp``, compiled unless the cache has it.

    Args:
        openmp: leave its symbols open, for the OpenMP that is loaded before it.
    """
    flags = (*FLAGS, *(["-fopenmp"] if openmp else []))
    source = Path(__file__).with_name(f"{name}.cpp")
    path = cache_folder() / f"{name}-{fingerprint(source, compiler, flags)}.so"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # Renamed when complete, so that processes that build at the same time do no harm.
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            unfinished = Path(folder) / path.name
            compiled = unfinished.with_suffix(".o")
            run(compiler, *flags, "-c", str(source), "-o", str(compiled))
            run(compiler, "-shared", "-pthread", str(compiled), "-o", str(unfinished))
            unfinished.replace(path)
    return path


def fingerprint(source: Path, compiler: str, flags: tuple[str, ...]) -> str:
    """Changes with source, flags, compiler and CPU; predefined macros tell the last two apart."""
    macros = run(compiler, *flags, "-dM", "-E", "-x", "c++", os.devnull)
    parts = (compiler, *flags, macros, source.read_text(encoding="utf-8"))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "l2lgd"


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIMEOUT)
    return done.stdout
