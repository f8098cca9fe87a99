"""What a task says of its data; see :meth:`l2lgd.tasks.base.Task.data_description`."""

import json
from collections.abc import Mapping

from l2lgd.data.splits import SPLITS
from l2lgd.errors import ConfigError


def checked(found: object) -> dict[str, object] | None:
    """A description of data, as it is.

    Raises:
        ConfigError: it has not the parts that summaries and captions are made of.
    """
    if found is None:
        return None
    if not isinstance(found, Mapping):
        raise ConfigError(
            f"data_description is {type(found).__name__}: it must be a dict, or None for a task "
            "without data"
        )
    for name in ("name", "source"):
        if not isinstance(found.get(name), str):
            raise ConfigError(f"data_description has no {name}: it must say, in a string")
    numbers = found.get("num_examples")
    if not isinstance(numbers, Mapping) or set(numbers) != set(SPLITS):
        raise ConfigError(
            "data_description has no num_examples of each split, as in {'train': 800, "
            "'validation': 100, 'test': 100}"
        )
    for split, number in numbers.items():
        if type(number) is not int or number < 0:
            raise ConfigError(
                f"data_description: num_examples of {split} is {_shown(number)}, and must be a "
                "whole number"
            )
    for name, entry in found.items():
        try:
            json.dumps({name: entry})
        except (TypeError, ValueError) as error:  # results are kept as JSON
            raise ConfigError(
                f"data_description: {name} is {_shown(entry)}, which JSON has not; make it of "
                "strings, numbers, lists and dicts"
            ) from error
    return dict(found)


def _shown(entry: object) -> str:
    return str(entry) if isinstance(entry, str | int | float) else type(entry).__name__
