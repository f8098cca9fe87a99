"""What a task says of its data; see :meth:`l2lgd.tasks.base.Task.data_description`."""

from collections.abc import Mapping

from l2lgd.errors import ConfigError

SPLITS = ("train", "validation", "test")


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
    return dict(found)
