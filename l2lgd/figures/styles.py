"""The look of the paper's figures, and one for readers who cannot tell red from green."""

import io
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from l2lgd.errors import ConfigError
from l2lgd.results.pictures import say_literally
from l2lgd.results.plots import COLORS, HAND_DESIGNED, LABELS, LEARNED

KINDS = {"png": {}, "pdf": {"CreationDate": None}}  # of files; the same figure gives the same bytes
ORDER = ("lstm", "lstm_per_group", "lstm_mixture", "lstm_sub", "lstm_gac", "ntm_bfgs", "ntm_lbfgs")
OVERLAY: dict[str, Any] = {"color": "0.55", "linewidth": 0.8, "zorder": 1.5}


class Style(NamedTuple):
    """Colours by optimizer, and what else tells them apart."""

    colors: Mapping[str, str]
    dashes: Mapping[str, Any] = {}
    markers: Mapping[str, str] = {}


STYLES = {
    "paper": Style(COLORS),
    "colour_blind": Style(  # Okabe and Ito's colours; dashes and markers say the same again
        COLORS
        | {
            "adam": "#d55e00",
            "rmsprop": "#56b4e9",
            "sgd": "#009e73",
            "nag": "#cc79a7",
            "lstm": "#000000",
            "lstm_per_group": "#000000",
            "lstm_sub": "#0072b2",
            "lstm_mixture": "#0072b2",
            "lstm_gac": "#e69f00",
            "ntm_bfgs": "#0072b2",
            "ntm_lbfgs": "#f0e442",
        },
        dashes={"adam": (0, (5, 2)), "rmsprop": (0, (1, 1.5)), "sgd": (0, (3, 1.5, 1, 1.5))},
        markers={"adam": "o", "rmsprop": "s", "sgd": "^", "nag": "v", "lstm_mixture": "D"},
    ),
}


def style_of(name: str) -> Style:
    """Raises: ConfigError: there is no such style."""
    if name not in STYLES:
        raise ConfigError(f"figures.style={name}: choose one of {', '.join(STYLES)}")
    return STYLES[name]


def is_learned(optimizer: str) -> bool:
    """Is it one of those whose lines are solid?"""
    return optimizer.startswith(("lstm", "ntm"))


def line(style: Style, optimizer: str, learned: bool, points: int) -> dict[str, Any]:
    """How the line of an optimizer is drawn, one of so many points."""
    found = dict(LEARNED if learned else HAND_DESIGNED)
    if not learned and optimizer in style.dashes:
        found["linestyle"] = style.dashes[optimizer]
    if optimizer in style.markers:
        found |= {"marker": style.markers[optimizer], "markersize": 4}
        found["markevery"] = max(1, points // 8)
    label = LABELS.get(optimizer, optimizer)
    return {**found, "color": style.colors.get(optimizer, "0.3"), "label": label}


def new(width: float, height: float, rows: int, columns: int, **options: Any) -> tuple[Any, Any]:
    """A matplotlib figure and its axes (rows, columns)."""
    figure = blank(width, height)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for panel in axes.flat:
        panel.spines[["top", "right"]].set_visible(False)
    return figure, axes


def blank(width: float, height: float) -> Any:
    """A matplotlib figure of so many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def legend_below(figure: Any, axes: Iterable[Any]) -> None:
    """One legend for all panels, where it covers no curve."""
    drawn: dict[str, Any] = {}
    for panel in axes:
        handles, labels = panel.get_legend_handles_labels()
        drawn = dict(zip(labels, handles, strict=True)) | drawn
    first = [LABELS[name] for name in ORDER if LABELS[name] in drawn]
    found = {label: drawn[label] for label in dict.fromkeys([*first, *drawn])}
    figure.legend(
        list(found.values()),
        list(found),
        loc="outside lower center",
        ncols=len(found),
        frameon=False,
        fontsize=9,
    )


def encoded(figure: Any, kind: str, dpi: int) -> bytes:
    """The picture as a file of one of ``KINDS``."""
    buffer = io.BytesIO()
    say_literally(figure)
    figure.savefig(buffer, format=kind, dpi=dpi, metadata=KINDS[kind])
    return buffer.getvalue()
