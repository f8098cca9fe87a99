"""accelerate prepares the optimizer as any other, and saves its state."""

import accelerate
import torch

import l2lgd


def train(network, loader, epochs, path, resume_from=None):
    accelerator = accelerate.Accelerator(cpu=True)
    optimizer = l2lgd.LearnedOptimizer(network.named_parameters())
    network, optimizer, loader = accelerator.prepare(network, optimizer, loader)
    done = 0
    if resume_from:
        accelerator.load_state(resume_from)
        done = epochs - 1
    for _ in range(done, epochs):
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(network(inputs), targets)
            accelerator.backward(loss)
            optimizer.step()
    accelerator.save_state(path)
