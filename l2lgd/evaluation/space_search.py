"""Search of what a practitioner tunes: the learning rate with its schedule, weight decay, β₂.

Every optimizer gets the same number of trials. Two thirds are drawn from its space;
the rest go on from the best one so far: beyond the best learning rate as long as none is higher,
or none lower, and near it otherwise. So a best rate at an end of the space extends it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from l2lgd.errors import ConfigError, UserError
from l2lgd.seeding import generator

RATE = "learning_rate"
RATES_ALONE: dict[str, Any] = {RATE: [1e-4, 10.0]}  # the space of an optimizer that names none
DRAWN = 2 / 3  # of the trials
BEYOND = 10**0.5  # times the best rate, where that is at an end
NEAR = 0.25  # decades to either side
GOLDEN = (5**0.5 - 1) / 2  # multiples of it, modulo 1, leave no large gap
REDRAWN = 0.3  # chance of each other setting near the best

Space = Mapping[str, Any]
Settings = dict[str, Any]


@dataclass(frozen=True)
class Trial:
    """Settings that were tried, and their final loss; infinite where it diverged."""

    settings: Settings
    loss: float


@dataclass(frozen=True)
class SpaceSearch:
    """Trials in the order in which they were made."""

    trials: tuple[Trial, ...]

    @property
    def best(self) -> Trial:
        return min(self.trials, key=lambda trial: trial.loss)

    @property
    def at_an_end(self) -> bool:
        """Is the best learning rate the highest or the lowest that was tried?"""
        rates = [trial.settings[RATE] for trial in self.trials]
        return self.best.settings[RATE] in (min(rates), max(rates))

    def told(self) -> dict[str, Any]:
        """What a summary says: the best settings, and all trials with their losses."""
        trials = [[trial.settings, trial.loss] for trial in self.trials]
        return {"settings": self.best.settings, "trials": trials}

    def check(self) -> None:
        """Raise UserError where every trial diverged."""
        if not math.isfinite(self.best.loss):
            low = min(trial.settings[RATE] for trial in self.trials)
            raise UserError(
                f"all {len(self.trials)} trials diverge, rates down to {low:.1e}; give a lower "
                "range of rates in the optimizer's space"
            )


def search_space(
    final_loss: Callable[[Settings], float],
    space: Space,
    trials: int,
    seed: int,
    done: Sequence[Trial] = (),
    keep: Callable[[Sequence[Trial]], None] = lambda _: None,
) -> SpaceSearch:
    """So many trials; which ones follows from the seed and the losses alone.

    Args:
        space: bounds of the learning rate, and a list of choices of every other setting.
        done: trials of the same search that was broken off.
        keep: is given all trials after each.
    """
    check_space(space)
    made = list(done[:trials])
    while len(made) < trials:
        settings = following(space, made, trials, seed)
        made.append(Trial(settings, final_loss(settings)))
        keep(made)
    return SpaceSearch(tuple(made))


def following(space: Space, done: Sequence[Trial], trials: int, seed: int) -> Settings:
    """The settings of the next trial."""
    draw = generator(seed, "space", len(done))
    fresh = _drawn(space, len(done), seed, draw)
    if len(done) < math.ceil(DRAWN * trials):
        return fresh
    search = SpaceSearch(tuple(done))
    best, rates = search.best.settings, [trial.settings[RATE] for trial in done]
    if not math.isfinite(search.best.loss):
        return {**best, RATE: min(rates) / BEYOND}
    if search.at_an_end:
        beyond = BEYOND if best[RATE] == max(rates) else 1 / BEYOND
        return {**best, RATE: best[RATE] * beyond}
    near = {name: fresh[name] if _share(draw) < REDRAWN else value for name, value in best.items()}
    return {**near, RATE: best[RATE] * 10 ** (NEAR * (2 * _share(draw) - 1))}


def check_space(space: Space) -> None:
    """Raise ConfigError for a space that cannot be searched."""
    bounds = space.get(RATE)
    if not (
        isinstance(bounds, Sequence)
        and len(bounds) == 2
        and all(isinstance(bound, int | float) for bound in bounds)
        and 0 < bounds[0] < bounds[1]
    ):
        raise ConfigError(f"space.{RATE}={bounds}: must be [lowest, highest], both positive")
    for name, choices in space.items():
        if isinstance(choices, str) or not isinstance(choices, Sequence) or not choices:
            raise ConfigError(f"space.{name}={choices}: must be a list of choices")


def _drawn(space: Space, index: int, seed: int, draw: torch.Generator) -> Settings:
    """Rates are spread evenly, however many there are; all else is drawn at random."""
    low, high = space[RATE]
    share = (_share(generator(seed, "space", "rates")) + index * GOLDEN) % 1
    rate = low * (high / low) ** share
    others = {
        name: choices[int(_share(draw) * len(choices))]
        for name, choices in space.items()
        if name != RATE
    }
    return {RATE: rate, **others}


def _share(draw: torch.Generator) -> float:
    return torch.rand((), generator=draw, dtype=torch.float64).item()
