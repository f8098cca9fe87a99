"""What may be tuned of an optimizer besides its learning rate, and between which values.

An optimizer checks its search space and keeps it; it does not search.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from l2lgd.errors import ConfigError, nearest
from l2lgd.optimizers.rate_schedules import known_schedule

# learning_rate: [lowest, highest], of which logarithms are uniform; others: their choices.
SearchSpace: TypeAlias = dict[str, list[Any]]


def known_space(space: Mapping[str, Any] | None) -> SearchSpace | None:
    """A search space, its names and values checked.

    Args:
        space: some of ``learning_rate`` ([lowest, highest]), ``schedule``, ``weight_decay`` and
            ``beta2`` (lists of choices; null is the library's default); None where none is given.

    Raises:
        ConfigError: another name, no list, or a value that cannot be.
    """
    if space is None:
        return None
    for name, values in space.items():
        if name not in CHECKS:
            raise ConfigError(f"space.{name}: cannot be tuned{nearest(str(name), CHECKS)}")
        if not isinstance(values, list | tuple) or not values:
            raise ConfigError(f"space.{name}={values}: must be a list of values")
        CHECKS[name](name, list(values))
    return {name: list(values) for name, values in space.items()}


def known_decay(name: str, value: object) -> None:
    """Raise ConfigError unless ``value`` is None or a number from 0 on."""
    if value is not None and not (_is_number(value) and value >= 0):  # type: ignore[operator]
        raise ConfigError(f"{name}={value}: must be a number that is not negative, or null")


def known_beta(name: str, value: object) -> None:
    """Raise ConfigError unless ``value`` is None or a number from 0 to below 1."""
    if value is not None and not (_is_number(value) and 0 <= value < 1):  # type: ignore[operator]
        raise ConfigError(f"{name}={value}: must be from 0 to below 1, or null")


def _bounds(name: str, values: list[Any]) -> None:
    wanted = len(values) == 2 and all(map(_is_number, values))
    if not wanted or not 0 < values[0] < values[1]:
        raise ConfigError(
            f"space.{name}={list(values)}: must be [lowest, highest], both positive, such as "
            "[1.0e-4, 1.0]"
        )


def _schedules(name: str, values: list[Any]) -> None:
    for value in values:
        try:
            known_schedule(value)
        except ConfigError as error:
            raise ConfigError(f"space.{error}") from error


def _each(check: Callable[[str, object], None]) -> Callable[[str, list[Any]], None]:
    def all_of_them(name: str, values: list[Any]) -> None:
        for value in values:
            check(f"space.{name}", value)

    return all_of_them


CHECKS: dict[str, Callable[[str, list[Any]], None]] = {
    "learning_rate": _bounds,
    "schedule": _schedules,
    "weight_decay": _each(known_decay),
    "beta2": _each(known_beta),
}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
