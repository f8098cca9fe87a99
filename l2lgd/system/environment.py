"""Environment variables: one that is empty means what one that is not set does."""

import os

# What begins so is read by l2lgd, or for it by libraries; with an empty HOME, ~ would be /.
OURS = ("L2LGD_", "HYDRA_", "WANDB_", "MPL", "MATPLOTLIB", "XDG_")


def variable(name: str, otherwise: str = "") -> str:
    """The value of a variable without blanks around it."""
    return os.environ.get(name, "").strip() or otherwise


def number(name: str) -> int | None:
    """The whole number, from 0, that a variable has; None for anything else."""
    value = variable(name)
    return int(value) if value.isdecimal() else None


def settle() -> None:
    """Have configs and libraries think the same of those that are ours."""
    for name in list(os.environ):
        if (name == "HOME" or name.startswith(OURS)) and not variable(name):
            del os.environ[name]
    os.environ.pop("MPLBACKEND", None)  # it is about windows, and there are none
    os.environ["PYTHONSAFEPATH"] = "1"  # what we start imports no file of the working directory
