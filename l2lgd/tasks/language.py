"""Character language models: what comes after each character of a text."""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from l2lgd.data.examples import Examples
from l2lgd.data.text import load_sequences
from l2lgd.errors import ConfigError
from l2lgd.tasks.layers import TransformerBlock, at_least_one, divided_by_heads
from l2lgd.tasks.module import ModuleTask


class GRULanguageModel(nn.Module):
    """Embedding, one layer of ``nn.GRUCell``'s equations, and logits.

    The cell is written out, since vmap runs ``nn.GRUCell`` one function after the other.

    Args:
        alphabet: numbers that characters have.
        width: of embeddings and of the state.
    """

    def __init__(self, alphabet: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(alphabet, width)
        self.inputs = nn.Linear(width, 3 * width)
        self.hidden = nn.Linear(width, 3 * width)
        self.logits = nn.Linear(width, alphabet)

    def forward(self, characters: Tensor) -> Tensor:
        """(batch, T) → (batch, T, alphabet)."""
        inputs = self.inputs(self.embedding(characters))  # of all times at once
        width = inputs.shape[2] // 3
        gates, candidates = inputs.split([2 * width, width], dim=2)
        state = torch.zeros_like(candidates[:, 0])
        states = []
        for gate, candidate in zip(gates.unbind(1), candidates.unbind(1), strict=True):
            gate_of_state, recurrent = self.hidden(state).split([2 * width, width], dim=1)
            reset, update = (gate + gate_of_state).sigmoid().chunk(2, dim=1)
            proposal = (candidate + reset * recurrent).tanh()
            state = proposal + update * (state - proposal)
            states.append(state)
        found: Tensor = self.logits(torch.stack(states, 1))
        return found


class TransformerLanguageModel(nn.Module):
    """Causal transformer blocks on embeddings and learned positions.

    Args:
        alphabet: numbers that characters have.
        length: of sequences.
    """

    def __init__(self, alphabet: int, length: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(alphabet, width)
        self.positions = nn.Parameter(0.02 * torch.randn(length, width))
        nn.init.normal_(self.embedding.weight, std=0.02)  # as GPT-2's
        blocks = (TransformerBlock(width, heads, causal=True) for _ in range(depth))
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width)
        self.logits = nn.Linear(width, alphabet)

    def forward(self, characters: Tensor) -> Tensor:
        """(batch, T) → (batch, T, alphabet)."""
        tokens = self.embedding(characters) + self.positions
        found: Tensor = self.logits(self.norm(self.blocks(tokens)))
        return found


class LanguageTask(ModuleTask):
    """What both tasks share: the text.

    Args:
        file: the text, in UTF-8; None for the source of Python's standard library.
        characters: of the text in use, at most those of a file.
        length: T, of a sequence.
        alphabet: the most frequent characters have a number of their own, all others share one;
            so many numbers.
        batch_size: sequences in a minibatch; None for all of them at every step.
    """

    not_in_keys = ("file",)  # the description has its name and digest

    def __init__(
        self,
        name: str,
        file: str | None,
        characters: int,
        length: int,
        alphabet: int,
        batch_size: int | None,
    ) -> None:
        at_least_one(characters=characters, length=length)
        if alphabet < 2:
            raise ConfigError(f"alphabet={alphabet}: must be at least 2")
        super().__init__(name, self.build, dataset=self.splits, batch_size=batch_size)
        self.file, self.characters, self.length = file, characters, length
        self.alphabet = alphabet

    @abstractmethod
    def build(self) -> nn.Module:
        """A module with weights of PyTorch's own generator, once the text is loaded."""

    def splits(self) -> dict[str, Examples]:
        """Sequences of separate stretches of the text."""
        found = load_sequences(self.file, self.characters, self.length, self.alphabet)
        self._text = found.description
        return found.parts

    def data_description(self) -> dict[str, object]:
        return self._text


class GRULanguageTask(LanguageTask):
    """Character language models with one layer of gated recurrent units (Cho et al. 2014).

    Args:
        file: the text, in UTF-8; None for the source of Python's standard library.
        characters: of the text in use, at most those of a file.
        length: T, of a sequence; each begins with a state of zeros.
        alphabet: numbers that characters have; all that are rare share one.
        width: of embeddings and of the state.
        batch_size: sequences in a minibatch; None for all of them at every step.
    """

    def __init__(
        self,
        name: str,
        file: str | None = None,
        characters: int = 1_000_000,
        length: int = 24,
        alphabet: int = 64,
        width: int = 32,
        batch_size: int | None = 16,
    ) -> None:
        at_least_one(width=width)
        super().__init__(name, file, characters, length, alphabet, batch_size)
        self.width = width

    def build(self) -> GRULanguageModel:
        """See :class:`LanguageTask`."""
        return GRULanguageModel(self.alphabet, self.width)


class TransformerLanguageTask(LanguageTask):
    """Character language models with a transformer (Vaswani et al. 2017), normalised before.

    Args:
        file: the text, in UTF-8; None for the source of Python's standard library.
        characters: of the text in use, at most those of a file.
        length: T, of a sequence.
        alphabet: numbers that characters have; all that are rare share one.
        width: of embeddings.
        depth: blocks.
        heads: of the attention.
        batch_size: sequences in a minibatch; None for all of them at every step.
    """

    def __init__(
        self,
        name: str,
        file: str | None = None,
        characters: int = 1_000_000,
        length: int = 24,
        alphabet: int = 64,
        width: int = 32,
        depth: int = 2,
        heads: int = 2,
        batch_size: int | None = 16,
    ) -> None:
        divided_by_heads(width, heads)
        at_least_one(depth=depth)
        super().__init__(name, file, characters, length, alphabet, batch_size)
        self.width, self.depth, self.heads = width, depth, heads

    def build(self) -> TransformerLanguageModel:
        """See :class:`LanguageTask`."""
        return TransformerLanguageModel(
            self.alphabet, self.length, self.width, self.depth, self.heads
        )
