"""The Trainer of transformers takes an optimizer and saves its state with its checkpoints."""

import torch
import transformers

import l2lgd


class Regression(torch.nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, inputs, targets):
        return {"loss": torch.nn.functional.mse_loss(self.network(inputs), targets)}


def train(network, examples, epochs, path, resume_from=None):
    model = Regression(network)
    options = transformers.TrainingArguments(
        output_dir=path,
        num_train_epochs=epochs,
        save_strategy="epoch",
        lr_scheduler_type="constant",
    )
    optimizer = l2lgd.LearnedOptimizer(model.named_parameters())
    trainer = transformers.Trainer(
        model, options, train_dataset=examples, optimizers=(optimizer, None)
    )
    last = resume_from and transformers.trainer_utils.get_last_checkpoint(resume_from)
    trainer.train(resume_from_checkpoint=last)
