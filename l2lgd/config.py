"""Typed configs: the schema of each verb, and building objects from ``_target_`` nodes.

A task's or optimizer's constructor is its schema: options are checked against its signature.
"""

import dataclasses
import difflib
import importlib
import inspect
import math
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from omegaconf import Container, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from l2lgd.errors import ConfigError, one_line

LARGEST = {int: 2**63 - 1, float: 3.4e38}  # that PyTorch's numbers hold
NOT_FOR_CONSTRUCTORS = ("_target_", "recipe")


@dataclasses.dataclass
class Verb:
    """Options that every verb has."""

    task: Any
    opt: Any
    unroll: Any
    logger: Any
    seed: int
    device: str
    deterministic: bool
    threads: int | None
    data_dir: str
    num_functions: int
    num_steps: int
    allow_targets: list[str]


@dataclasses.dataclass
class MetaTraining:
    """Options of a meta-training, which tune has too."""

    meta_steps: int
    meta_learning_rate: float
    meta_decay: str
    meta_clip: float | None
    meta_average: float
    validate_every: int
    validation_functions: int
    checkpoint_every: int
    initial_weights: str | None


@dataclasses.dataclass
class MetaTrain(MetaTraining, Verb):
    """``l2lgd meta-train``."""

    resume: str | None


@dataclasses.dataclass
class Evaluate(Verb):
    """``l2lgd evaluate``."""

    checkpoint: str | None
    split: str
    baselines: list[str]
    tuned_dir: str
    tune_functions: int
    tune_seed: int
    reuse: list[str]
    weights_dir: str | None


@dataclasses.dataclass
class Tune(MetaTraining, Verb):
    """``l2lgd tune``."""

    search: str
    checkpoint: str | None
    baselines: list[str]
    tuned_dir: str
    trials: int
    lowest_rate: float
    highest_rate: float


@dataclasses.dataclass
class Stylize(Verb):
    """``l2lgd stylize``."""

    content: str | None
    style: str | None
    output: str | None
    size: int
    checkpoint: str | None
    beside: str | None
    learning_rate: float | None


@dataclasses.dataclass
class FunctionCounts:
    """Functions that each kind of figure is a mean over."""

    quadratic: int
    mnist: int
    mnist_long: int
    grid: int
    cifar: int
    neural_art: int
    sharing: int
    sharing_mnist: int

    def __post_init__(self) -> None:
        for name, count in vars(self).items():
            if count < 1:
                raise ConfigError(f"{name}={count}: must be at least 1")


@dataclasses.dataclass
class Scale:
    """How large the evaluations of figures are."""

    functions: FunctionCounts


@dataclasses.dataclass
class Drawing:
    """How figures are drawn."""

    overlay: str
    style: str


@dataclasses.dataclass
class Figures:
    """``l2lgd figures``."""

    scale: Scale
    figure: Any
    figures: Drawing
    seed: int
    device: str
    threads: int
    workers: int | None
    data_dir: str
    tuned_dir: str
    weights_dir: str | None
    vgg: str
    reuse: list[str]
    of: list[str]


@dataclasses.dataclass
class TaskRecipe:
    """``task.recipe``: what a task recommends, where the command line says nothing else."""

    num_functions: int | None = None
    num_steps: int | None = None
    tune_functions: int | None = None
    meta_steps: int | None = None
    tune_meta_steps: int | None = None
    meta_learning_rate: float | None = None
    meta_decay: str | None = None
    meta_average: float | None = None
    validate_every: int | None = None
    validation_functions: int | None = None
    unroll_lengths: list[int] | None = None
    horizons: list[int] | None = None
    loss_weights: str | None = None
    second_derivatives: bool | None = None
    second_derivatives_from: float | None = None
    smoothing: float | None = None
    difference: float | None = None
    restart_above: float | None = None
    output_scale: float | None = None
    initial_output: float | None = None
    preprocessing: str | None = None
    weights_of: list[str] | None = None  # tasks whose shipped weights do for this one
    loss_label: str | None = None  # of the axis


