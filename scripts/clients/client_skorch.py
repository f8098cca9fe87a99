"""skorch builds the optimizer itself, from the options that begin with optimizer__."""

import skorch

import l2lgd


def train(network, examples, epochs, path, resume_from=None):
    net = skorch.NeuralNetRegressor(
        network,
        optimizer=l2lgd.LearnedOptimizer,
        optimizer__weights="mnist-lstm_mixture",
        lr=1.0,
        batch_size=8,
        train_split=None,
        verbose=0,
    )
    net.initialize()
    done = 0
    if resume_from:
        net.load_params(f"{resume_from}.pt", f"{resume_from}.opt.pt")
        done = epochs - 1
    net.partial_fit(examples, epochs=epochs - done)
    net.save_params(f"{path}.pt", f"{path}.opt.pt")
