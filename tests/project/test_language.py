"""The language of README and docs: sentences that are read once, one paragraph a line."""

import re
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
GUIDES = [ROOT / "README.md", DOCS / "index.md"]
GUIDES += sorted(page for room in ("start", "how-to") for page in (DOCS / room).glob("*.md"))

MOST_COLUMNS = {"bash": 72, "text": 72, "python": 80}  # what is read without scrolling sideways
MOST_WORDS, MEAN_WORDS = 35, 20
LABEL = 3  # words; a text that is shorter and no sentence names something, and would flatter a mean

FENCE = re.compile(r" *(`{3,}|~{3,}) *([\w+-]*)")
PICTURES = r"(?:!\[[^]]*\]\([^)]*\)\s*)+$"
NOT_PROSE = re.compile(rf"\||#|<|!!!|\?\?\?|\[[^]]+\]:|{PICTURES}|[-*_]{{3,}}$")
ITEM = re.compile(r"(?:[*+-]|\d+[.)]|>|\[[ x]\])\s+")
CODE = re.compile(r"(`+)(?!`)(.+?)(?<!`)\1(?!`)")
MATH = re.compile(r"\$[^$\n]+\$")
LINK = re.compile(r"(!?)\[((?:[^][]|\[[^][]*\])*)\]\([^()]*(?:\([^()]*\)[^()]*)*\)")
ABBREVIATIONS = ("e.g.", "i.e.", "et al.", "cf.", "vs.", "fig.", "eq.", "sec.")
SENTENCE_END = re.compile(r"[.!?…]['\")\]”’]*(?=\s)")


class Line(NamedTuple):
    number: int  # in the page, from 1
    text: str
    continues: bool  # the line before it


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(markdown: str) -> Iterator[Line]:
    """Paragraphs and items of lists; no code, formulas, tables, headings, pictures or HTML."""
    fence, formula, after_prose = "", False, False
    for number, line in enumerate(markdown.splitlines(), 1):
        text, mark = line.strip(), FENCE.match(line)
        if fence:
            fence = "" if text == fence else fence
            after_prose = False
        elif mark:
            fence, after_prose = mark[1], False
        elif formula or text.startswith("$$"):
            formula = (text.count("$$") == 1) != formula
            after_prose = False
        elif not text or NOT_PROSE.match(text) or (line.startswith("    ") and not after_prose):
            after_prose = False  # the last of these is code that is indented
        else:
            yield Line(number, text, after_prose and not ITEM.match(text))
            after_prose = True


def paragraphs(markdown: str) -> Iterator[tuple[int, str]]:
    """Each, and each item of a list, with the line that it begins on."""
    begun: list[Line] = []
    for line in prose(markdown):
        if begun and not line.continues:
            yield begun[0].number, " ".join(part.text for part in begun)
            begun = []
        begun.append(line)
    if begun:
        yield begun[0].number, " ".join(part.text for part in begun)


def sentences(markdown: str) -> Iterator[tuple[int, str]]:
    """Each with the line of its paragraph; a piece of code and a formula are one word."""
    for number, paragraph in paragraphs(markdown):
        item = ITEM.match(paragraph)
        text = paragraph[item.end() :] if item else paragraph
        text = MATH.sub("formula", CODE.sub("code", text))
        text = LINK.sub(lambda link: "" if link[1] else link[2], text)
        text = re.sub(r"\*\*|__|(?<!\w)[*_]|[*_](?!\w)", "", text)
        start = 0
        for end in SENTENCE_END.finditer(text):
            if text[: end.end()].lower().endswith(ABBREVIATIONS) or _inside(text, end.end()):
                continue
            yield number, text[start : end.end()].strip()
            start = end.end()
        if text[start:].strip():
            yield number, text[start:].strip()


def _inside(text: str, index: int) -> bool:
    """Is an ellipsis between two numbers, as in 0.1 … 0.2, and not the end of a sentence?"""
    return text[:index].endswith("…") and bool(re.match(r"\s[\d−]", text[index:]))


def words(sentence: str) -> int:
    return sum(bool(re.search(r"\w", word)) for word in sentence.split())