SCHEMAS: dict[str, type] = {
    "meta_train": MetaTrain,
    "evaluate": Evaluate,
    "tune": Tune,
    "stylize": Stylize,
    "figures": Figures,
}


def validated(config: DictConfig, verb: str) -> Any:
    """The composed config with the types of the verb's schema, interpolations resolved.

    Raises:
        ConfigError: an option that does not exist, is missing, or has the wrong type.
    """
    task = config.get("task")
    recipe = task.get("recipe") if isinstance(task, DictConfig) else None
    if recipe is not None:
        if not isinstance(recipe, DictConfig):
            raise ConfigError(f"task.recipe={recipe}: must be options with their values")
        _typed(recipe, TaskRecipe, "task.recipe.")
    return _typed(config, SCHEMAS[verb], "")


def build(
    node: Mapping[str, Any], path: str, allow_targets: Iterable[str] = (), kind: type = object
) -> Any:
    """The object that a ``_target_`` node describes; an argument may be one, or a mapping of them.

    A node may come from a file of weights, so what it names is never called unless it is a class
    of a package that is trusted.

    Args:
        node: constructor arguments and ``_target_``.
        path: where the node is in the config, for messages.
        allow_targets: packages that targets may come from, besides l2lgd.
        kind: what the object has to be.

    Raises:
        ConfigError: an unknown, missing, ill-typed or refused argument or target.
    """
    target = node.get("_target_") if isinstance(node, Mapping) else None
    if not isinstance(target, str):
        raise ConfigError(f"{path} has no _target_: it must name the class to build")
    found = _trusted_class(target, path, allow_targets)
    if not issubclass(found, kind):
        raise ConfigError(
            f"{path}._target_={target} is no {kind.__name__}: it must be derived from "
            f"{kind.__module__}.{kind.__qualname__}"
        )
    plain = {key: node[key] for key in node if key not in NOT_FOR_CONSTRUCTORS}
    nested = {key: value for key, value in plain.items() if _describes_objects(value)}
    values = _typed(
        OmegaConf.create({key: {} if key in nested else plain[key] for key in plain}),
        _schema_of(found),
        f"{path}.",
    )
    arguments = {field.name: getattr(values, field.name) for field in dataclasses.fields(values)}
    for key, described in nested.items():
        arguments[key] = _built(described, f"{path}.{key}", allow_targets)
    try:
        return found(**arguments)
    except ConfigError as error:
        raise ConfigError(f"{path}.{error}") from error
    except (RuntimeError, OverflowError, MemoryError) as error:  # of tensors beyond all bounds
        raise ConfigError(f"{path} cannot be built: {one_line(error)}") from error


def _trusted_class(target: str, path: str, allow_targets: Iterable[str]) -> type:
    """The class of that name, from a package that may be imported and defined in one."""
    allowed = tuple(f"{package}." for package in ("l2lgd", *allow_targets))
    origin = target
    if target.startswith(allowed):
        module, _, name = target.rpartition(".")
        try:
            found = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"{path}._target_={target} cannot be imported: {error}") from error
        if not isinstance(found, type) or inspect.isabstract(found):
            raise ConfigError(f"{path}._target_={target} is not a class of which there are objects")
        origin = f"{found.__module__}.{found.__qualname__}"
        if origin.startswith(allowed):
            return found
    raise ConfigError(
        f"{path}._target_={target} is outside {', '.join(p[:-1] for p in allowed)}; if you trust "
        f"that package, add allow_targets=[{origin.split('.')[0]}]"
    )


def _describes_objects(value: Any) -> bool:
    """Is it a ``_target_`` node, or a mapping of names to such nodes?"""
    if not isinstance(value, Mapping) or not value:
        return False
    return "_target_" in value or all(
        isinstance(part, Mapping) and "_target_" in part for part in value.values()
    )


