"""How a picture is drawn: with settings of its own, and so that no result is lost for it."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from l2lgd.errors import one_line

log = logging.getLogger(__name__)


@contextlib.contextmanager
def own_settings() -> Iterator[None]:
    """Matplotlib as it comes, whatever the user has set for pictures of theirs."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


def say_literally(figure: Any) -> None:
    """Have no title, label, legend or caption of a figure be read as a formula."""
    texts = list(figure.texts)
    for axes in figure.axes:
        texts += [axes.title, axes.xaxis.label, axes.yaxis.label]
    for legend in (*figure.legends, *(axes.get_legend() for axes in figure.axes)):
        texts += legend.get_texts() if legend else []
    for text in texts:
        text.set_parse_math(False)


def plain(name: str) -> str:
    """The name of a tick, likewise."""
    return name.replace("$", r"\$")


def drawn(path: Path, draw: Callable[[Path], None]) -> Path | None:
    """The picture, or None with a warning."""
    try:
        draw(path)
    # Anything: fonts, settings of the user's and the numbers themselves have all been the cause.
    except Exception as error:
        log.warning("%s is not drawn: %s", path.name, one_line(error))
        return None
    return path
