"""Write PACKAGE.md, what a package index shows: README without links that lead nowhere there.

An index has none of the repository's files. Where mkdocs.yml names the repository's address
(``repo_url``), links and pictures lead there. Where it does not, the path stands beside a link's
text, and pictures are left out with the paragraph below them, their caption.

python scripts/tools/package_page.py            # write it
python scripts/tools/package_page.py --check    # is it up to date?
"""

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGE = ROOT / "PACKAGE.md"
NOTE = "Paths in brackets are those of files in the repository."

CODE = r"^(?P<fence>`{3,}).*?^(?P=fence)|(?P<ticks>`+)(?!`)[^\n]+?(?<!`)(?P=ticks)(?!`)"
LINK = re.compile(r"\[((?:[^][]|\[[^][]*\])*)\]\(([^()\s]+)\)")
TEXT = re.compile(rf"{CODE}|(?P<picture>!?){LINK.pattern}", re.MULTILINE | re.DOTALL)
PICTURE_WITH_CAPTION = re.compile(r"^!\[[^]]*\]\((?!\w+:)[^()]+\)\n\n[^\n#`|*]+\n\n", re.MULTILINE)


def page(readme: str, address: str | None) -> str:
    """The text of the page, with the repository at ``address``."""

    def elsewhere(match: re.Match[str]) -> str:
        target = match[5]
        if match["fence"] or match["ticks"] or re.match(r"\w+:", target):
            return match[0]
        if target.startswith("#"):
            return match[4]  # an index gives headings no anchors
        if address is None:
            path = f"`{target}`"
            return path if target.endswith(match[4].strip("`")) else f"{match[4]} ({path})"
        kind = "raw" if match["picture"] else "blob"
        return f"{match['picture']}[{match[4]}]({address.rstrip('/')}/{kind}/HEAD/{target})"

    if address is None:
        readme = PICTURE_WITH_CAPTION.sub("", readme)
        begin = readme.index("\n\n", readme.index("\n\n") + 2)  # after the first paragraph
        readme = f"{readme[:begin]} {NOTE}{readme[begin:]}"
    return TEXT.sub(elsewhere, readme)


def repository() -> str | None:
    """The address in mkdocs.yml."""
    found = re.search(r"^repo_url: *(\S+)", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    return found[1] if found else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, say whether it is old")
    new = page(README.read_text("utf-8"), repository())
    if parser.parse_args().check:
        old = PAGE.read_text("utf-8") if PAGE.exists() else ""
        if old != new:
            print(f"{PAGE.name} is old: python scripts/tools/package_page.py", file=sys.stderr)
        return int(old != new)
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
