"""How large the meta-gradient is, and whether functions agree about it, by step and unroll.

Follows a learned optimizer on training functions of a task. At each of ``--steps`` it takes the
meta-gradient of every function over unrolls of each length, and prints the mean norm, the mean
cosine between two functions, and the cosine of their sum to the one of the first step and longest
unroll. Where functions do not agree, an unroll sees noise; where the last column is negative, it
leads away.

python scripts/studies/meta_gradient_agreement.py task=cifar10 --weights FILE --steps 100 500

Options of l2lgd meta-train are given as there, ``estimator.second_derivatives=false`` for example.
"""

import argparse
import itertools
import sys
from pathlib import Path
from typing import Any

import torch
from hydra.errors import HydraException
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table
from torch import Tensor

from l2lgd.config.building import build
from l2lgd.config.defaults import composed
from l2lgd.errors import ConfigError, UserError
from l2lgd.meta.estimators.replay import Replay, replay
from l2lgd.meta.rollout import Position, advance, rollout, start
from l2lgd.meta.schedules import Unroll
from l2lgd.meta.state import load_weights
from l2lgd.optimizers.base import LearnedRule
from l2lgd.seeding import generator
from l2lgd.system import runtime
from l2lgd.tasks.base import Task
from l2lgd.verbs.plan import build_unroll


def meta_gradient(
    at: Position, unroll: Unroll, estimator: Replay, steps: int, horizon: int
) -> Tensor:
    """Of the meta-loss of the next ``steps`` steps with respect to φ, flat."""
    weights = list(at.optimizer.phi())
    for weight in weights:
        weight.grad = None
    record, _ = rollout(at, steps, keep_path=estimator.second_derivatives)
    replay(record, unroll.objective(horizon), estimator.smoothing, estimator.difference)
    return torch.cat([weight.grad.flatten() for weight in weights])


def cosine(left: Tensor, right: Tensor) -> float:
    """Of the angle between two flat gradients."""
    return torch.cosine_similarity(left, right, dim=0).item()


def measure(config: dict[str, Any], arguments: argparse.Namespace) -> Table:
    """One row a step and unroll.

    Raises:
        ConfigError: the optimizer is not a learned one, or an option does not hold.
        DataUnavailable, CheckpointError: data or weights could not be read.
    """
    task: Task = build(config["task"], "task")
    optimizer = build(config["opt"], "opt")
    unroll = build_unroll(config["unroll"])
    estimator = build(config["estimator"], "estimator", kind=Replay)
    if not isinstance(optimizer, LearnedRule):
        raise ConfigError("opt: must be a learned optimizer")
    if arguments.weights is not None:
        load_weights(arguments.weights, optimizer)
    task.setup(config["data_dir"], torch.device("cpu"))
    positions = [
        start(optimizer, task.sample("train", 1, generator(config["seed"], "agreement", index)))
        for index in range(arguments.functions)
    ]
    found = Table()
    for name in ("step", "loss", "unroll", "norm", "cosine between", "cosine to the first"):
        found.add_column(name, justify="right")
    first = None
    for step in sorted(arguments.steps):
        while positions[0].step < step:
            positions = [advance(at) for at in positions]
        loss = sum(at.loss.item() for at in positions) / len(positions)
        for steps in sorted(arguments.unrolls, reverse=True):
            gradients = [
                meta_gradient(at, unroll, estimator, steps, config["num_steps"]) for at in positions
            ]
            norm = sum(g.norm().item() for g in gradients) / len(gradients)
            pairs = [cosine(a, b) for a, b in itertools.combinations(gradients, 2)]
            total = torch.stack(gradients).sum(0)
            first = total if first is None else first
            between = f"{sum(pairs) / len(pairs):.2f}" if pairs else ""
            numbers = (f"{loss:.3g}", str(steps), f"{norm:.3g}", between)
            found.add_row(str(step), *numbers, f"{cosine(total, first):.2f}")
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("overrides", nargs="*", help="options of l2lgd meta-train, name=value")
    parser.add_argument("--weights", type=Path, help="a .safetensors file; else random ones")
    parser.add_argument("--steps", nargs="+", type=int, default=[0, 50])
    parser.add_argument("--unrolls", nargs="+", type=int, default=[20, 50])
    parser.add_argument("--functions", type=int, default=2)
    arguments = parser.parse_args()
    if min(arguments.steps) < 0 or min(*arguments.unrolls, arguments.functions) < 1:
        parser.error("--steps must not be negative, --unrolls and --functions at least 1")
    runtime.keep_freed_memory()
    try:
        found = composed("meta_train", arguments.overrides)
        torch.manual_seed(found.seed)
        config: Any = OmegaConf.to_container(found, resolve=True)
        Console().print(measure(config, arguments))
    except (UserError, HydraException) as error:
        print(f"meta_gradient_agreement.py: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
