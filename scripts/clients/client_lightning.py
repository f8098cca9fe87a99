"""Lightning saves and restores the state with its own checkpoints."""

import lightning
import torch

import l2lgd


class Regression(lightning.LightningModule):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def training_step(self, batch, index):
        inputs, targets = batch
        return torch.nn.functional.mse_loss(self.network(inputs), targets)

    def configure_optimizers(self):
        return l2lgd.LearnedOptimizer(self.named_parameters())


def train(network, loader, epochs, path, resume_from=None):
    trainer = lightning.Trainer(max_epochs=epochs, accelerator="cpu")
    trainer.fit(Regression(network), loader, ckpt_path=resume_from)
    trainer.save_checkpoint(path)