def measured(markdown: str) -> list[tuple[int, int, str]]:
    """Line, number of words and text of all that counts as a sentence."""
    found = [(line, words(text), text) for line, text in sentences(markdown)]
    return [(k, count, text) for k, count, text in found if count >= LABEL or text[-1] in ".?!"]


@pytest.mark.parametrize("page", GUIDES, ids=name_of)
def test_sentences_are_short(page: Path) -> None:
    found = measured(page.read_text("utf-8"))
    long = [f"{name_of(page)}:{k}: {n} words: {text}" for k, n, text in found if n > MOST_WORDS]
    assert not long, "\n".join(long)
    mean = fmean(count for _, count, _ in found)
    assert mean <= MEAN_WORDS, f"{name_of(page)}: {mean:.1f} words in a sentence, on average"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_paragraph_is_one_line(page: Path) -> None:
    wrapped = [line for line in prose(page.read_text("utf-8")) if line.continues]
    assert not wrapped, "\n".join(f"{name_of(page)}:{k}: goes on: {text}" for k, text, _ in wrapped)


def fenced(markdown: str) -> Iterator[tuple[int, str, str]]:
    """The lines of blocks of code, each with its number and the language of its block."""
    fence, language = "", ""
    for number, line in enumerate(markdown.splitlines(), 1):
        mark = FENCE.match(line)
        if mark and not fence:
            fence, language = mark[1], mark[2]
        elif fence and line.strip() == fence:
            fence = ""
        elif fence:
            yield number, language, line


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_code_names_its_language(page: Path) -> None:
    nameless = [k for k, language, _ in fenced(page.read_text("utf-8")) if not language]
    assert not nameless, f"{name_of(page)}: blocks without a language, lines {nameless}"


@pytest.mark.parametrize("page", GUIDES[1:], ids=name_of)
def test_code_fits(page: Path) -> None:
    wide = [
        f"{name_of(page)}:{number}: {len(line)} columns"
        for number, language, line in fenced(page.read_text("utf-8"))
        if len(line) > MOST_COLUMNS.get(language, 100)
    ]
    assert not wide, "\n".join(wide)


@pytest.mark.parametrize(
    ("markdown", "counts"),
    [
        ("One two three. Four five six!", [3, 3]),
        ("Give `a=1 b=2. C` a try.", [4]),
        ("See [the page](a/b.md#c-d (e)) for more. Then go on.", [5, 3]),
        ("Of 0.5 (0.1 … 0.9) and more, e.g. this, it says so. Next one now.", [11, 3]),
        ("**Is it so?** Yes, it is.\n\n* An item of four\n* An item. It has two.", [3, 3, 4, 2, 3]),
        ("# A heading of words\n\n| a | b |\n|---|---|\n| one. | two. |\n\nOne two three.", [3]),
        ("```bash\nl2lgd a. b. c.\n```\n\n    indented code here\n\nOne two three.", [3]),
        ("The sum is $a + b$ here.\n\n$$\na + b = c. d\n$$\n\nOne two three.", [5, 3]),
        ("![A picture. Of two](a.png)\n![And more](b.png)\n\nOne two three.", [3]),
        ("One sentence that goes\non. And\nanother one.", [5, 3]),
        ("<!-- Not. Prose. At all. -->\n\nA label\n\nl2lgd runs. l2lgd ends.", [2, 2]),
    ],
)
def test_sentences_are_told_apart(markdown: str, counts: list[int]) -> None:
    assert [count for _, count, _ in measured(markdown)] == counts


@pytest.mark.parametrize(
    ("markdown", "wrapped"),
    [
        ("A paragraph\nthat goes on.", [2]),
        ("* An item\n  that goes on\n* Another", [2]),
        ("1. One\n2. Two\n\n   A paragraph of the second.", []),
        ("A paragraph:\n\n```text\na\nb\n```\n\nAnother.", []),
        ("# Heading\nA paragraph.\n| a | b |\n|---|---|\n| c | d |\nAnother.", []),
        ("A paragraph:\n$$\na\n+ b\n$$\nAnother.\n![A](a.png)\n![B](b.png)", []),
        ("A paragraph\n    that goes on, indented.", [2]),
    ],
)
def test_wrapped_lines_are_found(markdown: str, wrapped: list[int]) -> None:
    assert [line.number for line in prose(markdown) if line.continues] == wrapped
