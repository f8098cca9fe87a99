"""Everything that runs on a GPU, tried and measured in one command: ``make gpu``.

Parts run one after the other, each in a process of its own with a limit of its own; what a part
has found is on disk as soon as it is known, row by row, and one that fails leaves its traceback
there. They
need no data, no network and no compiler: pictures and networks of random numbers take their place.

    python scripts/bench/gpu.py                        # eight minutes at most
    python scripts/bench/gpu.py --parts meta_step,profile
    python scripts/bench/gpu.py --device cpu --quick   # small, to see that every part runs

``outputs/gpu/CARD.json`` has the numbers, ``outputs/gpu/CARD.md`` a table of them. A machine
without a package index needs hydra-core, omegaconf and antlr4-python3-runtime as files:
docs/understand/performance.md says how they get there.
"""

import argparse
import contextlib
import json
import os
import platform
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
# What each part is and the seconds it may take, the most valuable first; 480 in all.
PARTS = {
    "contract": ("every task × optimizer, and the tests that need a GPU: as on the CPU", 80),
    "meta_step": ("a meta-step beside the textbook loop", 130),
    "evaluate": ("100 functions, all optimizers: losses beside the CPU's, seconds", 60),
    "images": ("a step of a convnet and of a painting", 30),
    "learned_optimizer": ("a step of LearnedOptimizer beside Adam, and in training", 90),
    "determinism": ("deterministic=true; a killed run", 50),
    "profile": ("kernels, launches, synchronisations of a meta-step", 40),
}
QUICK = 60  # seconds of a part


def main() -> int:
    """Run the parts; 1 where one has failed."""
    given = parsed()
    if given.part:
        import gpu_parts

        write(Path(given.result), json.dumps(gpu_parts.run(given.part, given)))
        return 0
    import torch

    if given.device == "cuda" and not torch.cuda.is_available():
        print("gpu.py: PyTorch sees no CUDA GPU; --device cpu --quick tries the parts", flush=True)
        return 2
    found: dict[str, Any] = {"about": about(given), "parts": {}}
    given.output.mkdir(parents=True, exist_ok=True)
    card = re.sub(r"\W+", "-", found["about"]["card"]).strip("-").lower()
    for name in given.parts:
        print(f"{name}: {PARTS[name][0]} …", file=sys.stderr, flush=True)
        found["parts"][name] = outcome = in_own_process(name, given)
        write(given.output / f"{card}.json", json.dumps(found, indent=1))
        write(given.output / f"{card}.md", as_table(found))
        print(f"  {outcome.get('failed', 'done')}", file=sys.stderr, flush=True)
    print(given.output / f"{card}.md")
    return int(any("failed" in outcome for outcome in found["parts"].values()))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--quick", action="store_true", help="small sizes, few of each kind")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of " + ", ".join(PARTS))
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "gpu")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--result", help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.parts = given.parts.split(",")
    unknown = [name for name in given.parts if name not in PARTS]
    if unknown:
        parser.error(f"no part {unknown[0]}; choose among {', '.join(PARTS)}")
    return given


def in_own_process(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """What a part has found, with its seconds; or why it failed, with the end of what it said."""
    limit = QUICK if given.quick else PARTS[name][1]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        result, said = Path(folder, "result.json"), Path(folder, "said")
        words = [sys.executable, __file__, "--part", name, "--result", str(result)]
        words += ["--device", given.device, *(["--quick"] if given.quick else [])]
        with said.open("wb") as stream:
            started = subprocess.Popen(
                words, cwd=ROOT, stdout=stream, stderr=stream, start_new_session=True
            )
            try:
                status: int | None = started.wait(limit)
            except subprocess.TimeoutExpired:
                status = None
            with contextlib.suppress(ProcessLookupError):  # what the part has begun ends with it
                os.killpg(started.pid, signal.SIGKILL)
            started.wait()
        seconds = round(time.monotonic() - began, 1)
        found = json.loads(result.read_text("utf-8")) if result.exists() else {}
        if status == 0:
            return {"seconds": seconds, **found}
        why = f"took more than {limit} s" if status is None else f"exit status {status}"
        tail = said.read_text("utf-8", errors="replace")[-4000:]
        return {"seconds": seconds, **found, "failed": why, "said": tail}


def about(given: argparse.Namespace) -> dict[str, str]:
    """Card, driver, versions, command."""
    import torch

    found = {
        "card": "cpu",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "command": shlex.join(["python", "scripts/bench/gpu.py", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
    }
    if given.device == "cuda":
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        ran = subprocess.run(asked, capture_output=True, text=True, check=False)
        found |= {
            "card": torch.cuda.get_device_name(),
            "driver": ran.stdout.strip(),
            "cuda": str(torch.version.cuda),
        }
    return found


def as_table(found: dict[str, Any]) -> str:
    """Markdown: what was measured on, then a table for each part."""
    lines = [f"# {found['about']['card']}", ""]
    lines += [f"* {name}: {value}" for name, value in found["about"].items() if name != "card"]
    for name, outcome in found["parts"].items():
        lines += ["", f"## {name}: {PARTS[name][0]}", "", f"{outcome['seconds']} s", ""]
        if "failed" in outcome:
            lines += [f"**Failed: {outcome['failed']}**", ""]
        if "said" in outcome:
            lines += ["```", outcome["said"], "```"]
        for rows in outcome.get("tables", []):
            head = list(rows[0])
            lines += [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
            lines += [f"| {' | '.join(shown(row.get(key)) for key in head)} |" for row in rows]
            lines.append("")
        lines += outcome.get("text", [])
    return "\n".join(lines) + "\n"


def shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write(path: Path, text: str) -> None:
    """At once: a call that is killed leaves what was known before."""
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


if __name__ == "__main__":
    sys.exit(main())
