"""The small tables that come with scikit-learn."""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from l2lgd.data.examples import Examples, counts, load_examples
from l2lgd.errors import ConfigError, DataUnavailable

LOSSES = {  # tables, and what is minimised
    "breast_cancer": "binary_cross_entropy",
    "digits": "cross_entropy",
    "iris": "cross_entropy",
    "wine": "cross_entropy",
    "diabetes": "mse",
}


@dataclass
class TableConfig:
    """Which table: ``breast_cancer``, ``digits``, ``iris``, ``wine``, or ``diabetes``."""

    name: str = "breast_cancer"

    def __post_init__(self) -> None:
        if self.name not in LOSSES:
            raise ConfigError(f"name={self.name}: choose one of {', '.join(LOSSES)}")

    @property
    def loss(self) -> str:
        """``cross_entropy`` of classes; of two, ``binary_cross_entropy``; ``mse`` of a number."""
        return LOSSES[self.name]


@dataclass(frozen=True)
class TableSplits:
    """A table in three splits.

    ``parts``: features (N, features), and labels (N,). A single number to be predicted is (N, 1):
    the label where there are two, or the target of a regression. Features and such targets have a
    mean of 0 and a deviation of 1 in ``train``.
    """

    parts: dict[str, Examples]
    outputs: int  # numbers that a module has to give
    description: dict[str, object]


def load_table(config: TableConfig) -> TableSplits:
    """Read a table, and divide it at random, always in the same way.

    Raises:
        DataUnavailable: scikit-learn is not installed.
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise DataUnavailable(
            f"the table {config.name} needs the package scikit-learn: pip install 'l2lgd[tabular]'"
        ) from error
    features, targets = getattr(datasets, f"load_{config.name}")(return_X_y=True)
    found = hashlib.sha256(features.tobytes() + targets.tobytes()).hexdigest()[:12]
    outputs = 1
    if config.loss == "cross_entropy":
        wanted, outputs = torch.from_numpy(targets).long(), int(targets.max()) + 1
    else:
        wanted = torch.from_numpy(targets).double().unsqueeze(1)
    parts = load_examples((torch.from_numpy(features).double(), wanted))
    scales = [_mean_and_deviation(column) for column in parts["train"]]
    scaled = config.loss == "mse"  # the targets
    standard = {
        split: (_scaled(own, *scales[0]), _scaled(goal, *scales[1]) if scaled else goal)
        for split, (own, goal) in parts.items()
    }
    description: dict[str, object] = {
        "name": config.name,
        "source": "scikit-learn",
        "num_examples": counts(parts),
        "digest": found,
    }
    return TableSplits(dict(standard), outputs, description)


def _mean_and_deviation(column: Tensor) -> tuple[Tensor, Tensor]:
    """Of each feature; one that is always the same is divided by 1."""
    mean, deviation = column.double().mean(0), column.double().std(0)
    return mean, torch.where(deviation > 0, deviation, 1.0)


def _scaled(column: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    return ((column - mean) / deviation).float()
