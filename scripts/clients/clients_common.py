"""What is tried with every client: a training that is saved, begun anew, loaded and ended."""

import copy
import importlib
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

import l2lgd

EXAMPLES, STEPS = 8, 6  # in a batch, over all processes; half of the steps are an epoch
CLOSE = 1e-6  # sharded and unsharded parameters


class Broken(Exception):
    """Something does not hold."""


def network() -> nn.Sequential:
    """Always the same one."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 10), nn.Tanh(), nn.Linear(10, 5), nn.Tanh(), nn.Linear(5, 2))


def batches(rank: int = 0, world: int = 1) -> list[tuple[Tensor, Tensor]]:
    """One a step: this process's inputs (…, 7) and targets (…, 2)."""
    draw = torch.Generator().manual_seed(1)
    both = torch.randn(STEPS, EXAMPLES, 9, generator=draw)[:, rank::world]
    return [(part[:, :7], part[:, 7:]) for part in both]


def run_sharded(name: str, rank: int, world: int, **options: Any) -> str:
    """A client that wraps model and optimizer: has ``begin``, ``save`` and ``load``.

    Returns:
        what holds.

    Raises:
        Broken: what does not.
    """
    client = importlib.import_module(f"client_{name.partition('-')[0]}")
    # Halves of a batch would be one whole for layers that are split themselves.
    shares = (0, 1) if name == "tensor_parallel" else (rank, world)
    mine = batches(*shares)
    model, optimizer = client.begin(network(), **options)
    _train(model, optimizer, mine[: STEPS // 2])
    client.save(model, optimizer, name)
    torch.distributed.barrier()
    _train(model, optimizer, mine[STEPS // 2 :])
    whole = _parameters(model)

    model, optimizer = client.begin(network(), **options)
    client.load(model, optimizer, name)
    _train(model, optimizer, mine[STEPS // 2 :])
    _assert_same_bits(_parameters(model), whole)

    plain = network()
    _train(plain, l2lgd.LearnedOptimizer(plain.named_parameters()), batches())
    apart = _apart(whole, _parameters(plain))

    plain = network()
    optimizer = l2lgd.LearnedOptimizer(plain.named_parameters())
    _load_unsharded(client, plain, optimizer, name)
    _train(plain, optimizer, batches()[STEPS // 2 :])
    _apart(whole, _parameters(plain))
    return f"same bits after resume; {apart:.0e} from one process"


def _load_unsharded(
    client: ModuleType, model: nn.Module, optimizer: torch.optim.Optimizer, name: str
) -> None:
    """What was saved from sharded parameters, into a model of one process."""
    if name == "distributed_checkpoint":
        client.load(model, optimizer, name)
        return
    weights, state = torch.load(name)
    nn.modules.utils.consume_prefix_in_state_dict_if_present(weights, "module.")
    model.load_state_dict(weights)
    optimizer.load_state_dict(state)


def run_alone(name: str) -> str:
    """A client with a loop of its own: has ``train``; returns and raises as above."""
    client = importlib.import_module(f"client_{name}")
    examples, whole, resumed = _examples(name), network(), network()
    client.train(whole, examples, 2, f"{name}-whole")
    client.train(network(), examples, 1, f"{name}-half")
    client.train(resumed, examples, 2, f"{name}-resumed", resume_from=f"{name}-half")
    _assert_same_bits(_parameters(resumed), _parameters(whole))
    if torch.equal(_parameters(whole)[0], _parameters(network())[0]):
        raise Broken("nothing was trained")
    return "same bits after resume"


def _examples(name: str) -> Any:
    """An epoch of them, as a client takes them."""
    half = batches()[: STEPS // 2]
    inputs, targets = (torch.cat(part) for part in zip(*half, strict=True))
    pairs = torch.utils.data.TensorDataset(inputs, targets)
    if name == "transformers":
        return [{"inputs": one, "targets": other} for one, other in pairs]
    return pairs if name == "skorch" else torch.utils.data.DataLoader(pairs, EXAMPLES)


def _train(
    model: nn.Module, optimizer: torch.optim.Optimizer, data: list[tuple[Tensor, Tensor]]
) -> None:
    for inputs, targets in data:
        optimizer.zero_grad()
        nn.functional.mse_loss(model(inputs), targets).backward()
        optimizer.step()


def _parameters(model: nn.Module) -> list[Tensor]:
    """Copies of them, whole."""
    from torch.distributed.fsdp import FullyShardedDataParallel

    with FullyShardedDataParallel.summon_full_params(model):
        found = [getattr(p, "full_tensor", lambda p=p: p)() for p in model.parameters()]
        return [copy.deepcopy(parameter.detach()) for parameter in found]


def _apart(sharded: list[Tensor], plain: list[Tensor]) -> float:
    one, other = (torch.cat([v.flatten() for v in part]) for part in (sharded, plain))
    if len(one) != len(other):
        raise Broken(f"{len(one)} numbers, and {len(other)} in one process")
    apart = float((one - other).abs().max())
    if not apart <= CLOSE:
        raise Broken(f"{apart:.1e} from the parameters of one process")
    return apart


def _assert_same_bits(after_resume: list[Tensor], whole: list[Tensor]) -> None:
    if len(after_resume) != len(whole) or not whole:
        raise Broken(f"{len(after_resume)} parameters after resume, {len(whole)} without")
    if not all(torch.equal(one, other) for one, other in zip(after_resume, whole, strict=True)):
        raise Broken("other bits after resume than without a break")
