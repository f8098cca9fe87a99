"""Which options of each verb a task may have defaults for."""

RECOMMENDED = "recommended"  # key of a task's YAML
AUGMENT = "augment"  # key of a task: what is done to its functions to meta-train on
BESIDE = ("weights_of", "loss_label", AUGMENT)  # what else it says that is no argument of the task
OPEN_CHOICES = {
    "unroll": "task",
    "estimator": "task",
    "opt": "lstm",
}  # whose options a task may fill in, too
SAME = ("num_steps", "meta_decay", "meta_average", "validate_every", "validation_functions")
FILLED: dict[str, dict[str, str]] = {  # options of each verb, and what they are called there
    "meta_train": {
        name: name for name in (*SAME, "num_functions", "meta_steps", "meta_learning_rate")
    },
    "evaluate": {name: name for name in ("num_steps", "tune_functions")},
    "tune": {name: name for name in SAME}
    | {"num_functions": "tune_functions", "meta_steps": "tune_meta_steps"},
    "check": {"num_steps": "num_steps"},
    "stylize": {"num_steps": "num_steps"},
}


def may_be_recommended(verb: str, option: str) -> bool:
    """Can a task have another default for an option of a verb?"""
    return option in FILLED.get(verb, ())
