"""Learning to learn by gradient descent by gradient descent (Andrychowicz et al., 2016).

Names are imported when they are asked for, as PyTorch takes seconds.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from l2lgd.data.sources import DataConfig
    from l2lgd.errors import (
        CheckpointError,
        ConfigError,
        DataUnavailable,
        Diverged,
        ProcessLost,
        UserError,
    )
    from l2lgd.meta.estimators.base import Course, Estimator, MetaProblem, Unrolled
    from l2lgd.optimizers.base import LearnedRule, Optimizer, TunedOptimizer, coordinate_blocks
    from l2lgd.optimizers.preprocessing import log_sign
    from l2lgd.pretrained.learned_optimizer import LearnedOptimizer
    from l2lgd.tasks.base import Optimizee, Split, Task, TaskPart
    from l2lgd.tasks.images import ImageTask, Network
    from l2lgd.tasks.module import ModuleTask
    from l2lgd.tasks.parts import MixtureTask

_MODULES = {  # of the names below
    "l2lgd.data.sources": ("DataConfig",),
    "l2lgd.errors": (
        "CheckpointError",
        "ConfigError",
        "DataUnavailable",
        "Diverged",
        "ProcessLost",
        "UserError",
    ),
    "l2lgd.meta.estimators.base": ("Course", "Estimator", "MetaProblem", "Unrolled"),
    "l2lgd.optimizers.base": ("LearnedRule", "Optimizer", "TunedOptimizer", "coordinate_blocks"),
    "l2lgd.optimizers.preprocessing": ("log_sign",),
    "l2lgd.pretrained.learned_optimizer": ("LearnedOptimizer",),
    "l2lgd.tasks.base": ("Optimizee", "Split", "Task", "TaskPart"),
    "l2lgd.tasks.images": ("ImageTask", "Network"),
    "l2lgd.tasks.module": ("ModuleTask",),
    "l2lgd.tasks.parts": ("MixtureTask",),
}
__all__ = [
    "CheckpointError",
    "ConfigError",
    "Course",
    "DataConfig",
    "DataUnavailable",
    "Diverged",
    "Estimator",
    "ImageTask",
    "LearnedOptimizer",
    "LearnedRule",
    "MetaProblem",
    "MixtureTask",
    "ModuleTask",
    "Network",
    "Optimizee",
    "Optimizer",
    "ProcessLost",
    "Split",
    "Task",
    "TaskPart",
    "TunedOptimizer",
    "Unrolled",
    "UserError",
    "coordinate_blocks",
    "log_sign",
]


def __getattr__(name: str) -> object:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
