"""Names in configs, weights and commands of earlier versions, and what they are called now."""

from collections.abc import Iterable, Mapping
from typing import Any

from l2lgd.config.options import AUGMENT, BESIDE, RECOMMENDED

TARGETS = {  # of ``_target_``
    "l2lgd.mirrors.Mirror": "l2lgd.tracking.loggers.Logger",
    "l2lgd.mirrors.TensorBoard": "l2lgd.tracking.loggers.TensorBoard",
    "l2lgd.mirrors.Wandb": "l2lgd.tracking.loggers.Wandb",
    "l2lgd.optimizers.odd.Odd": "l2lgd.optimizers.sign_equivariant.SignEquivariant",
}
CHOICES = {"unroll=recipe": "unroll=task"}
RECIPE = "recipe"  # key of a task, now ``recommended`` and what stands beside it
OF_UNROLL = {"unroll_lengths": "lengths"} | {
    name: name
    for name in (
        "horizons",
        "loss_weights",
        "restart_above",
    )
}
OF_ESTIMATOR = ("second_derivatives", "second_derivatives_from", "smoothing", "difference")
REPLAY = "l2lgd.meta.estimators.replay.Replay"  # the only estimator there was
OF_OTHER_VERBS = ("tune_functions", "tune_meta_steps")
OF_OPT = ("output_scale", "initial_output", "preprocessing")


def upgraded(config: Mapping[str, Any]) -> dict[str, Any]:
    """A composed config, interpolations resolved, under today's names."""
    found: dict[str, Any] = renamed(config)
    if isinstance(found.get("task"), dict):
        found["task"] = upgraded_task(found["task"])
        augment = found["task"].get(AUGMENT) or {}
        if augment.get("levels", ["none"]) == ["none"] and not augment.get("variants"):
            found["task"].pop(AUGMENT, None)  # there was no such option
    if isinstance(found.get("unroll"), dict) and "estimator" not in found:
        found["unroll"], own = _parted(found["unroll"])
        found["estimator"] = {"_target_": REPLAY, **own}
    return found


def upgraded_task(node: Mapping[str, Any]) -> dict[str, Any]:
    """A task's node, in which a ``recipe`` has become what it is called now."""
    recipe = node.get(RECIPE)
    if not isinstance(recipe, Mapping):
        return _with_estimator(node)
    found = {key: value for key, value in node.items() if key != RECIPE}
    # A YAML file of an earlier version may be made of one of today.
    recommended = {
        key: dict(value) if isinstance(value, Mapping) else value
        for key, value in (found.get(RECOMMENDED) or {}).items()
    }
    for key, value in recipe.items():
        if key in BESIDE:
            found[key] = value
        else:
            part, _, name = _place(str(key)).rpartition(".")
            (recommended.setdefault(part, {}) if part else recommended)[name] = value
    return _with_estimator(found | {RECOMMENDED: recommended})


def _with_estimator(node: Mapping[str, Any]) -> dict[str, Any]:
    """A task's node, with what it recommends for estimators at its place; so are those in it."""
    found, recommended = dict(node), node.get(RECOMMENDED)
    if isinstance(node.get("tasks"), Mapping):
        found["tasks"] = {
            name: upgraded_task(part) if isinstance(part, Mapping) else part
            for name, part in node["tasks"].items()
        }
    if isinstance(recommended, Mapping) and isinstance(recommended.get("unroll"), Mapping):
        unroll, own = _parted(recommended["unroll"])
        if own:
            estimator = {**own, **(recommended.get("estimator") or {})}
            found[RECOMMENDED] = {**recommended, "unroll": unroll, "estimator": estimator}
    return found


def _parted(unroll: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is an option of ``unroll``, and what is one of ``estimator`` now."""
    own = {key: value for key, value in unroll.items() if key in OF_ESTIMATOR}
    return {key: value for key, value in unroll.items() if key not in own}, own


def renamed(node: Any) -> Any:
    """A plain node in which every ``_target_`` has the name of today."""
    if isinstance(node, Mapping):
        return {
            key: TARGETS.get(value, value)
            if key == "_target_" and isinstance(value, str)
            else renamed(value)
            for key, value in node.items()
        }
    return [renamed(part) for part in node] if isinstance(node, list) else node


def current(words: Iterable[str], options: Iterable[str]) -> list[str]:
    """The words of a command under today's names.

    What was set in a task's recipe comes first, so that the option itself, where it was set too,
    still has the last word.

    Args:
        options: those that a task may recommend to the verb.
    """
    known, first, rest = set(options), [], []
    for word in words:
        name, equals, value = word.lstrip("+").partition("=")
        key = name.removeprefix(f"task.{RECIPE}.")
        group, _, option = name.partition(".")
        if group == "unroll" and option in OF_ESTIMATOR:
            rest.append(word.replace("unroll.", "estimator.", 1))
        elif key == name or not equals:
            rest.append(CHOICES.get(word, word))
        elif key in BESIDE:
            rest.append(f"++task.{key}={value}")
        elif "." in _place(key) or key in known:
            first.append(f"{_place(key)}={value}")
        elif key not in OF_OTHER_VERBS:
            rest.append(word)  # which there never was: Hydra says so
    flags = [word for word in rest if word.startswith("-")]
    return [*flags, *first, *(word for word in rest if not word.startswith("-"))]


def _place(key: str) -> str:
    """What a key of a recipe is called below ``recommended``, and as an option."""
    if key in OF_UNROLL:
        return f"unroll.{OF_UNROLL[key]}"
    if key in OF_ESTIMATOR:
        return f"estimator.{key}"
    return f"opt.{key}" if key in OF_OPT else key
