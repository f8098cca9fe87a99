"""From measurements to ``summary.json``: of every optimizer on every task, and over all tasks."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from l2lgd.benchmark.contestants import Contestant
from l2lgd.benchmark.measuring import OfTask, joined
from l2lgd.benchmark.scores import (
    has_diverged,
    interquartile_mean,
    interval,
    loss_ratios,
    smoothed,
    speed_ups,
)

SCORES = ("speed_up", "loss_ratio", "held_out_ratio")


def of_task(found: OfTask, reference: str) -> dict[str, Any]:
    """What ``summary.json`` says of a task, all that was measured there.

    Args:
        reference: the optimizer that others are compared with.
    """
    whole = {name: joined(parts) for name, parts in found.measured.items() if parts}
    curves = {
        name: smoothed(one.losses.double().numpy(), one.about["stochastic"])
        for name, one in whole.items()
    }
    held = {
        name: one.held_out.double().numpy()
        for name, one in whole.items()
        if one.held_out is not None
    }
    results = {}
    lost = {name: has_diverged(own) for name, own in curves.items()}
    for name, one in whole.items():
        own, other = curves[name], curves[reference]
        both = lost[name], lost[reference]
        held_ratio = loss_ratios(held[name], held[reference], *both) if name in held else None
        results[name] = {
            "final_loss": own[-1].tolist(),
            "held_out_loss": held[name].tolist() if name in held else None,
            "loss_ratio": _listed(loss_ratios(own[-1], other[-1], *both)),
            "held_out_ratio": _listed(held_ratio),
            "speed_up": speed_ups(own, other).tolist(),
            "diverged": int(lost[name].sum()),
            "seconds_per_step": one.about["seconds"],
            "optimizer_seconds_per_step": one.about["optimizer_seconds"],
            **found.searches.get(name, {}),
        }
    entry = found.entry
    axis = {"axis": entry.axis, "factor": entry.factor} if entry.axis else {}
    return {
        "title": entry.title,
        "options": list(entry.options),
        "num_steps": entry.num_steps,
        "coordinates": found.coordinates,
        "data": found.data,
        "family": found.family,
        **axis,
        "results": results,
    }


def over_tasks(tasks: Mapping[str, Any], contestants: Sequence[Contestant]) -> dict[str, Any]:
    """By optimizer, its scores over all tasks, which count alike.

    Args:
        tasks: of each what :func:`of_task` says.
    """
    return {one.name: _scores(one, tasks) for one in contestants}


def _scores(one: Contestant, tasks: Mapping[str, Any]) -> dict[str, Any]:
    results = {name: task["results"][one.name] for name, task in tasks.items()}
    found: dict[str, Any] = {}
    for score in SCORES:
        rows = [result[score] for result in results.values() if result[score] is not None]
        if not rows:
            found[score] = None
            continue
        scores = np.array(rows)
        found[score] = {
            "interquartile_mean": float(interquartile_mean(scores)),
            "ci95": interval(scores).tolist() if scores.shape[1] > 1 else None,
            "median": float(np.median(scores)),
            "tasks": len(rows),
        }
    ratios = [result["loss_ratio"] for result in results.values()]
    medians = [np.median(own) for own in ratios if own is not None]
    largest = max(tasks, key=lambda name: tasks[name]["coordinates"])
    cost = results[largest]["optimizer_seconds_per_step"] / tasks[largest]["coordinates"]
    searched = {len(result["trials"]) for result in results.values() if "trials" in result}
    found |= {
        "below_reference": sum(bool(ratio < 1) for ratio in medians),
        "diverged": sum(result["diverged"] for result in results.values()),
        "runs": sum(len(result["final_loss"]) for result in results.values()),
        "seconds_per_step": float(np.median([r["seconds_per_step"] for r in results.values()])),
        "optimizer_seconds_per_coordinate": cost,  # on the largest task
        "trials": searched.pop() if len(searched) == 1 else sorted(searched) or 0,
        "trained_on": one.trained_on(),
    }
    return found


def acquainted(task: Mapping[str, Any], scores: Mapping[str, Any]) -> list[str]:
    """The optimizers that were meta-trained on the data set of a task, or on its family."""
    known = {(task["data"] or {}).get("name"), *task["family"]}
    return [name for name, own in scores.items() if known & set(own["trained_on"])]


def _listed(values: np.ndarray | None) -> list[float] | None:
    return None if values is None else values.tolist()


def numbers(values: Sequence[float | None]) -> np.ndarray:
    """Losses or ratios of a summary, where null stands for what is not finite."""
    return np.array([math.inf if value is None else value for value in values])