def _built(described: Mapping[str, Any], path: str, allow_targets: Iterable[str]) -> Any:
    """The object, or the objects by name, of what :func:`_describes_objects` says yes to."""
    if "_target_" in described:
        return build(described, path, allow_targets)
    return {name: build(part, f"{path}.{name}", allow_targets) for name, part in described.items()}


def _schema_of(kind: type) -> type:
    """The constructor's signature as a dataclass."""
    hints = typing.get_type_hints(kind.__init__)
    fields: list[tuple[str, Any, Any]] = []
    for parameter in list(inspect.signature(kind).parameters.values()):
        default = parameter.default
        if default is inspect.Parameter.empty:
            default = dataclasses.MISSING
        field = dataclasses.field(default=default)
        fields.append((parameter.name, hints.get(parameter.name, Any), field))
    return dataclasses.make_dataclass(kind.__name__, fields, kw_only=True)


def _typed(config: DictConfig, schema: type, prefix: str) -> Any:
    """``config`` as an instance of the dataclass ``schema``, nested dataclasses included."""
    known = [field.name for field in dataclasses.fields(schema)]
    for key in config:
        if key not in known:
            raise ConfigError(f"there is no option {prefix}{key}{nearest(str(key), known)}")
    missing = [
        field.name
        for field in dataclasses.fields(schema)
        if OmegaConf.is_missing(config, field.name)
        or (
            field.name not in config
            and field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
        )
    ]
    if missing:
        raise ConfigError(f"{prefix}{missing[0]} has no value; give {prefix}{missing[0]}=…")
    typed = OmegaConf.structured(schema)
    for field in dataclasses.fields(schema):
        if field.name not in config:
            continue
        value = config[field.name]
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{prefix}{field.name}={value}: must be a finite number")
        if type(value) in LARGEST and abs(value) > LARGEST[type(value)]:
            raise ConfigError(f"{prefix}{field.name}={value}: is too large")
        if isinstance(value, ListConfig) and _nested_in_plain(value, field.type):
            raise ConfigError(f"{prefix}{field.name}={value}: must be a plain list")
        if dataclasses.is_dataclass(field.type) and isinstance(value, DictConfig):
            value = OmegaConf.structured(
                _typed(value, field.type, f"{prefix}{field.name}.")  # type: ignore[arg-type]
            )
        try:
            typed = OmegaConf.merge(typed, {field.name: value})
        except OmegaConfBaseException as error:
            option = f"{prefix}{error.full_key or field.name}"
            reason = str(error).splitlines()[0]
            if "is not a ListConfig" in reason:
                reason = f"must be a list, such as {option}=[{value}]"
            raise ConfigError(f"{option}: {reason}") from error
    try:
        return OmegaConf.to_object(typed)
    except ConfigError as error:
        raise ConfigError(f"{prefix}{error}") from error


def _nested_in_plain(value: ListConfig, hint: Any) -> bool:
    """Are there lists or mappings in a list of numbers or words? OmegaConf does not mind."""
    plain = {int, float, str, bool} & {part for kind in _parts(hint) for part in _parts(kind)}
    return bool(plain) and any(isinstance(item, Container) for item in value)


def _parts(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) or (hint,)


def nearest(word: str, choices: Iterable[str]) -> str:
    """A hint at the choice that was probably meant, to end a message with."""
    choices = list(choices)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; choose one of {', '.join(choices)}" if choices else ""


def differences(stored: DictConfig, now: DictConfig, ignore: Iterable[str]) -> list[str]:
    """``key: stored → now`` for every option that differs, those in ``ignore`` left out."""
    flat = []
    for config in (stored, now):
        plain = OmegaConf.to_container(config, resolve=True)
        flat.append(_flattened({k: v for k, v in dict(plain).items() if k not in set(ignore)}))
    before, after = flat
    return [
        f"{key}: {before.get(key, 'absent')} → {after.get(key, 'absent')}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key, "absent") != after.get(key, "absent")
    ]


def _flattened(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, dict) or not node:
        return {prefix: node}
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= _flattened(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
