"""Tensor parallelism: the layers of a network are split over processes."""

import torch
from torch.distributed.checkpoint import state_dict as states
from torch.distributed.tensor import parallel

import l2lgd

WHOLE = states.StateDictOptions(full_state_dict=True)


def begin(model):
    mesh = torch.distributed.init_device_mesh("cpu", (2,))
    plan = {"0": parallel.ColwiseParallel(), "2": parallel.RowwiseParallel()}
    model = parallel.parallelize_module(model, mesh, plan)
    return model, l2lgd.LearnedOptimizer(model.named_parameters())


def save(model, optimizer, path):
    weights, state = states.get_state_dict(model, optimizer, options=WHOLE)
    if torch.distributed.get_rank() == 0:
        torch.save([weights, state], path)


def load(model, optimizer, path):
    weights, state = torch.load(path)
    states.set_state_dict(
        model,
        optimizer,
        model_state_dict=weights,
        optim_state_dict=state,
        options=WHOLE,
    )
