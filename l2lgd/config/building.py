"""Objects from ``_target_`` nodes. A constructor is its schema: options are checked against it."""

import dataclasses
import importlib
import inspect
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from omegaconf import OmegaConf

from l2lgd.config.old_names import TARGETS
from l2lgd.config.options import BESIDE, RECOMMENDED
from l2lgd.config.typed import typed
from l2lgd.errors import ConfigError, one_line

Kind = TypeVar("Kind")
NOT_FOR_CONSTRUCTORS = ("_target_", RECOMMENDED, *BESIDE)


def build(
    node: Mapping[str, Any],
    path: str,
    allow_targets: Iterable[str] = (),
    kind: type[Kind] = object,  # type: ignore[assignment]
) -> Kind:
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
    values = typed(
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
    target = TARGETS.get(target, target)
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
    hints = typing.get_type_hints(kind.__init__)  # type: ignore[misc]
    fields: list[tuple[str, Any, Any]] = []
    for parameter in list(inspect.signature(kind).parameters.values()):
        default = parameter.default
        if default is inspect.Parameter.empty:
            default = dataclasses.MISSING
        field = dataclasses.field(default=default)
        fields.append((parameter.name, hints.get(parameter.name, Any), field))
    return dataclasses.make_dataclass(kind.__name__, fields, kw_only=True)
