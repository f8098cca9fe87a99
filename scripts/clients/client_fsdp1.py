"""FullyShardedDataParallel, the first version of FSDP."""

import torch
from torch.distributed import fsdp

import l2lgd

FULL = (
    fsdp.StateDictType.FULL_STATE_DICT,
    fsdp.FullStateDictConfig(),
    fsdp.FullOptimStateDictConfig(offload_to_cpu=False),
)


def begin(model, use_orig_params=True):
    device = torch.device("cpu")
    model = fsdp.FullyShardedDataParallel(model, use_orig_params=use_orig_params, device_id=device)
    return model, l2lgd.LearnedOptimizer(model.named_parameters())


def save(model, optimizer, path):
    with fsdp.FullyShardedDataParallel.state_dict_type(model, *FULL):
        weights = model.state_dict()
        state = fsdp.FullyShardedDataParallel.optim_state_dict(model, optimizer)
    if torch.distributed.get_rank() == 0:
        torch.save([weights, state], path)


def load(model, optimizer, path):
    weights, state = torch.load(path)
    with fsdp.FullyShardedDataParallel.state_dict_type(model, *FULL):
        model.load_state_dict(weights)
        state = fsdp.FullyShardedDataParallel.optim_state_dict_to_load(model, optimizer, state)
    optimizer.load_state_dict(state)
