"""Compile kernels on first use and load them with ctypes."""

import atexit
import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import shutil
import signal
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch

from l2lgd.system.environment import variable

SUFFIXES = {torch.float32: "float", torch.float64: "double"}  # of the functions for each type
logger = logging.getLogger(__name__)

FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fPIC", "-pthread")
TIMEOUT, TIMEOUT_OF_MACROS = 120, 30  # seconds
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


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
            reason = _why(error)
        except subprocess.TimeoutExpired as error:
            reason = f"{compiler} was stopped after {error.timeout:g} s"
            break
        except (OSError, RuntimeError) as error:  # no home, for one
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
    """The shared library of ``name.cpp``, compiled unless the cache has it whole.

    Args:
        openmp: leave its symbols open, for the OpenMP that is loaded before it.
    """
    flags = (*FLAGS, *(["-fopenmp"] if openmp else []))
    source = Path(__file__).with_name(f"{name}.cpp")
    stem = f"{name}-{fingerprint(source, compiler, flags)}"
    home = private(cache_folder())
    for path in sorted(home.glob(f"{stem}-*.so")):
        if is_ours(path) and path.stem == f"{stem}-{_digest(path)}":
            return path
    # Renamed when complete, so that processes that build at the same time do no harm.
    with tempfile.TemporaryDirectory(dir=home) as folder:
        compiled, linked = Path(folder) / f"{name}.o", Path(folder) / f"{name}.so"
        run(compiler, *flags, "-c", str(source), "-o", str(compiled))
        run(compiler, "-shared", "-pthread", str(compiled), "-o", str(linked))
        linked.chmod(0o700)
        with linked.open("rb+") as file:  # a power cut leaves all of it or nothing
            os.fsync(file.fileno())
        return linked.replace(home / f"{stem}-{_digest(linked)}.so")


def fingerprint(source: Path, compiler: str, flags: tuple[str, ...]) -> str:
    """Changes with source, headers, flags, compiler and CPU.

    Predefined macros tell the last two apart.
    """
    asked = (*flags, "-dM", "-E", "-x", "c++", os.devnull)
    macros = run(compiler, *asked, timeout=TIMEOUT_OF_MACROS)
    files = (source, *sorted(source.parent.glob("*.h")))
    parts = (compiler, *flags, macros, *(file.read_text(encoding="utf-8") for file in files))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def cache_folder() -> Path:
    """For kernels alone: that of data may be shared with others.

    Raises:
        RuntimeError: there is no home.
    """
    root = Path(variable("XDG_CACHE_HOME"))
    if not root.is_absolute():  # such a one counts for nothing, by the specification of the name
        if "HOME" in os.environ and not variable("HOME"):  # Python takes / for it
            raise RuntimeError("HOME is empty")
        root = Path.home() / ".cache"
    return root / "l2lgd-kernels"


def private(folder: Path) -> Path:
    """A folder in which nobody else can put a library: this one, or one that ends with us."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = folder.resolve()
    if is_ours(folder, but=OTHERS_WRITE) and not any(map(_all_may_rename, folder.parents)):
        folder.chmod(0o700)
        return folder
    logger.warning(
        "%s can be changed by other users, so kernels are compiled anew every time; set "
        "XDG_CACHE_HOME to a folder of your own",
        folder,
    )
    return _passing()


def is_ours(path: Path, but: int = 0) -> bool:
    """Is it no link, of this user, and written by nobody else, ``but`` for these modes?"""
    found = path.lstat()
    mine = not hasattr(os, "geteuid") or found.st_uid == os.geteuid()
    return mine and not stat.S_ISLNK(found.st_mode) and not found.st_mode & OTHERS_WRITE & ~but


def _all_may_rename(folder: Path) -> bool:
    mode = folder.stat().st_mode
    return hasattr(os, "geteuid") and bool(mode & stat.S_IWOTH) and not mode & stat.S_ISVTX


@functools.cache
def _passing() -> Path:
    folder = tempfile.mkdtemp(prefix="l2lgd-kernels-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32]


def run(*command: str, timeout: float | None = None) -> str:
    """What a program writes; where it does not end well, all that it has started ends with it."""
    posix = os.name == "posix"
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=posix,
    ) as process:
        try:
            out, err = process.communicate(timeout=timeout or TIMEOUT)
        except BaseException:  # a signal, too
            with contextlib.suppress(OSError):  # it has ended by itself
                if posix:
                    os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            raise
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, out, err)
    return out


def _why(error: subprocess.CalledProcessError) -> str:
    """The line of a compiler that tells most."""
    compiler, lines = error.cmd[0], error.stderr.strip().splitlines()
    if error.returncode < 0:
        return f"{compiler} was killed by signal {-error.returncode}"
    telling = [line.strip() for line in lines if "error" in line.lower()] or lines or ["no reason"]
    return f"{compiler} failed: {telling[0]}"
