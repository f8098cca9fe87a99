"""How a learning rate changes over the T steps of a trajectory."""

import math

from torch import Tensor

from l2lgd.errors import ConfigError, nearest

SCHEDULES = ("constant", "cosine", "linear")
WARM_UP = 0.1  # of the horizon, by the linear schedule


def known_schedule(schedule: object) -> str:
    """The name of a schedule.

    Raises:
        ConfigError: there is none of that name.
    """
    if schedule not in SCHEDULES:
        raise ConfigError(f"schedule={schedule}{nearest(str(schedule), SCHEDULES)}")
    return str(schedule)


def factor(schedule: str, step: int, horizon: int) -> float:
    """What the learning rate is multiplied with in step t = ``step`` of T = ``horizon``.

    * ``constant``: 1.
    * ``cosine``: half a period of a cosine, from 1 to 0 at t = T.
    * ``linear``: up to 1 over the first tenth of the steps, then down to 0 at t = T.
    """
    if schedule == "constant":
        return 1.0
    if step >= horizon:
        return 0.0
    if schedule == "cosine":
        return (1 + math.cos(math.pi * step / horizon)) / 2
    warm_up = max(1, round(WARM_UP * horizon))
    return (step + 1) / warm_up if step < warm_up else (horizon - step) / (horizon - warm_up)


def one_for_all(number: int | Tensor) -> int:
    """A step or a horizon, where it is the same one for all functions.

    Raises:
        ConfigError: it is not.
    """
    if not isinstance(number, Tensor):
        return number
    found = number.unique().tolist()
    if len(found) != 1:
        raise ConfigError(
            "schedule: functions of one stack are at steps of their own, or have horizons of "
            "their own, and a learning rate is one for all of them; take schedule=constant"
        )
    return int(found[0])
