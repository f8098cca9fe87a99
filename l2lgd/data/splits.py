"""The disjoint parts of a data set.

Meta-training sees ``train`` only, model selection and tuning ``validation``, reported figures
``test``.
"""

from typing import Literal, get_args

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
