"""FullyShardedDataParallel, the first version of FSDP."""

import torch
from torch.distributed import fsdp
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP

import l2lgd

WHOLE = (
    fsdp.StateDictType.FULL_STATE_DICT,
    fsdp.FullStateDictConfig(),
    fsdp.FullOptimStateDictConfig(offload_to_cpu=False),
)


def begin(model, use_orig_params=True):
    model = FSDP(
        model,
        use_orig_params=use_orig_params,
        device_id=torch.device("cpu"),
    )
    return model, l2lgd.LearnedOptimizer(model.named_parameters())


def save(model, optimizer, path):
    with FSDP.state_dict_type(model, *WHOLE):
        weights = model.state_dict()
        state = FSDP.optim_state_dict(model, optimizer)
    if torch.distributed.get_rank() == 0:
        torch.save([weights, state], path)


def load(model, optimizer, path):
    weights, state = torch.load(path)
    with FSDP.state_dict_type(model, *WHOLE):
        model.load_state_dict(weights)
        state = FSDP.optim_state_dict_to_load(model, optimizer, state)
    optimizer.load_state_dict(state)
