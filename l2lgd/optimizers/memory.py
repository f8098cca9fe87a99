"""The memories of NTM-BFGS: n × n matrices that are only multiplied and changed by a low rank.

Both begin as the identity. ``write`` adds Σ_w a_w b_wᵀ · scale, ``read`` multiplies. The dense
form keeps the matrix, O(n²); the factored form the pairs of the last steps, O(n), and forgets older
ones. They agree while nothing was forgotten. Vectors are (heads, B, n): a matrix for each of B
functions.
"""

from typing import Protocol

import torch
from torch import Tensor

from l2lgd.errors import ConfigError

LARGEST_DENSE = 10_000  # coordinates
MemoryState = tuple[Tensor, ...]


class Memory(Protocol):
    """What a controller can do with its memory."""

    def initial(self, parameters: Tensor, write_heads: int) -> MemoryState:
        """M = I for each function of parameters (B, n)."""

    def read(self, state: MemoryState, vectors: Tensor) -> Tensor:
        """M r for each of r (R, B, n)."""

    def write(self, state: MemoryState, left: Tensor, right: Tensor, scale: float) -> MemoryState:
        """M + scale · Σ_w a_w b_wᵀ for a, b (W, B, n)."""


class Dense:
    """M (B, n, n) itself, for up to 10,000 coordinates."""

    def initial(self, parameters: Tensor, write_heads: int) -> MemoryState:
        n = parameters.shape[1]
        if n > LARGEST_DENSE:
            raise ConfigError(
                f"a dense memory for n={n:,} coordinates would take "
                f"{n * n * parameters.element_size() / 1e9:.1f} GB a function at every step; "
                "opt=ntm_lbfgs is linear in n"
            )
        identity = torch.eye(n, dtype=parameters.dtype, device=parameters.device)
        return (identity.repeat(len(parameters), 1, 1),)

    def read(self, state: MemoryState, vectors: Tensor) -> Tensor:
        (matrix,) = state
        return torch.matmul(vectors.transpose(0, 1), matrix.mT).transpose(0, 1)

    def write(self, state: MemoryState, left: Tensor, right: Tensor, scale: float) -> MemoryState:
        (matrix,) = state
        return (matrix + scale * torch.matmul(left.permute(1, 2, 0), right.transpose(0, 1)),)


class Factored:
    """The pairs a, b (B, K, n) of the last ``history`` steps: M = I + scale · Σ_k a_k b_kᵀ.

    Scales are put into a. A product costs O(K n), and a write moves the pairs up by one step.
    """

    def __init__(self, history: int) -> None:
        self.history = history

    def initial(self, parameters: Tensor, write_heads: int) -> MemoryState:
        num_functions, n = parameters.shape
        zeros = parameters.new_zeros(num_functions, self.history * write_heads, n)
        return zeros, zeros

    def read(self, state: MemoryState, vectors: Tensor) -> Tensor:
        left, right = state
        of_functions = vectors.transpose(0, 1)  # (B, R, n)
        products = torch.matmul(of_functions, right.mT)  # (B, R, K)
        return vectors + torch.matmul(products, left).transpose(0, 1)

    def write(self, state: MemoryState, left: Tensor, right: Tensor, scale: float) -> MemoryState:
        new = (scale * left.transpose(0, 1), right.transpose(0, 1))
        return tuple(
            torch.cat((old[:, len(left) :], own), 1) for old, own in zip(state, new, strict=True)
        )
