"""Hook of mkdocs: formulas are set while the site is built, so that pages need no script for it.

``$…$`` and ``$$…$$`` are found by the extension arithmatex. KaTeX, which lies in docs/assets/katex
with the style sheet and the fonts that pages need, makes HTML and MathML of them. A formula that it
cannot read ends a strict build.
"""

import functools
import html
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.pages import Page

log = logging.getLogger("mkdocs.hooks.math")

KATEX = "assets/katex/katex.min.js"  # in docs/
FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">(?:\\\((?P<inline>.*?)\\\)|\\\[(?P<block>.*?)\\\])'
    r"</(?P=tag)>",
    re.DOTALL,
)
# Strings are handed over as JSON, as the engine has kinds of strings that Python has not.
RENDER = """(formula, displayMode) => JSON.stringify(
  katex.renderToString(formula, {displayMode, throwOnError: true, strict: "error"}))"""


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Set the formulas of a page; the search has read it before, as people type formulas."""

    def rendered(match: re.Match[str]) -> str:
        formula = html.unescape(match["block"] or match["inline"])
        try:
            return set_formula(Path(config.docs_dir) / KATEX, formula, match["block"] is not None)
        except ValueError as error:
            log.warning("%s: the formula %s: %s", page.file.src_uri, formula.strip(), error)
            return match[0]

    return FORMULA.sub(rendered, output)


def set_formula(katex: Path, formula: str, block: bool) -> str:
    """The HTML of a formula in LaTeX.

    Args:
        katex: its script.
        block: is it on lines of its own?

    Raises:
        ValueError: KaTeX cannot read it.
    """
    import quickjs

    try:
        found: str = json.loads(renderer(katex)(formula, block))
    except quickjs.JSException as error:
        raise ValueError(str(error).partition("\n")[0]) from error
    return found


@functools.cache
def renderer(katex: Path) -> Callable[[str, bool], Any]:
    """KaTeX, as a function of a formula and of whether it is a block."""
    import quickjs

    context = quickjs.Context()
    context.eval(katex.read_text(encoding="utf-8"))
    render: Callable[[str, bool], Any] = context.eval(RENDER)
    return render
