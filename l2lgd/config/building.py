"""Objects from ``_target_`` nodes. A constructor is its schema: options are checked against it.

A node may come from a file of weights. So all of it is checked before anything is constructed, and
what an argument's object may be follows from the constructor's signature.
"""

import collections.abc
import dataclasses
import enum
import functools
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import PurePath
from typing import Any, TypeVar

from omegaconf import OmegaConf

from l2lgd.config.old_names import TARGETS
from l2lgd.config.options import BESIDE, RECOMMENDED
from l2lgd.config.typed import typed
from l2lgd.errors import ConfigError, one_line

Kind = TypeVar("Kind")
NOT_FOR_CONSTRUCTORS = ("_target_", RECOMMENDED, *BESIDE)
DEEPEST = 20  # nodes within nodes
PLAIN = (bool, int, float, complex, str, bytes, list, tuple, set, dict, PurePath, enum.Enum)


@dataclasses.dataclass
class _Checked:
    """A node of which nothing is wrong, but for what only its constructor can tell."""

    path: str
    found: Callable[..., Any]
    arguments: dict[str, Any]
    objects: dict[str, "_Checked | dict[str, _Checked]"]
    is_function: bool = False  # which the object calls when it wants to

    def built(self) -> Any:
        arguments = dict(self.arguments)
        for key, inner in self.objects.items():
            if isinstance(inner, _Checked):
                arguments[key] = inner.built()
            else:
                arguments[key] = {name: part.built() for name, part in inner.items()}
        if self.is_function:
            return functools.partial(self.found, **arguments) if arguments else self.found
        try:
            return self.found(**arguments)
        except ConfigError as error:
            raise ConfigError(f"{self.path}.{error}") from error
        except (RuntimeError, OverflowError, MemoryError) as error:  # of tensors beyond all bounds
            raise ConfigError(f"{self.path} cannot be built: {one_line(error)}") from error


def build(
    node: Mapping[str, Any],
    path: str,
    allow_targets: Iterable[str] = (),
    kind: type[Kind] = object,  # type: ignore[assignment]
) -> Kind:
    """The object that a ``_target_`` node describes.

    An argument is an object, or a mapping of names to objects, where the signature says so, as in
    ``optimizer: Optimizer`` and ``optimizers: dict[str, Optimizer]``. Where it says ``module:
    Callable[..., nn.Module]``, the node names a class or a function, which is handed over with the
    node's arguments bound to it.

    Args:
        node: constructor arguments and ``_target_``.
        path: where the node is in the config, for messages.
        allow_targets: packages that targets may come from, besides that of ``kind``.
        kind: what the object has to be.

    Raises:
        ConfigError: an unknown, missing, ill-typed or refused argument or target.
    """
    built: Kind = _checked(node, path, tuple(allow_targets), (kind,), 0).built()
    return built


def _checked(
    node: Any, path: str, allow_targets: tuple[str, ...], kinds: tuple[type, ...], depth: int
) -> _Checked:
    """A node and those within it, checked."""
    if depth > DEEPEST:
        raise ConfigError(f"{path.split('.')[0]} is nested too deeply")
    target = node.get("_target_") if isinstance(node, Mapping) else None
    if not isinstance(target, str):
        raise ConfigError(f"{path} has no _target_: it must name the class to build")
    found = _trusted_class(target, path, allow_targets, kinds)
    hints, schema = _hints(found), _schema_of(found)
    plain: dict[str, Any] = {}
    objects: dict[str, _Checked | dict[str, _Checked]] = {}
    for key, value in node.items():
        if key in NOT_FOR_CONSTRUCTORS:
            continue
        place, hint = f"{path}.{key}", hints.get(key, Any)
        if _names_a_class(value) and _returned(hint) is not None:
            room = ".".join(found.__module__.split(".")[:2])
            objects[key] = _function(value, place, (*allow_targets, room), _returned(hint))
            plain[key] = {}
            continue
        own, several = _objects(hint)
        if not own and _names_a_class(value):
            raise ConfigError(
                f"{place}: {found.__name__} takes no object there; its signature says of what "
                f"class one has to be, as in {key}: Optimizer"
            )
        if own and several and isinstance(value, Mapping):
            objects[key] = {
                name: _checked(part, f"{place}.{name}", allow_targets, own, depth + 1)
                for name, part in value.items()
            }
        elif own and not (value is None and type(None) in typing.get_args(hint)):
            objects[key] = _checked(value, place, allow_targets, own, depth + 1)
        plain[key] = {} if key in objects else value
    values = typed(OmegaConf.create(plain), schema, f"{path}.")
    arguments = {field.name: getattr(values, field.name) for field in dataclasses.fields(values)}
    return _Checked(path, found, arguments, objects)


