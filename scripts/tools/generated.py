"""Pages that scripts write: written where they have changed, or only checked."""

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
SUFFIX = ".md"
BEGIN, END = "<!-- generated: begin -->", "<!-- generated: end -->"


def run(script: str, purpose: str, pages: Mapping[Path, str], folders: Iterable[Path] = ()) -> int:
    """The command line of such a script; returns the exit status.

    Args:
        script: its file, which a page that is out of date names.
        purpose: of the script, for its help.
        pages: what each page should say.
        folders: hold nothing but such pages; others that lie there are removed.
    """
    parser = argparse.ArgumentParser(description=purpose)
    parser.add_argument("--check", action="store_true", help="only say what is out of date")
    stale = out_of_date(pages, folders)
    if parser.parse_args().check:
        names = ", ".join(path.name for path in stale)
        if stale:
            print(f"out of date: {names}; run python scripts/tools/{script}", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        if path in pages:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(pages[path], encoding="utf-8")
        else:
            path.unlink()
    return 0


def out_of_date(pages: Mapping[Path, str], folders: Iterable[Path] = ()) -> list[Path]:
    """Pages that are missing, say something else, or should not be there."""
    stale = [path for path, text in pages.items() if not _says(path, text)]
    left = (path for folder in folders for path in sorted(folder.glob(f"*{SUFFIX}")))
    return stale + [path for path in left if path not in pages]


def _says(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


def between_marks(page: Path, lines: Iterable[str]) -> str:
    """A page that is written by hand, but for these lines between two comments."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    return before + "\n".join([BEGIN, "", *lines, "", END]) + rest.partition(END)[2]
