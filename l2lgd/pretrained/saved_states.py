"""States as :meth:`LearnedOptimizer.state_dict` has them, for others to store and to hand back."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from l2lgd.errors import CheckpointError
from l2lgd.pretrained import older_states
from l2lgd.pretrained.assignment import Assignment
from l2lgd.pretrained.layout import Entry
from l2lgd.pretrained.placing import Steppers
from l2lgd.pretrained.sharding import is_flattened, real, real_shape

Groups = Sequence[Mapping[str, Any]]


def refuse_others(given: Mapping[str, Any], groups: Groups, assignment: Assignment) -> None:
    """Say where a state is not of the groups that are to have it.

    Raises:
        CheckpointError: it is of other weights, or of another optimizer.
        ValueError: it is of other numbers of parameters.
    """
    for group, theirs in zip(groups, given["param_groups"], strict=False):
        counts = [len(each["params"]) for each in (theirs, group)]
        if counts[0] != counts[1]:
            raise ValueError("the state is of a group of {} parameters, not of {}".format(*counts))
        if "weights_digest" not in theirs:
            raise CheckpointError(
                "the state is of another optimizer: LearnedOptimizer goes on with its own states"
            )
        if theirs["weights_digest"] == group["weights_digest"]:
            continue
        older = older_states.signature(assignment.functions(group), assignment.optimizers)
        if theirs["weights_digest"] != older:
            raise CheckpointError(
                f"the state is of weights {theirs.get('weights')}, not of {group['weights']}"
            )


def of_today(
    given: Mapping[str, Any], groups: Groups, assignment: Assignment, steppers: Steppers
) -> dict[str, Any]:
    """A state of whatever version, and of whatever form, as one of this version."""
    state = dict(given["state"])
    for group, theirs in zip(groups, given["param_groups"], strict=False):
        for function in assignment.functions(group):
            home = state.get(theirs["params"][function.indices[0]], {})
            if older_states.is_older(home):
                parameters = [group["params"][index] for index in function.indices]
                stepper = steppers.on(function, parameters)
                owned = [real(parameter) for parameter in parameters]
                size = stepper.block_size(theirs["block_size"], owned)
                parts = older_states.brought_up(home, owned, stepper, size)
                for index, part in zip(function.indices, parts, strict=True):
                    state[theirs["params"][index]] = part
        for index, entries in steppers.entries_of(group).items():
            place = theirs["params"][index]
            if place in state:
                state[place] = _joined(state[place], entries)
    return {**given, "state": state}


def for_fsdp1(state: dict[str, Any], groups: Groups, steppers: Steppers) -> dict[str, Any]:
    """With the states of FSDP1's parameters in tensors of exactly their shape."""
    for group, saved in zip(groups, state["param_groups"], strict=True):
        for index, entries in steppers.entries_of(group).items():
            parameter, place = group["params"][index], saved["params"][index]
            if is_flattened(parameter) and place in state["state"]:
                own = state["state"][place]
                state["state"][place] = _split(own, entries, real_shape(parameter))
    return state


def _split(state: Mapping[str, Any], entries: Sequence[Entry], shape: torch.Size) -> dict[str, Any]:
    """A parameter's state as tensors of its shape alone: ``hidden_0`` as ``hidden_0_0``, …"""
    found = dict(state)
    for entry in entries:
        if entry.name in found and entry.axis is not None and entry.behind(1):
            whole = found.pop(entry.name).flatten(len(shape))
            found |= {f"{entry.name}_{index}": part for index, part in enumerate(whole.unbind(-1))}
    return found


def _joined(state: Mapping[str, Any], entries: Sequence[Entry]) -> dict[str, Any]:
    """Undo :func:`_split`, where a state is so."""
    found = dict(state)
    for entry in entries:
        behind = torch.Size(entry.behind(1))
        names = [f"{entry.name}_{index}" for index in range(behind.numel())]
        if entry.axis is not None and behind and all(name in found for name in names):
            whole = torch.stack([found.pop(name) for name in names]).unflatten(0, behind)
            order = (*range(len(behind), whole.dim()), *range(len(behind)))
            found[entry.name] = whole.permute(order)
    return found
