"""What a tuned rate, or the losses of an evaluation, depend on."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from l2lgd.config.options import BESIDE, RECOMMENDED
from l2lgd.config.packages import installed
from l2lgd.optimizers.base import LearnedRule, Optimizer
from l2lgd.results.losses import digest
from l2lgd.runs.run import Run


def tuning_key(
    run: Run, name: str, node: dict[str, Any], num_functions: int, seed: int
) -> dict[str, Any]:
    """What a tuned learning rate depends on."""
    optimizer = {k: v for k, v in node.items() if k != "learning_rate"}
    return {
        **problem_of(run),
        "optimizer_name": name,
        "optimizer": optimizer,
        "num_steps": run.options.num_steps,
        "num_functions": num_functions,
        "seed": seed,
    }


def losses_key(
    run: Run, name: str, node: dict[str, Any], optimizer: Optimizer, rate: float | None
) -> dict[str, Any]:
    """What the losses of an evaluation depend on, as JSON has it."""
    options = run.options
    key = {
        **problem_of(run),
        "optimizer_name": name,
        "optimizer": {**node, "learning_rate": rate},
        "split": options.split,
        "num_functions": options.num_functions,
        "num_steps": options.num_steps,
        "seed": options.seed,
        "device": run.device.type,
    }
    if options.matmul_precision != "highest":
        key["matmul_precision"] = options.matmul_precision
    if isinstance(optimizer, LearnedRule):
        key["weights"] = digest(optimizer.state_dict())
    found: dict[str, Any] = json.loads(json.dumps(key))
    return found


def problem_of(run: Run) -> dict[str, Any]:
    """The task and its data, as they are in a key."""
    return {
        "task_name": run.task_name,
        "task": task_options(run.config["task"], run.task.not_in_keys),
        "data": same_images(run.task.data_description()),
    }


def library_of(node: Mapping[str, Any]) -> dict[str, Any]:
    """The version of the library that an optimizer is of, unless that is PyTorch; else nothing."""
    package = str(node.get("package") or "torch").partition(".")[0]
    return {} if package == "torch" else {"library": {package: installed(package)}}


def task_options(node: dict[str, Any], others: Sequence[str]) -> dict[str, Any]:
    """Those that tell tasks apart, as they are in a key; one that is null is as good as absent."""
    left_out = (RECOMMENDED, *BESIDE, *others)
    return {k: v for k, v in node.items() if k not in left_out and v is not None}


def same_images(data: dict[str, object] | None) -> dict[str, object] | None:
    """What tells data apart: the same images from another place are the same data."""
    if not data:
        return data
    found = {key: value for key, value in data.items() if key != "source"}
    parts = found.get("parts")  # of a mixture
    if isinstance(parts, Mapping):
        found["parts"] = {name: same_images(part) for name, part in parts.items()}
    return found
