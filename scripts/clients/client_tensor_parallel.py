"""Tensor parallelism: the layers of a network are split over processes."""

import torch
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

import l2lgd


def begin(model):
    mesh = torch.distributed.init_device_mesh("cpu", (2,))
    plan = {"0": ColwiseParallel(), "2": RowwiseParallel()}
    model = parallelize_module(model, mesh, plan)
    return model, l2lgd.LearnedOptimizer(model.named_parameters())


# not on the page
from client_fsdp2 import load, save  # noqa: E402, F401
