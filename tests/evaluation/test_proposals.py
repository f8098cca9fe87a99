"""What optimizers propose along a path."""

import pytest
import torch
from helpers import HAND_DESIGNED, LEARNED, optimizer, quadratics, run_steps

from l2lgd.evaluation.proposals import Proposals, proposals
from l2lgd.tasks.base import Optimizee

STEPS, ASKED = 6, 3
COORDINATES = [0, 3, 7]
SHARING = ("mlp", "celo", "lstm_gac", "ntm_bfgs", "ntm_lbfgs", "lstm_per_group", "lstm_sub")
COORDINATEWISE = [name for name in (*HAND_DESIGNED, *LEARNED) if name not in SHARING]
INSTEAD = torch.tensor([-2.0, -0.3, 0.0, 0.3, 2.0], dtype=torch.float64)


def asked(*names: str) -> tuple[Optimizee, Proposals]:
    function = quadratics(1)
    optimizers = {name: optimizer(name) for name in names}
    return function, proposals(optimizers, function, STEPS, COORDINATES, INSTEAD, ASKED)


@pytest.mark.parametrize("leader", ["lstm", "adam"])
def test_the_first_moves_and_the_others_only_watch(leader: str) -> None:
    follower = {"lstm": "adam", "adam": "lstm"}[leader]
    function, found = asked(leader, follower)
    path = run_steps(optimizer(leader), function, STEPS)
    torch.testing.assert_close(found.updates[leader], path.diff(dim=0)[:, 0, COORDINATES])
    watcher = optimizer(follower)
    state = watcher.initial_state(path[0])
    for step in range(STEPS):
        _, gradient = function.loss_and_gradient(path[step], step)
        torch.testing.assert_close(found.gradients[step], gradient[0, COORDINATES])
        with torch.no_grad():
            update, state = watcher.step(gradient, state)
        torch.testing.assert_close(found.updates[follower][step], update[0, COORDINATES])


@pytest.mark.parametrize("name", COORDINATEWISE)
def test_at_the_first_step_all_coordinates_answer_alike(name: str) -> None:
    _, found = asked(name)
    first, later = found.responses[name][0], found.responses[name][-1]
    torch.testing.assert_close(first, first[:1].expand_as(first), rtol=0, atol=1e-12)
    assert not first.equal(torch.zeros_like(first))
    if name != "sgd":  # which has no state
        assert (later[0] - later[1]).abs().max() > 1e-9


def test_the_answer_to_the_true_gradient_is_the_update() -> None:
    for name in ("lstm", "adam", "ntm_bfgs"):
        function, found = asked(name)
        for k, coordinate in enumerate(COORDINATES):
            true = found.gradients[:ASKED, k]
            again = proposals({name: optimizer(name)}, function, STEPS, [coordinate], true, ASKED)
            answers = again.responses[name][:, 0].diagonal()
            torch.testing.assert_close(answers, found.updates[name][:ASKED, k])
            torch.testing.assert_close(again.updates[name][:, 0], found.updates[name][:, k])
