"""The processes of one meta-training under torchrun: which functions each has, what they exchange.

Every process draws the same functions and keeps its own share of them. What travels in a meta-step
is one sum over processes of φ's gradient with a few numbers for the log; files belong to rank 0.
"""

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from l2lgd.errors import ConfigError, ProcessLost, one_line
from l2lgd.system import launch
from l2lgd.system.terminal import say

PATIENCE = 600  # seconds in which all processes have to come to where they meet
SILENCE = 3  # seconds after which it is said that others are missing


@dataclass(frozen=True)
class Ranks:
    """One process among those of a run; alone by default."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Does this process own the files?"""
        return self.rank == 0

    def share(self, num_functions: int) -> slice:
        """Which of the functions are this process's: contiguous parts, as even as can be."""
        return slice(
            num_functions * self.rank // self.size, num_functions * (self.rank + 1) // self.size
        )

    def mean(self, parts: Sequence[Tensor], count: int) -> tuple[list[Tensor], int]:
        """Means over the functions of all processes, from those over each one's own.

        Args:
            parts: means over this process's functions; whatever they are where it has none.
            count: how many these are.

        Returns:
            The means, and of how many functions.
        """
        if self.size == 1:
            return list(parts), count
        flat = torch.cat([part.detach().flatten() for part in parts])
        counted = flat.new_tensor([count])
        flat = torch.cat([flat * count if count else torch.zeros_like(flat), counted])
        with _others():
            torch.distributed.all_reduce(flat)
        total = int(flat[-1])
        pieces = (flat[:-1] / max(1, total)).split([part.numel() for part in parts])
        return [piece.view_as(part) for piece, part in zip(pieces, parts, strict=True)], total

    def columns(self, part: Tensor, num_functions: int) -> Tensor:
        """(…, own functions) of every process side by side: (…, all functions)."""
        if self.size == 1:
            return part
        shares = [Ranks(rank, self.size).share(num_functions) for rank in range(self.size)]
        counts = [share.stop - share.start for share in shares]
        padded = pad(part, (0, max(counts) - part.shape[-1]))  # gloo wants equal shapes
        parts = [torch.empty_like(padded) for _ in shares]
        with _others():
            torch.distributed.all_gather(parts, padded)
        cut = [whole[..., :count] for whole, count in zip(parts, counts, strict=True)]
        return torch.cat(cut, -1)

    def collect(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """On rank 0: the named tensors of all processes, rank r's under names that begin with r.

        Elsewhere nothing, so that no other process needs the memory.
        """
        if self.size == 1:
            return {f"0.{name}": tensor for name, tensor in tensors.items()}
        from safetensors.torch import load, save

        own = {f"{self.rank}.{name}": t.cpu().contiguous().clone() for name, t in tensors.items()}
        device = next(iter(tensors.values())).device
        packed = torch.frombuffer(bytearray(save(own)), dtype=torch.uint8).to(device)
        lengths = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(self.size)]
        with _others():
            torch.distributed.all_gather(lengths, torch.tensor([len(packed)], device=device))
            longest = max(int(length) for length in lengths)
            buffers = [packed.new_empty(longest) for _ in lengths] if self.leads else None
            torch.distributed.gather(pad(packed, (0, longest - len(packed))), buffers)
        found: dict[str, Tensor] = {}
        for buffer, length in zip(buffers or [], lengths, strict=False):
            found |= load(buffer[: int(length)].cpu().numpy().tobytes())
        return found

    def of_first(self, text: str) -> str:
        """What rank 0 calls this with."""
        texts = [text]
        if self.size > 1:
            with _others():
                torch.distributed.broadcast_object_list(texts)
        return texts[0]


@contextlib.contextmanager
def _others() -> Iterator[None]:
    """An exchange, which fails where another process does not take part any more.

    Raises:
        ProcessLost: so it is.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ProcessLost("another process of the run has ended") from error


def local_device(name: str) -> str:
    """Of the GPUs of this machine, the one that is this process's: ``cuda`` → ``cuda:1``."""
    if launch.size() > 1 and (name == "cuda" or (name == "auto" and torch.cuda.is_available())):
        return f"cuda:{launch.local_rank()}"
    return name


@contextlib.contextmanager
def joined(device: torch.device, num_functions: int) -> Iterator[Ranks]:
    """The process among the others, who wait for each other here.

    Raises:
        ConfigError: there are more processes than functions.
    """
    ranks = Ranks(launch.rank(), launch.size())
    if ranks.size == 1:
        yield ranks
        return
    if num_functions < ranks.size:
        raise ConfigError(
            f"num_functions={num_functions} for {ranks.size} processes: each needs one at least"
        )
    _meet(ranks, device)
    try:
        yield ranks
    finally:
        leave()


def _meet(ranks: Ranks, device: torch.device) -> None:
    """Wait for the others, in a thread of its own: this one is to hear signals meanwhile.

    Raises:
        ConfigError: no place to meet is named, or not all have come.
    """
    failed: list[Exception] = []

    def meet() -> None:
        try:
            if device.type == "cuda":
                torch.cuda.set_device(device)  # of each thread
            torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        except Exception as error:  # is raised below
            failed.append(error)

    thread = threading.Thread(target=meet, daemon=True)
    thread.start()
    missing = f"process {ranks.rank} of {ranks.size} waits for the others at"
    missing += f" {launch.meeting_place()}"
    thread.join(SILENCE)
    if thread.is_alive():
        say(f"l2lgd: {missing}, {PATIENCE // 60} minutes at most")
        thread.join(PATIENCE - SILENCE)
    unset = "start them with torchrun --nproc-per-node N -m l2lgd meta-train; for one process alone"
    unset += " unset RANK and WORLD_SIZE"
    if thread.is_alive():
        raise ConfigError(f"{missing}, in vain for {PATIENCE // 60} minutes; {unset}")
    if failed and isinstance(failed[0], ValueError):  # no address to meet at
        raise ConfigError(f"RANK and WORLD_SIZE are set, but not by torchrun; {unset}") from failed[
            0
        ]
    if failed:
        raise ConfigError(f"{missing}, which failed: {one_line(failed[0])}; {unset}") from failed[0]


def leave() -> None:
    """End the exchange between processes."""
    torch.distributed.destroy_process_group()
    # A thread of gloo's still lets go of the last tensors, and aborts where the interpreter ends
    # before it can.
    time.sleep(0.1)
