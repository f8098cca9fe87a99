"""torch.distributed.checkpoint: every process writes its shards and reads what it needs."""

import torch
from torch.distributed import checkpoint
from torch.distributed.checkpoint import state_dict as states
from torch.distributed.fsdp import fully_shard

import l2lgd


def begin(model):
    model = fully_shard(model, mesh=torch.distributed.init_device_mesh("cpu", (2,)))
    return model, l2lgd.LearnedOptimizer(model.named_parameters())


def save(model, optimizer, path):
    weights, state = states.get_state_dict(model, optimizer)
    checkpoint.save({"model": weights, "optimizer": state}, checkpoint_id=path)


def load(model, optimizer, path):
    weights, state = states.get_state_dict(model, optimizer)  # where to read into
    checkpoint.load({"model": weights, "optimizer": state}, checkpoint_id=path)
    states.set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=state)
