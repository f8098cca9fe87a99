"""ZeroRedundancyOptimizer: every process has the state of some parameters."""

import torch
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel

import l2lgd


def begin(model):
    model = DistributedDataParallel(model)
    optimizer = ZeroRedundancyOptimizer(
        model.parameters(),
        l2lgd.LearnedOptimizer,
    )
    return model, optimizer


def save(model, optimizer, path):
    optimizer.consolidate_state_dict(to=0)
    if torch.distributed.get_rank() == 0:
        torch.save([model.state_dict(), optimizer.state_dict()], path)


# not on the page
from client_ddp import load  # noqa: E402, F401
