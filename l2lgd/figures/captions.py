"""Captions of figures: two sentences. Seeds, data, versions and commands are in the JSON."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from l2lgd.figures.base import PaperFigure
from l2lgd.results.captions import left_out, note, sentences


def caption(figure: PaperFigure, about: Mapping[str, Any]) -> str:
    """What a figure shows, then how to read it.

    Args:
        about: what its JSON says of the figure.
    """
    panels = about["panels"]
    titles = {name: " ".join(title.split()) for name, title in figure.titles().items()}
    reading = [figure.remark, *_notes_by_panel(panels, titles)]
    if figure.intervals:
        counts = {titles.get(name, name): one["num_functions"] for name, one in panels.items()}
        reading = [intervals(figure.intervals, counts), _left_out(panels), *reading]
    return sentences(figure.what, "; ".join(filter(None, reading))) + "\n"


def intervals(drawn: str, counts: Mapping[str, int]) -> str:
    """Over how many functions means and their intervals are.

    Args:
        drawn: bands or bars.
        counts: of functions, by title of the panel.
    """
    usual = Counter(count for count in counts.values() if count > 1).most_common(1)
    if not usual:
        return f"losses are of one test function each, without {drawn}"
    most, others = usual[0][0], []
    for count in dict.fromkeys(count for count in counts.values() if count != most):
        where = _quoted(title for title, n in counts.items() if n == count)
        others.append(f"{count}{f' without {drawn}' * (count == 1)} in {where}")
    also = f" ({', '.join(others)})" if others else ""
    return f"{drawn} are 95 % bootstrap intervals of the mean over {most} test functions{also}"


def notes(about: Mapping[str, Any]) -> list[str]:
    """What has to be said of the data of a figure, each once."""
    return list(dict.fromkeys(filter(None, map(note, about["panels"].values()))))


def _notes_by_panel(panels: Mapping[str, Any], titles: Mapping[str, str]) -> Iterator[str]:
    """The same, with the panels where others have data of which it is not true."""
    told = {titles.get(name, name): note(one) for name, one in panels.items() if one["data"]}
    for text in dict.fromkeys(filter(None, told.values())):
        where = [title for title, one in told.items() if one == text]
        yield text if len(where) == len(told) else f"{text}, in {_quoted(where)}"


def _quoted(titles: Iterable[str]) -> str:
    return " and ".join(f"“{title}”" for title in titles)


def _left_out(panels: Mapping[str, Any]) -> str:
    diverged: dict[str, set[int]] = {}
    for one in panels.values():
        for name, count in one["diverged"].items():
            diverged.setdefault(name, set()).add(count)
    counts = {one["num_functions"] for one in panels.values() if one["diverged"]}
    return left_out(diverged, max(counts)) if counts else ""
