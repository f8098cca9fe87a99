"""The YAML files of ``conf/``: which there are, and their texts."""

import re
from importlib.resources import files

FIRST_COMMENT = re.compile(r"^# (?!@)(.*)$", re.MULTILINE)  # not Hydra's own
SUFFIX = ".yaml"


def choices(group: str) -> list[str]:
    """The choices of a config group, in alphabetical order."""
    found = (entry.name for entry in (files("l2lgd.conf") / group).iterdir())
    return sorted(name.removesuffix(SUFFIX) for name in found if name.endswith(SUFFIX))


def text_of(*place: str) -> str:
    """A file's text, as of ``text_of("task", "mnist")`` or ``text_of("meta_train")``."""
    *groups, name = place
    return files("l2lgd.conf").joinpath(*groups, f"{name}{SUFFIX}").read_text(encoding="utf-8")


def first_comment(text: str) -> str:
    """What a file says that it is; empty where it has no comment."""
    found = FIRST_COMMENT.search(text)
    return found[1] if found else ""