def _function(node: Any, path: str, packages: tuple[str, ...], returned: Any) -> _Checked:
    """A class or function that an object is given, and the arguments bound to it, checked."""
    target = node.get("_target_")
    found = _trusted(target, path, packages)
    if not callable(found):
        raise ConfigError(f"{path}._target_={target} is neither a class nor a function")
    if isinstance(found, type) and isinstance(returned, type) and not issubclass(found, returned):
        raise ConfigError(f"{path}._target_={target} {_no((returned,))}")
    try:
        hints = typing.get_type_hints(_made_by(found))
        parameters = inspect.signature(found).parameters.values()
    except (NameError, TypeError, ValueError) as error:  # of somebody else's annotations
        raise ConfigError(f"{path}._target_={target} cannot be read: {error}") from error
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
    given = {key: value for key, value in node.items() if key != "_target_"}
    known = [p.name for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD]
    names = dict.fromkeys([*known, *given] if open_ended else known)
    schema = dataclasses.make_dataclass(
        found.__name__,
        [(name, hints.get(name, Any)) if name in given else (name, Any, None) for name in names],
        kw_only=True,
    )
    values = typed(OmegaConf.create(given), schema, f"{path}.")
    return _Checked(path, found, {key: getattr(values, key) for key in given}, {}, True)


def _made_by(found: Callable[..., Any]) -> Callable[..., Any]:
    """Whose signature the arguments are in."""
    return found.__init__ if isinstance(found, type) else found  # type: ignore[misc]


def _returned(hint: Any) -> Any:
    """What a function returns that an argument may be; None where it may be none."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return next((made for made in map(_returned, parts) if made is not None), None)
    return parts[1] if origin is collections.abc.Callable else None


def _trusted_class(
    target: str, path: str, allow_targets: Iterable[str], kinds: tuple[type, ...]
) -> type:
    """The class of that name, of one of these kinds, from a package that is trusted with it.

    Those are the room of l2lgd that the kinds are of, and what is allowed besides.
    """
    modules = ["l2lgd" if kind is object else kind.__module__ for kind in kinds]
    own = [name.split(".")[:2] for name in modules if f"{name}.".startswith("l2lgd.")]
    homes = list(dict.fromkeys(".".join(parts) for parts in own))
    found = _trusted(target, path, (*homes, *allow_targets), homes)
    if not isinstance(found, type) or inspect.isabstract(found):
        raise ConfigError(f"{path}._target_={target} is not a class of which there are objects")
    if not issubclass(found, kinds):
        raise ConfigError(f"{path}._target_={target} {_no(kinds)}")
    return found


def _trusted(target: str, path: str, packages: Iterable[str], homes: Iterable[str] = ()) -> Any:
    """What has that name, from one of these packages."""
    target = TARGETS.get(target, target)
    allowed = tuple(f"{package}." for package in packages)
    origin = target
    if target.startswith(allowed):
        module, _, name = target.rpartition(".")
        try:
            found = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"{path}._target_={target} cannot be imported: {error}") from error
        if not hasattr(found, "__qualname__"):
            raise ConfigError(f"{path}._target_={target} is not a class of which there are objects")
        origin = f"{found.__module__}.{found.__qualname__}"
        if origin.startswith(allowed):
            return found
    if homes and f"{origin}.".startswith("l2lgd."):
        raise ConfigError(f"{path}._target_={target} is not a class of {' or '.join(homes)}")
    raise ConfigError(
        f"{path}._target_={target} is outside {', '.join(p[:-1] for p in allowed)}; if you trust "
        f"that package, add allow_targets=[{origin.split('.')[0]}]"
    )


def _no(kinds: tuple[type, ...]) -> str:
    """What a class of another kind is not."""
    names = " or ".join(kind.__name__ for kind in kinds)
    whole = " or ".join(f"{kind.__module__}.{kind.__qualname__}" for kind in kinds)
    return f"is no {names}: it must be derived from {whole}"


def _objects(hint: Any) -> tuple[tuple[type, ...], bool]:
    """Of what classes the objects of an argument are, and whether it is a mapping of them."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        found = [_objects(part) for part in parts if part is not type(None)]
        several = any(mapping for _, mapping in found)
        return tuple(kind for kinds, _ in found for kind in kinds), several
    if isinstance(origin, type) and issubclass(origin, Mapping) and len(parts) == 2:
        return _objects(parts[1])[0], True
    kind = hint if origin is None else origin
    plain = kind in (Any, object) or not isinstance(kind, type) or issubclass(kind, PLAIN)
    of_options = plain or dataclasses.is_dataclass(kind) or kind.__module__ == "collections.abc"
    return (() if of_options else (kind,)), False


def _names_a_class(value: Any) -> bool:
    """Is there a ``_target_`` in it, or in what it holds?"""
    if not isinstance(value, Mapping):
        return False
    parts = value.values()
    return "_target_" in value or any(isinstance(p, Mapping) and "_target_" in p for p in parts)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    """The types of a constructor's arguments; to be left as they are."""
    return typing.get_type_hints(kind.__init__)  # type: ignore[misc]


@functools.cache  # a search builds the same class for every rate that it tries
def _schema_of(kind: type) -> type:
    """The constructor's signature as a dataclass; objects, of which OmegaConf has none, are any."""
    hints = _hints(kind)
    fields: list[tuple[str, Any, Any]] = []
    for parameter in list(inspect.signature(kind).parameters.values()):
        default = parameter.default
        if default is inspect.Parameter.empty:
            default = dataclasses.MISSING
        field = dataclasses.field(default=default)
        hint = hints.get(parameter.name, Any)
        is_object = bool(_objects(hint)[0]) or _returned(hint) is not None
        fields.append((parameter.name, Any if is_object else hint, field))
    return dataclasses.make_dataclass(kind.__name__, fields, kw_only=True)
