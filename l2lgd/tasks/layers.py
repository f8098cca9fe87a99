"""Layers that several of the tasks' modules are made of; they have second derivatives."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from l2lgd.errors import ConfigError
from l2lgd.tasks.classification import ACTIVATIONS


class Activation(nn.Module):
    """One of ``ACTIVATIONS``, by its name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.function = ACTIVATIONS[name]

    def forward(self, inputs: Tensor) -> Tensor:
        """The same shape."""
        return self.function(inputs)


class TransformerBlock(nn.Module):
    """Self-attention, then a perceptron, each with layer normalisation before it.

    Attention is written out, since PyTorch's fused ones have no second derivatives.

    Args:
        width: numbers at each position.
        heads: of the attention; they divide the width.
        expansion: hidden units of the perceptron, in units of the width.
        causal: each position sees those before it and itself alone.
    """

    def __init__(self, width: int, heads: int, expansion: int = 2, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.attention_norm = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, expansion * width), nn.GELU(), nn.Linear(expansion * width, width)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, positions, width) → the same."""
        tokens = tokens + self.attended(self.attention_norm(tokens))
        found: Tensor = tokens + self.mlp(self.mlp_norm(tokens))
        return found

    def attended(self, tokens: Tensor) -> Tensor:
        """Multi-head attention (Vaswani et al. 2017, section 3.2)."""
        parts = self.queries_keys_values(tokens).unflatten(2, (3, self.heads, -1))
        queries, keys, values = parts.permute(2, 0, 3, 1, 4).unbind()  # (batch, heads, T, width)
        scores = queries @ keys.mT / keys.shape[-1] ** 0.5
        if self.causal:
            count = tokens.shape[1]
            later = torch.ones(count, count, dtype=torch.bool, device=tokens.device).triu(1)
            scores = scores.masked_fill(later, float("-inf"))
        mixed = scores.softmax(-1) @ values
        found: Tensor = self.projection(mixed.transpose(1, 2).flatten(2))
        return found


def perceptron(widths: Sequence[int], activation: str, layer_norm: bool = False) -> nn.Sequential:
    """Fully connected layers, with activations between them; of two widths, a linear map.

    Args:
        widths: of the inputs, of hidden layers, and of the outputs.
        activation: one of ``ACTIVATIONS``.
        layer_norm: normalise hidden layers before the activation.
    """
    layers: list[nn.Module] = [nn.Linear(widths[0], widths[1])]
    for inputs, outputs in itertools.pairwise(widths[1:]):
        if layer_norm:
            layers.append(nn.LayerNorm(inputs))
        layers += [Activation(activation), nn.Linear(inputs, outputs)]
    return nn.Sequential(*layers)


def known_activation(name: str) -> str:
    """The name.

    Raises:
        ConfigError: there is no such activation.
    """
    if name not in ACTIVATIONS:
        raise ConfigError(f"activation={name}: choose one of {', '.join(ACTIVATIONS)}")
    return name


def at_least_one(**options: int | Sequence[int]) -> None:
    """Check options that count something, alone or in a list.

    Raises:
        ConfigError: one is below 1.
    """
    for name, value in options.items():
        if any(count < 1 for count in ([value] if isinstance(value, int) else value)):
            raise ConfigError(f"{name}={value}: must be at least 1")


def divided_by_heads(width: int, heads: int) -> None:
    """Check that attention's heads can have equal parts of the width.

    Raises:
        ConfigError: they cannot.
    """
    at_least_one(width=width, heads=heads)
    if width % heads:
        raise ConfigError(f"heads={heads}: must divide width={width}")
