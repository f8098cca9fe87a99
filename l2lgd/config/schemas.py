"""The schema of each verb."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from l2lgd.config.old_names import upgraded_task
from l2lgd.config.options import RECOMMENDED
from l2lgd.config.typed import typed
from l2lgd.errors import ConfigError


@dataclasses.dataclass
class Verb:
    """Options that every verb has."""

    task: Any
    opt: Any
    estimator: Any
    unroll: Any
    logger: Any
    seed: int
    device: str
    deterministic: bool
    matmul_precision: str
    threads: int | None
    data_dir: str
    num_functions: int
    num_steps: int
    allow_targets: list[str]


@dataclasses.dataclass
class MetaTraining:
    """Options of a meta-training, which tune has too."""

    meta_steps: int
    meta_learning_rate: float
    meta_decay: str
    meta_clip: float | None
    meta_average: float
    validate_every: int
    validation_functions: int
    checkpoint_every: int
    initial_weights: str | None


@dataclasses.dataclass
class MetaTrain(MetaTraining, Verb):
    """``l2lgd meta-train``."""

    tuned_dir: str
    resume: str | None


@dataclasses.dataclass
class Evaluate(Verb):
    """``l2lgd evaluate``."""

    checkpoint: str | None
    checkpoints: dict[str, str] | None
    split: str
    baselines: list[str]
    tuned_dir: str
    tune_functions: int
    tune_seed: int
    tune_trials: int
    reuse: list[str]
    weights_dir: str | None


@dataclasses.dataclass
class Tune(MetaTraining, Verb):
    """``l2lgd tune``."""

    search: str
    checkpoint: str | None
    baselines: list[str]
    tuned_dir: str
    trials: int
    lowest_rate: float
    highest_rate: float
    resume: str | None


@dataclasses.dataclass
class Stylize(Verb):
    """``l2lgd stylize``."""

    content: str | None
    style: str | None
    output: str | None
    size: int
    checkpoint: str | None
    beside: str | None
    learning_rate: float | None


@dataclasses.dataclass
class Check(Verb):
    """``l2lgd check``."""


@dataclasses.dataclass
class FunctionCounts:
    """Functions that each kind of figure is a mean over."""

    quadratic: int
    mnist: int
    mnist_long: int
    grid: int
    cifar: int
    neural_art: int
    sharing: int
    sharing_mnist: int

    def __post_init__(self) -> None:
        for name, count in vars(self).items():
            if count < 1:
                raise ConfigError(f"{name}={count}: must be at least 1")


@dataclasses.dataclass
class Scale:
    """How much is evaluated: for figures, and in a benchmark."""

    functions: FunctionCounts
    seeds: int
    tasks: list[str] | None


@dataclasses.dataclass
class Drawing:
    """How figures are drawn."""

    overlay: str
    style: str


@dataclasses.dataclass
class Figures:
    """``l2lgd figures``."""

    scale: Scale
    figure: Any
    figures: Drawing
    seed: int
    device: str
    threads: int
    workers: int | None
    data_dir: str
    tuned_dir: str
    weights_dir: str | None
    vgg: str
    reuse: list[str]
    of: list[str]


@dataclasses.dataclass
class SuiteTask:
    """A task of a benchmark.

    Args:
        options: of ``evaluate``, as they are typed.
        num_steps: T.
        title: in tables and pictures; None for its name.
        axis: what is varied, in a suite that varies something.
        factor: of what is varied, to the smallest.
    """

    options: list[str]
    num_steps: int
    title: str | None = None
    axis: str | None = None
    factor: float | None = None


@dataclasses.dataclass
class Suite:
    """The tasks of a benchmark, by name."""

    tasks: dict[str, SuiteTask]


@dataclasses.dataclass
class Benchmark:
    """``l2lgd benchmark``."""

    suite: Suite
    scale: Scale
    optimizers: list[str]
    tasks: list[str] | None
    seeds: int
    reference: str
    trials: int
    tune_functions: int
    workers: int | None
    seed: int
    device: str
    data_dir: str
    tuned_dir: str
    results_dir: str
    allow_targets: list[str]


@dataclasses.dataclass
class RecommendedUnroll:
    """``task.recommended.unroll``: options of ``unroll=task``."""

    lengths: list[int] | None = None
    horizons: list[int] | None = None
    loss_weights: str | None = None
    meta_loss: str | None = None
    restart_above: float | None = None


@dataclasses.dataclass
class RecommendedEstimator:
    """``task.recommended.estimator``: options of ``estimator=task``."""

    second_derivatives: bool | None = None
    second_derivatives_from: float | None = None
    smoothing: float | None = None
    difference: float | None = None


@dataclasses.dataclass
class RecommendedOpt:
    """``task.recommended.opt``: options of ``opt=lstm``, and of what is made of it."""

    output_scale: float | None = None
    initial_output: float | None = None
    preprocessing: str | None = None


@dataclasses.dataclass
class Recommended:
    """``task.recommended``: options for which a task has defaults of its own."""

    num_functions: int | None = None
    num_steps: int | None = None
    tune_functions: int | None = None
    meta_steps: int | None = None
    tune_meta_steps: int | None = None
    meta_learning_rate: float | None = None
    meta_decay: str | None = None
    meta_average: float | None = None
    validate_every: int | None = None
    validation_functions: int | None = None
    unroll: RecommendedUnroll = dataclasses.field(default_factory=RecommendedUnroll)
    estimator: RecommendedEstimator = dataclasses.field(default_factory=RecommendedEstimator)
    opt: RecommendedOpt = dataclasses.field(default_factory=RecommendedOpt)


@dataclasses.dataclass
class AboutTask:
    """What a task's YAML says besides the arguments of its constructor.

    Args:
        weights_of: tasks whose shipped weights do for this one, the best first.
        loss_label: of the axis in pictures.
    """

    weights_of: list[str] | None = None
    loss_label: str = "loss"
    recommended: Recommended = dataclasses.field(default_factory=Recommended)


SCHEMAS: dict[str, type] = {
    "meta_train": MetaTrain,
    "evaluate": Evaluate,
    "tune": Tune,
    "stylize": Stylize,
    "check": Check,
    "figures": Figures,
    "benchmark": Benchmark,
}


def validated(config: DictConfig, verb: str) -> Any:
    """The composed config with the types of the verb's schema, interpolations resolved.

    Raises:
        ConfigError: an option that does not exist, is missing, or has the wrong type.
    """
    about_task(config)
    return typed(config, SCHEMAS[verb], "")


def about_task(config: Mapping[str, Any]) -> AboutTask:
    """What the task's YAML says of itself.

    Raises:
        ConfigError: an option of ``task.recommended`` that does not exist, or of the wrong type.
    """
    task = config.get("task")
    if not isinstance(task, Mapping):
        return AboutTask()
    node = upgraded_task(dict(task))
    recommended = node.get(RECOMMENDED, {})
    if not isinstance(recommended, Mapping):
        raise ConfigError(f"task.recommended={recommended}: must be options with their values")
    known = {f.name for f in dataclasses.fields(AboutTask)}
    told = {key: value for key, value in node.items() if key in known and value is not None}
    found: AboutTask = typed(OmegaConf.create(told), AboutTask, "task.")
    return found
