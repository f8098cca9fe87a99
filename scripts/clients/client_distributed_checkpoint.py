"""torch.distributed.checkpoint: every process writes its shards, and reads what it needs."""

import torch
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import (
    get_state_dict,
    set_state_dict,
)
from torch.distributed.fsdp import fully_shard

import l2lgd


def begin(model):
    mesh = torch.distributed.init_device_mesh("cpu", (2,))
    model = fully_shard(model, mesh=mesh)
    return model, l2lgd.LearnedOptimizer(model.named_parameters())


def save(model, optimizer, path):
    weights, state = get_state_dict(model, optimizer)
    whole = {"model_state_dict": weights, "optim_state_dict": state}
    checkpoint.save(whole, checkpoint_id=path)


def load(model, optimizer, path):
    weights, state = get_state_dict(model, optimizer)  # to read into
    whole = {"model_state_dict": weights, "optim_state_dict": state}
    checkpoint.load(whole, checkpoint_id=path)
    set_state_dict(model, optimizer, **whole)
