"""What a task is called in pictures: the words of its YAML file, not its name in the config."""

import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from l2lgd.config.choices import first_comment

SOURCE = re.compile(r"\s*\([^()]*\)$")  # "(paper, section 3.2)" at the end
NOT_THE_FUNCTIONS = re.compile(  # where data and weights are from, which summary.json says
    r"task\.(tasks\.[^.]+\.)?(name|content|data\.|vgg\.|recommended|recipe|weights_of|loss_label)"
)


def title_of(task: str, overrides: Sequence[str] = (), folders: Sequence[Path] = ()) -> str:
    """The first comment of a task's file, and what was changed of the task.

    Args:
        task: as in ``task=mnist``.
        overrides: words of a command line.
        folders: of configs, beside those of the package.
    """
    places = [*folders, files("l2lgd.conf")]
    found = (place.joinpath("task", f"{task}.yaml") for place in places)
    text = next((file.read_text(encoding="utf-8") for file in found if file.is_file()), "")
    comment = first_comment(text)
    title = SOURCE.sub("", comment) if comment else task.replace("_", " ")
    changed = [word for word in overrides if word.startswith("task.")]
    changed = [word for word in changed if not NOT_THE_FUNCTIONS.match(word)]
    return "; ".join([title, *(word.removeprefix("task.") for word in changed)])
