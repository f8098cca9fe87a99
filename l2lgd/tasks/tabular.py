"""Logistic regression, and perceptrons, on small tables."""

from torch import nn

from l2lgd.data.examples import Examples
from l2lgd.data.tables import TableConfig, load_table
from l2lgd.tasks.layers import at_least_one, known_activation, perceptron
from l2lgd.tasks.module import ModuleTask


class TabularTask(ModuleTask):
    """Perceptrons on a table of scikit-learn; without hidden layers, logistic or linear regression.

    The loss is the cross-entropy; where a number is to be predicted, the mean squared error, of
    targets with a variance of 1.

    Args:
        data: which table.
        hidden_layers: units of each hidden layer; none for regression.
        activation: ``sigmoid``, ``relu``, ``tanh`` or ``gelu``.
        batch_size: rows in a minibatch; None for all rows at every step.
    """

    not_in_keys = ("data",)

    def __init__(
        self,
        name: str,
        data: TableConfig,
        hidden_layers: list[int],
        activation: str = "relu",
        batch_size: int | None = 32,
    ) -> None:
        at_least_one(hidden_layers=hidden_layers)
        super().__init__(name, self.build, data.loss, dataset=self.splits, batch_size=batch_size)
        self.table, self.hidden_layers = data, list(hidden_layers)
        self.activation = known_activation(activation)

    def build(self) -> nn.Sequential:
        """A module with weights of PyTorch's own generator, once the table is loaded."""
        inputs = self._examples["train"][0].shape[1]
        widths = [inputs, *self.hidden_layers, self._table.outputs]
        return perceptron(widths, self.activation)

    def splits(self) -> dict[str, Examples]:
        """Rows of the table."""
        self._table = load_table(self.table)
        return self._table.parts

    def data_description(self) -> dict[str, object]:
        return self._table.description
