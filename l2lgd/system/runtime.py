"""The machine a run is on: device, threads, memory."""

import contextlib
import ctypes
import os
import sys
import warnings
from collections.abc import Iterator

import torch

from l2lgd.errors import ConfigError

MAX_THREADS = 1024
PRECISIONS = ("highest", "high", "medium")


def pick_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU.

    Raises:
        ConfigError: no such device on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device={name}: choose auto, cpu, cuda or cuda:0, cuda:1, …") from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            found = (
                f"PyTorch sees {count} CUDA GPU(s) here" if count else "PyTorch sees no CUDA GPU"
            )
            raise ConfigError(f"device={name}: {found}; use device=auto or device=cpu")
    elif device.type != "cpu":
        raise ConfigError(f"device={name}: choose auto, cpu, cuda or cuda:0, cuda:1, …")
    return device


def processor(device: torch.device) -> str:
    """Of which the last digits depend: a GPU's name, or the instructions that PyTorch uses."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return torch.backends.cpu.get_cpu_capability()


@contextlib.contextmanager
def left_as_found() -> Iterator[None]:
    """What a run says of threads, determinism and precision holds within it."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    products = torch.get_float32_matmul_precision()
    convolutions = torch.backends.cudnn.allow_tf32
    try:
        yield
    finally:
        if threads != torch.get_num_threads():
            torch.set_num_threads(threads)
        set_deterministic(deterministic)
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions


def set_threads(threads: int | None) -> int:
    """Fix the number of CPU threads, where one is given; returns the number in use."""
    if threads is not None:
        if threads < 1:
            raise ConfigError(f"threads={threads}: must be at least 1")
        if threads > MAX_THREADS:  # OpenMP gives up far below what its type holds
            raise ConfigError(f"threads={threads}: must be at most {MAX_THREADS}")
        torch.set_num_threads(threads)
    return torch.get_num_threads()


def set_deterministic(wanted: bool) -> None:
    """Have GPUs give the same bits every time, at some cost in speed; CPUs do so anyway."""
    if wanted:
        # cuBLAS reads it when it is first used.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if wanted != torch.are_deterministic_algorithms_enabled():  # PyTorch imports much for it
        torch.use_deterministic_algorithms(wanted)


def set_precision(name: str) -> None:
    """Of products and convolutions of float32 numbers, in the words of PyTorch.

    Raises:
        ConfigError: there is no such precision.
    """
    if name not in PRECISIONS:
        raise ConfigError(f"matmul_precision={name}: choose one of {', '.join(PRECISIONS)}")
    torch.set_float32_matmul_precision(name)
    torch.backends.cudnn.allow_tf32 = name != "highest"  # PyTorch's default, for convolutions


def keep_freed_memory() -> None:
    """Have glibc reuse freed memory rather than give it back to the system.

    An unroll allocates and frees megabytes many times over, and by default each time pays for
    fresh pages. Elsewhere than on glibc: no effect.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        m_trim_threshold, m_mmap_threshold = -1, -3
        mallopt(m_mmap_threshold, 1 << 30)
        mallopt(m_trim_threshold, (1 << 31) - 1)


@contextlib.contextmanager
def quiet_vmap() -> Iterator[None]:
    """Without vmap's warnings of operations that it does one by one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop")
        yield
