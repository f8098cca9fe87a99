"""Matrix factorisation: two factors of low rank for the known entries of a matrix.

The loss has saddle points, such as factors of zero, and a valley of minima: U A and V A⁻ᵀ do as
well as U and V.
"""

import torch
from torch import Tensor, nn

from l2lgd import seeding
from l2lgd.data.examples import Examples
from l2lgd.data.splits import SPLITS
from l2lgd.errors import ConfigError
from l2lgd.seeding import derive_seed
from l2lgd.tasks.base import Split
from l2lgd.tasks.layers import at_least_one
from l2lgd.tasks.module import Modules, ModuleTask


class Factorisation(nn.Module):
    """A random matrix of low rank with noise, its entries in random order, and factors of it.

    Args:
        rank: of the matrix without its noise, whose entries have a variance of 1.
        fit_rank: of the factors.
        noise: standard deviation of what is added to each entry.
        initial_std: standard deviation of the initial factors.
    """

    matrix: Tensor  # (rows, columns)
    order: Tensor  # of its entries, numbered row by row (rows × columns,)

    def __init__(
        self, rows: int, columns: int, rank: int, fit_rank: int, noise: float, initial_std: float
    ) -> None:
        super().__init__()
        product = torch.randn(rows, rank) @ torch.randn(rank, columns) / rank**0.5
        self.register_buffer("matrix", product + noise * torch.randn(rows, columns))
        self.register_buffer("order", torch.randperm(rows * columns))
        self.left = nn.Parameter(initial_std * torch.randn(rows, fit_rank))
        self.right = nn.Parameter(initial_std * torch.randn(columns, fit_rank))

    def forward(self, places: Tensor) -> Tensor:
        """The mean squared error, (), of the entries at these places (batch,) of the order."""
        entries = self.order[places]
        columns = self.matrix.shape[1]
        row, column = entries // columns, entries % columns
        found = (self.left[row] * self.right[column]).sum(1)
        return (found - self.matrix.flatten()[entries]).square().mean()


class MatrixFactorisationTask(ModuleTask):
    """Factorisations; each function has a matrix of its own, some of whose entries are observed.

    The others are held out: the two splits that a function is not of have half of them each.

    Args:
        rows: of the matrix.
        columns: of the matrix.
        rank: of the matrix, but for its noise.
        fit_rank: columns of each factor; None for the rank of the matrix.
        observed: share of the entries that are observed, below 1.
        noise: standard deviation of what is added to each entry; those of the matrix have 1.
        initial_std: standard deviation of the initial factors.
        batch_size: entries in a minibatch; None for all observed ones at every step.
    """

    def __init__(
        self,
        name: str,
        rows: int = 30,
        columns: int = 20,
        rank: int = 3,
        fit_rank: int | None = None,
        observed: float = 0.5,
        noise: float = 0.1,
        initial_std: float = 0.1,
        batch_size: int | None = 64,
    ) -> None:
        fit_rank = rank if fit_rank is None else fit_rank
        at_least_one(rows=rows, columns=columns, rank=rank, fit_rank=fit_rank)
        if noise < 0:
            raise ConfigError(f"noise={noise}: must not be negative")
        if initial_std <= 0:  # at factors of zero there is no gradient
            raise ConfigError(f"initial_std={initial_std}: must be positive")
        self.observed_count = round(observed * rows * columns)
        if not 1 <= self.observed_count <= rows * columns - 2:
            raise ConfigError(
                f"observed={observed}: must leave some of the {rows} × {columns} entries observed, "
                "and two at least that are not"
            )
        super().__init__(name, self.build, "module", dataset=self.places, batch_size=batch_size)
        self.rows, self.columns, self.rank, self.fit_rank = rows, columns, rank, fit_rank
        self.entry_noise, self.initial_std = noise, initial_std

    def build(self) -> Factorisation:
        """Factors and a matrix from PyTorch's own generator."""
        ranks = (self.rank, self.fit_rank)
        return Factorisation(self.rows, self.columns, *ranks, self.entry_noise, self.initial_std)

    def places(self) -> dict[str, Examples]:
        """Where in the order of entries the observed ones are, in every split the first."""
        return {split: (torch.arange(self.observed_count),) for split in SPLITS}

    def sample(self, split: Split, num_functions: int, generator: torch.Generator) -> Modules:
        # Matrices are all that functions are made of; so they belong to a split.
        seed = int(torch.randint(2**62, (), generator=generator))
        own = seeding.generator(derive_seed(seed, split))
        return super().sample(split, num_functions, own)

    def data_description(self) -> None:
        return None

    def _others(self, functions: Modules, split: Split) -> Examples:
        trained_on = functions.sources[0].tensors
        (own,) = (one for one in SPLITS if self._examples[one] is trained_on)
        if split == own:
            return trained_on
        half = [one for one in SPLITS if one != own].index(split)
        places = torch.arange(self.observed_count + half, self.rows * self.columns, 2)
        return (places.to(self.device),)
