"""Hooks of mkdocs: links that leave ``docs/`` work on the site as they do on a code host.

Pictures, pages and tables below ``outputs/`` that a page refers to become part of the site. Other
links lead to the repository, at ``repo_url``; where mkdocs.yml has none, the path stands there as
code. The files themselves stay as they are.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

OUTPUTS = "outputs/"
REFERENCE = "reference/"
SUFFIXES = (".png", ".svg", ".md", ".csv")  # of what is taken from there
FENCED = r"^ *(?P<fence>`{3,}|~{3,}).*?^ *(?P=fence)"
SPAN = r"(?P<ticks>`+)(?!`)(?:(?!\n\n).)+?(?<!`)(?P=ticks)(?!`)"
LINK = r"(?P<picture>!?)\[(?P<text>(?:[^\[\]]|!\[[^\[\]]*\]\([^()]*\))*)\]\((?P<to>[^()\s]+)\)"
PATTERN = re.compile(f"{FENCED}|{SPAN}|{LINK}", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what pages refer to below ``outputs/``, and what that refers to."""
    root = root_of(config)
    pages = [file.src_uri for file in files.documentation_pages()]
    docs = Path(config.docs_dir).relative_to(root)
    paths = [(docs / uri).as_posix() for uri in pages]
    while paths:
        page = paths.pop()
        for path in linked(page, (root / page).read_text(encoding="utf-8")):
            if taken(path, root) and files.get_file_from_path(path) is None:
                source = str(root / path)
                added = File.generated(
                    config, path, abs_src_path=source, inclusion=InclusionLevel.NOT_IN_NAV
                )
                files.append(added)
                paths += [path] if path.endswith(".md") else []
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links of a page that would lead out of the site."""
    root = root_of(config)
    docs = Path(config.docs_dir).relative_to(root).as_posix()
    uri = page.file.src_uri
    here = uri if uri.startswith(OUTPUTS) else f"{docs}/{uri}"
    start = posixpath.dirname(uri) or "."

    def rewritten(match: re.Match[str]) -> str:
        if match["to"] is None:  # code
            return match[0]
        target, hash_sign, anchor = match["to"].partition("#")
        path = resolved(here, target)
        if path is None:
            return match[0]
        text = PATTERN.sub(rewritten, match["text"])  # a picture can be a link
        in_docs = path.removeprefix(f"{docs}/")
        site = in_docs if in_docs != path else path if taken(path, root) else None
        if site is not None:
            where = f"{posixpath.relpath(site, start)}{hash_sign}{anchor}"
            return f"{match['picture']}[{text}]({where})"
        if not (root / path).exists():
            return match[0]  # for --strict to complain about
        if config.repo_url:
            where = f"{config.repo_url.rstrip('/')}/blob/HEAD/{path}{hash_sign}{anchor}"
            return f"{match['picture']}[{text}]({where})"
        named = path.endswith(text.strip("`"))
        return f"`{path}`" if named else f"{text} (`{path}`)"

    return PATTERN.sub(rewritten, markdown)


def on_page_content(html: str, page: Page, **_: object) -> str:
    """Let the style sheet know pages of the reference, whose tables are long."""
    if not page.file.src_uri.startswith(REFERENCE):
        return html
    return f'<div class="{REFERENCE.strip("/")}">\n{html}\n</div>'


def root_of(config: MkDocsConfig) -> Path:
    """The repository: the folder of mkdocs.yml."""
    return Path(config.config_file_path).parent


def linked(page: str, markdown: str) -> Iterator[str]:
    """The paths in the repository that a page, a path there itself, refers to."""
    for match in PATTERN.finditer(markdown):
        if match["to"] is None:
            continue
        yield from linked(page, match["text"])
        path = resolved(page, match["to"].partition("#")[0])
        if path is not None:
            yield path


def resolved(page: str, target: str) -> str | None:
    """The path in the repository that a page's link means; None for an address or an anchor."""
    if not target or target.startswith("/") or re.match(r"[a-z][a-z0-9+.-]*:", target):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), target))


def taken(path: str, root: Path) -> bool:
    """Is it one of the files outside ``docs/`` that the site has?"""
    return path.startswith(OUTPUTS) and path.endswith(SUFFIXES) and (root / path).is_file()
