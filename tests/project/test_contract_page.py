"""docs/how-to/extend.md has every method and argument of what a user may derive from."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from l2lgd import ImageTask, LearnedRule, Network, Optimizee, Optimizer, Task, TunedOptimizer

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "extend.md").read_text("utf-8")
CODE = set(re.findall(r"`([^`\n]+)`", PAGE))
CONTRACT = (Task, Optimizee, Optimizer, LearnedRule, TunedOptimizer)


def members(kind: type) -> Iterator[str]:
    """What a class has for itself, as the page writes it: a method with its arguments."""
    for name in {**vars(kind), **inspect.get_annotations(kind)}:
        if name.startswith("_"):
            continue
        value = vars(kind).get(name)
        if inspect.isfunction(value):
            arguments = list(inspect.signature(value).parameters)[1:]
            yield f"{name}({', '.join(arguments)})"
        else:
            yield name


def missing(kind: type) -> list[str]:
    return [name for name in members(kind) if not {name, f"{kind.__name__}.{name}"} & CODE]


@pytest.mark.parametrize("kind", CONTRACT, ids=lambda kind: kind.__name__)
def test_every_method_and_argument_of_the_contract_is_on_the_page(kind: type) -> None:
    assert not missing(kind)


def test_a_method_that_is_not_on_the_page_is_noticed() -> None:
    class More(Task):
        note: str

        def extra(self, one: int) -> None: ...

        def setup(self, data_dir, device, other): ...  # type: ignore[no-untyped-def,override]

    assert missing(More) == ["extra(one)", "setup(data_dir, device, other)", "note"]


@pytest.mark.parametrize("kind", [ImageTask, Network], ids=lambda kind: kind.__name__)
def test_what_an_image_task_has_to_write_and_may_be_given_is_on_the_page(kind: type) -> None:
    text = set(re.findall(r"\w+", PAGE))
    named = [*kind.__abstractmethods__, *inspect.signature(kind.__init__).parameters]
    assert set(named) - {"self", "args", "kwargs"} <= text
