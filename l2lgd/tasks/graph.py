"""A graph convolutional network (Kipf and Welling 2017) that says the classes of nodes."""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from l2lgd.data.examples import Examples, counts
from l2lgd.data.graphs import karate_club
from l2lgd.errors import ConfigError
from l2lgd.tasks.base import Split
from l2lgd.tasks.layers import Activation, at_least_one, known_activation
from l2lgd.tasks.module import Modules, ModuleTask


class GraphNetwork(nn.Module):
    """Layers that average over neighbours, then map linearly; nodes have one-hot features.

    Args:
        adjacency: of the graph (N, N).
        widths: units of hidden layers, and last the number of classes.
        activation: one of ``ACTIVATIONS``.
        penalty: on half the squared weights of the first layer, as in section 5.2 of the paper.
    """

    propagation: Tensor  # D^(−1/2) (A + 1) D^(−1/2), (N, N)

    def __init__(
        self, adjacency: Tensor, widths: list[int], activation: str, penalty: float
    ) -> None:
        super().__init__()
        with_itself = adjacency + torch.eye(len(adjacency))
        root = with_itself.sum(1).rsqrt()
        self.register_buffer("propagation", root.unsqueeze(1) * with_itself * root)
        pairs = itertools.pairwise([len(adjacency), *widths])
        self.layers = nn.ModuleList(nn.Linear(inputs, outputs) for inputs, outputs in pairs)
        self.activation, self.penalty = Activation(activation), penalty

    def forward(self, nodes: Tensor, classes: Tensor) -> Tensor:
        """The cross-entropy of the classes (batch,) of nodes (batch,), and the penalty, ()."""
        squares = next(self.layers.parameters()).square().sum()
        loss = functional.cross_entropy(self.logits(nodes), classes)
        return loss + 0.5 * self.penalty * squares

    def logits(self, nodes: Tensor) -> Tensor:
        """Nodes (batch,) → logits of their classes (batch, classes)."""
        first, *others = self.layers
        features: Tensor = first(self.propagation)  # of the features, which are the identity
        for layer in others:
            features = layer(self.propagation @ self.activation(features))
        return features[nodes]


class GraphTask(ModuleTask):
    """Graph convolutional networks on Zachary's karate club, on all that they see at every step.

    Functions differ in whose class they see. They know all edges, whatever their split.

    Args:
        hidden_layers: units of each hidden layer.
        activation: ``sigmoid``, ``relu``, ``tanh`` or ``gelu``.
        labelled: nodes of its split whose class a function sees, drawn at random.
        penalty: on half the squared weights of the first layer, so that the least loss is not 0.
    """

    def __init__(
        self,
        name: str,
        hidden_layers: list[int],
        activation: str = "relu",
        labelled: int = 8,
        penalty: float = 5e-4,
    ) -> None:
        at_least_one(hidden_layers=hidden_layers, labelled=labelled)
        self._graph = karate_club()
        self._nodes = self._graph.divided()
        most = min(map(len, self._nodes.values()))
        if labelled > most:
            raise ConfigError(f"labelled={labelled}: there are {most} nodes in a split")
        if not penalty >= 0:
            raise ConfigError(f"penalty={penalty}: must not be negative")
        super().__init__(name, self.build, "module", dataset=self.nodes, batch_size=None)
        self.hidden_layers, self.labelled, self.penalty = list(hidden_layers), labelled, penalty
        self.activation = known_activation(activation)

    def build(self) -> GraphNetwork:
        """A module with weights of PyTorch's own generator."""
        widths = [*self.hidden_layers, int(self._graph.labels.max()) + 1]
        return GraphNetwork(self._graph.adjacency(), widths, self.activation, self.penalty)

    def nodes(self) -> dict[str, Examples]:
        """Nodes of each split, and their classes."""
        return {split: (own, self._graph.labels[own]) for split, own in self._nodes.items()}

    def sample(self, split: Split, num_functions: int, generator: torch.Generator) -> Modules:
        functions = super().sample(split, num_functions, generator)
        order = torch.rand(num_functions, len(self._nodes[split]), generator=generator).argsort(1)
        return functions.on((order[:, : self.labelled].to(self.device),))

    def data_description(self) -> dict[str, object]:
        return {"name": "karate_club", "source": "l2lgd", "num_examples": counts(self._examples)}
