"""timm: its parameter groups, its schedulers and its Lookahead."""

import timm.optim
import timm.scheduler
import torch

import l2lgd


def train(network, loader, epochs, path, resume_from=None):
    groups = timm.optim.param_groups_weight_decay(network, weight_decay=1e-5)
    optimizer = timm.optim.Lookahead(l2lgd.LearnedOptimizer(groups), k=2)
    schedule = timm.scheduler.CosineLRScheduler(optimizer, t_initial=10)
    done = 0
    if resume_from:
        weights, state, done = torch.load(resume_from)
        network.load_state_dict(weights)
        optimizer.load_state_dict(state)
    for epoch in range(done, epochs):
        schedule.step(epoch)
        for inputs, targets in loader:
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(network(inputs), targets).backward()
            optimizer.step()
    torch.save([network.state_dict(), optimizer.state_dict(), epochs], path)
