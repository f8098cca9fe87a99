"""DistributedDataParallel: every process has all of the state."""

import torch
from torch.nn.parallel import DistributedDataParallel

import l2lgd


def begin(model):
    model = DistributedDataParallel(model)
    return model, l2lgd.LearnedOptimizer(model.named_parameters())


def save(model, optimizer, path):
    if torch.distributed.get_rank() == 0:
        torch.save([model.state_dict(), optimizer.state_dict()], path)


def load(model, optimizer, path):
    weights, state = torch.load(path)
    model.load_state_dict(weights)
    optimizer.load_state_dict(state)
