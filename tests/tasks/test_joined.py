"""Functions of several draws in one stack are the functions that they were."""

from typing import Any

import pytest
import torch
from helpers import OPTIMIZEES, classifiers, quadratics

from l2lgd.errors import ConfigError
from l2lgd.tasks.joined import Joined, join

BEGUN = (0, 3, 5)


def parts(name: str) -> list[Any]:
    whole = OPTIMIZEES[name](4)
    return [whole.select(rows) for rows in (slice(0, 1), slice(1, 3), slice(3, 4))]


@pytest.mark.parametrize("by_itself", [True, False])
@pytest.mark.parametrize("name", OPTIMIZEES)
def test_losses_are_those_of_the_parts(name: str, by_itself: bool) -> None:
    own = parts(name)
    found = (Joined if by_itself else join)([*own, own[0]], [*BEGUN, BEGUN[0]])
    assert isinstance(found, Joined) == by_itself
    expected = [
        part.loss_and_gradient(part.initial_parameters, 7 - begun)
        for part, begun in zip(own, BEGUN, strict=True)
    ]
    expected.append(expected[0])
    for prefetched in (False, True):
        if prefetched:
            found.prefetch(range(6, 9))
        loss, gradient = found.loss_and_gradient(found.initial_parameters, 7)
        torch.testing.assert_close(loss, torch.cat([pair[0] for pair in expected]))
        torch.testing.assert_close(gradient, torch.cat([pair[1] for pair in expected]))
    torch.testing.assert_close(found.loss(found.initial_parameters, 7), loss)
    some = found.select(slice(1, 4))
    torch.testing.assert_close(some.loss(some.initial_parameters, 7), loss[1:4])


def test_functions_of_other_tensors_cannot_be_joined() -> None:
    with pytest.raises(ConfigError, match="differ in their parameter tensors cannot be stacked"):
        join([quadratics(1), classifiers(1)], [0, 0])


def test_classifiers_on_other_data_are_evaluated_by_themselves() -> None:
    own, other = classifiers(1), classifiers(1)
    assert own.joined([own, own], [0, 0]) is not None
    assert own.joined([own, other], [0, 0]) is None
    found = join([own, other], [0, 2])
    assert isinstance(found, Joined)
