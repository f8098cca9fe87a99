"""Configs as instances of dataclasses, every value checked."""

import dataclasses
import math
import re
import typing
from typing import Any

from omegaconf import Container, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from l2lgd.errors import ConfigError, nearest

LARGEST = {int: 2**63 - 1, float: 3.4e38}  # that PyTorch's numbers hold

KINDS = {  # words in OmegaConf's messages, and what a value has to be
    "converted to Integer": "a whole number",
    "converted to Float": "a number",
    "not a valid bool": "true or false",
}


def typed(config: DictConfig, schema: type, prefix: str) -> Any:
    """``config`` as an instance of the dataclass ``schema``, nested dataclasses included."""
    known = [field.name for field in dataclasses.fields(schema)]
    for key in config:
        if key not in known:
            raise ConfigError(f"there is no option {prefix}{key!s}{nearest(str(key), known)}")
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
    filled = OmegaConf.structured(schema)
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
                typed(value, field.type, f"{prefix}{field.name}.")  # type: ignore[arg-type]
            )
        try:
            filled.merge_with({field.name: value})
        except OmegaConfBaseException as error:
            option = f"{prefix}{error.full_key or field.name}"
            reason = str(error).splitlines()[0]
            if "is not a ListConfig" in reason:
                reason = f"must be a list, such as {option}=[{value}]"
            if re.search(r"Cannot assign \w+ to Dict|not a subclass of Dict", reason):
                reason = f"must be a mapping, such as {option}={{NAME: VALUE}}"
            if "is not Optional" in reason:
                reason = "must not be null"
            kind = next((said for word, said in KINDS.items() if word in reason), None)
            if kind and not isinstance(value, Container):
                option, reason = f"{option}={value}", f"must be {kind}"
                if isinstance(value, float) and value.is_integer():
                    reason += f", as in {option.partition('=')[0]}={int(value)}"
            raise ConfigError(f"{option}: {reason}") from error
    try:
        return OmegaConf.to_object(filled)
    except ConfigError as error:
        raise ConfigError(f"{prefix}{error}") from error


def _nested_in_plain(value: ListConfig, hint: Any) -> bool:
    """Are there lists or mappings in a list of numbers or words? OmegaConf does not mind."""
    plain = {int, float, str, bool} & {part for kind in _parts(hint) for part in _parts(kind)}
    return bool(plain) and any(isinstance(item, Container) for item in value)


def _parts(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) or (hint,)
