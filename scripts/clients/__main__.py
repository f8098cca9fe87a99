"""Programs that train with other people's optimizers: LearnedOptimizer in each of them.

    python scripts/clients              # all of them
    python scripts/clients fsdp2 timm   # some

Each is a tiny training that is saved half-way, begun anew, loaded and gone on with, and must end
with the bits of a training without a break. Where parameters are sharded over two processes they
must be those of one process, too. Prints a table, and exits with 1 where something does not hold.
Nothing is downloaded; the libraries are those of the extra "clients".
"""

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import rich
from rich.table import Table

ALONE = ("lightning", "transformers", "accelerate", "timm", "skorch")  # and their distributions
SHARDED: dict[str, dict[str, Any]] = {  # names and options
    "ddp": {},
    "zero": {},
    "fsdp1": {},
    "fsdp1-flat": {"use_orig_params": False},
    "fsdp2": {},
    "tensor_parallel": {},
    "distributed_checkpoint": {},
}
LONGEST = 300  # seconds that processes may take


def main() -> int:
    """Try clients; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [*ALONE, *SHARDED]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--worker", nargs=3, metavar=("RANK", "WORLD", "FOLDER"), help="internal")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in names]
    if unknown:
        parser.error(f"no client {', '.join(unknown)}; choose among {', '.join(names)}")
    if given.worker:
        rank, world, folder = given.worker
        return work(given.names, int(rank), int(world), Path(folder))
    table = Table("client", "version", "result")
    failed = False
    for name, said in results([name for name in names if name in (given.names or names)]):
        failed |= said.startswith("DOES NOT HOLD")
        table.add_row(name, version(name) or "–", said)
    rich.print(table)
    return int(failed)


def version(name: str) -> str | None:
    """Of what a client is about; None where that is not installed."""
    try:
        return importlib.metadata.version("torch" if name in SHARDED else name)
    except importlib.metadata.PackageNotFoundError:
        return None


def results(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What was found of each client."""
    for name in names:
        if name in ALONE:
            missing = "left out: not installed"
            yield name, tried([name], 1)[name] if version(name) else missing
    sharded = [name for name in names if name in SHARDED]
    while sharded:  # in the same two processes until something does not hold
        found = tried(sharded, 2)
        yield from found.items()
        sharded = [name for name in sharded if name not in found]


def tried(names: Sequence[str], world: int) -> dict[str, str]:
    """The results of clients up to the first that does not hold, from processes of their own."""
    with tempfile.TemporaryDirectory(prefix="clients-") as folder:
        processes = [
            subprocess.Popen(
                [*(sys.executable, __file__), *names, "--worker", str(rank), str(world), folder],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in range(world)
        ]
        try:
            output = [process.communicate(timeout=LONGEST)[0] for process in processes]
        except subprocess.TimeoutExpired:
            output = [f"no end after {LONGEST} s"]
        finally:
            for process in processes:
                process.kill()
                process.wait()
        path = Path(folder, "results.jsonl")
        found = path.read_text("utf-8").splitlines() if path.exists() else []
        results = dict(json.loads(line) for line in reversed(found))
    if any(process.returncode for process in processes):
        print(*output, sep="\n", file=sys.stderr)
        if not any(said.startswith("DOES NOT HOLD") for said in results.values()):
            results[next(name for name in names if name not in results)] = "DOES NOT HOLD: crashed"
    return {name: results[name] for name in names if name in results}


def work(names: Sequence[str], rank: int, world: int, folder: Path) -> int:
    """Be one of the processes that try clients; returns the exit status."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder)}
    os.chdir(folder)
    import clients_common  # PyTorch is not for the process that waits
    import torch

    torch.set_num_threads(1)
    if world > 1 and not (
        torch.distributed.is_available() and torch.distributed.is_gloo_available()
    ):
        note(dict.fromkeys(names, "left out: PyTorch was built without gloo"))
        return 0
    if world > 1:
        torch.distributed.init_process_group(
            "gloo",
            init_method=f"file://{folder}/meeting",
            rank=rank,
            world_size=world,
            timeout=timedelta(seconds=60),
        )
    status = 0
    for name in names:
        try:
            if name in SHARDED:
                said = clients_common.run_sharded(name, rank, world, **SHARDED[name])
            else:
                said = clients_common.run_alone(name)
        except Exception as error:
            traceback.print_exc()
            said, status = f"DOES NOT HOLD: {error}", 1
        if rank == 0 or status:
            note({name: said})
        if status:
            break
    if world > 1 and not status:
        torch.distributed.destroy_process_group()
    return status


def note(results: dict[str, str]) -> None:
    """Tell the process that waits."""
    with Path("results.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(result) + "\n" for result in results.items())


if __name__ == "__main__":
    sys.exit(main())
