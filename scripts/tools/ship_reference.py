"""Have the reference of ``l2lgd benchmark`` ship with the package.

    l2lgd benchmark optimizers=[untuned_adam] results_dir=FOLDER tuned_dir=FOLDER
    python scripts/tools/ship_reference.py FOLDER --suite standard

Takes from FOLDER the trials and the losses of the reference on the tasks of a suite as it is now,
and puts them in the place of those that ship for these tasks. Each says which command made it.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from l2lgd.benchmark.measuring import OURS
from l2lgd.config.defaults import composed
from l2lgd.config.schemas import validated
from l2lgd.storage import checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--suite", default="standard")
    parser.add_argument("--to", type=Path, default=OURS)
    given = parser.parse_args()
    options = validated(composed("benchmark", [f"suite={given.suite}"]), "benchmark")
    given.to.mkdir(parents=True, exist_ok=True)
    for name in options.suite.tasks:
        command = f"l2lgd benchmark suite={given.suite} tasks=[{name}]"
        made = _newest(given.folder, f"{name}-{options.reference}-")
        for old in given.to.glob(f"{name}-{options.reference}-*"):
            old.unlink()
        for path in made:
            if path.suffix == ".json":
                content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
                text = json.dumps(content | {"command": command}, indent=1) + "\n"
                (given.to / path.name).write_text(text, encoding="utf-8")
            else:
                tensors, about = checkpoint.load(path)
                checkpoint.save(given.to / path.name, tensors, about | {"command": command})
            print(given.to / path.name)


def _newest(folder: Path, beginning: str) -> list[Path]:
    """The last file of each kind: one of trials, one of losses."""
    found = []
    for suffix in (".json", ".safetensors"):
        files = [path for path in folder.glob(f"{beginning}*{suffix}") if path.is_file()]
        if not files:
            raise SystemExit(f"{folder} has no {beginning}*{suffix}; run the benchmark there")
        found.append(max(files, key=lambda path: path.stat().st_mtime))
    return found


if __name__ == "__main__":
    main()
