"""fully_shard, the second version of FSDP: parameters and states are DTensors."""

import torch
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.fsdp import fully_shard

import l2lgd

WHOLE = StateDictOptions(full_state_dict=True)


def begin(model):
    mesh = torch.distributed.init_device_mesh("cpu", (2,))
    for layer in model:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model, l2lgd.LearnedOptimizer(model.named_parameters())


def save(model, optimizer, path):
    weights, state = get_state_dict(model, optimizer, options=WHOLE)
    if torch.distributed.get_rank() == 0:
        torch.save([weights, state], path)


def load(model, optimizer, path):
    weights, state = torch.load(path)
    whole = {"model_state_dict": weights, "optim_state_dict": state}
    set_state_dict(model, optimizer, **whole, options=WHOLE)
