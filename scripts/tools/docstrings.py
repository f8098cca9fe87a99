"""Docstrings as Markdown: sections of arguments, returns and errors become lists."""

import inspect
import re
import textwrap
from typing import Any

SECTION = re.compile(r"^(Args|Returns|Yields|Raises|Examples?):$", re.MULTILINE)
TITLES = {"Args": "Arguments", "Raises": "Errors", "Examples": "Example"}
ITEM = re.compile(r"^(\*{0,2}[\w.]+(?:, \*{0,2}\w+)*): +", re.MULTILINE)


def summary(thing: Any) -> str:
    """The first sentence or line of a docstring."""
    return marked((inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " "))


def as_markdown(docstring: str) -> list[str]:
    """What ``inspect.getdoc`` has, as lines of Markdown, a blank one at the end.

    What follows a section without being indented is a paragraph of its own again.
    """
    lines: list[str] = []
    rest = docstring
    while match := SECTION.search(rest):
        lines += paragraphs(rest[: match.start()])
        inside, rest = _indented(rest[match.end() + 1 :])
        lines += section(match[1], inside)
    return lines + paragraphs(rest)


def section(kind: str, text: str) -> list[str]:
    """A section of a docstring, dedented."""
    lines = [f"**{TITLES.get(kind, kind)}**", ""]
    if kind in ("Example", "Examples"):
        return lines + example(text)
    if kind in ("Args", "Raises"):
        starts = [match.start() for match in ITEM.finditer(text)]
        for begin, end in zip(starts, [*starts[1:], len(text)], strict=True):
            name, _, meaning = text[begin:end].partition(":")
            names = ", ".join(f"`{part.strip()}`" for part in name.split(","))
            lines.append(f"- {names}: {marked(' '.join(meaning.split()))}")
        return [*lines, ""]
    return lines + paragraphs(text)


def example(text: str) -> list[str]:
    """Code, of an interactive session or of a file."""
    language = "pycon" if text.lstrip().startswith(">>>") else "py"
    return [f"```{language}", text.strip("\n"), "```", ""]


def paragraphs(text: str) -> list[str]:
    """Prose, a paragraph a line; what ends in '::' is followed by code."""
    lines: list[str] = []
    parts = re.split(r"\n\s*\n", text.strip("\n"))
    in_code = False
    for part in parts:
        if not part.strip():
            continue
        if in_code and part.startswith("    "):
            lines += example(textwrap.dedent(part))
            continue
        in_code = part.rstrip().endswith("::")
        said = part.rstrip().removesuffix("::") + (":" if in_code else "")
        lines += [marked(" ".join(said.split())), ""]
    return lines


def marked(text: str) -> str:
    """Code and references of docstrings as Markdown's code; nothing else is markup."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"``\1``", text)
    parts = re.split(r"(``[^`]+``)", text)
    return "".join(f"`{part[2:-2]}`" if part.startswith("``") else _escaped(part) for part in parts)


def _escaped(text: str) -> str:
    escaped = re.sub(r"([\\*|$`\[\]])|(?<!\w)_|_(?!\w)", lambda m: f"\\{m[0]}", text)
    return escaped.replace("<", "&lt;").replace(">", "&gt;")


def _indented(text: str) -> tuple[str, str]:
    """What belongs to a section, dedented, and the rest."""
    lines = text.split("\n")
    end = next((k for k, line in enumerate(lines) if line and line[0] != " "), len(lines))
    return textwrap.dedent("\n".join(lines[:end])), "\n".join(lines[end:])
