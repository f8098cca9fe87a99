"""The documentation: the site builds, links lead somewhere, and what pages show to type works.

Commands are run with sizes of a second.
"""

import functools
import importlib
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from subprocess import CompletedProcess
from types import ModuleType, SimpleNamespace
from typing import Any

import published
import pytest
from helpers import HAND_DESIGNED, NO_NETWORK, l2lgd, python, served, thinned
from PIL import Image

from l2lgd.config.overrides import POSITIONAL
from l2lgd.pretrained.conversion import convert
from l2lgd.pretrained.weights import SHIPPED

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "own_package"
SHOWN = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINKED = [path for name in ("CONTRIBUTING.md", "CHANGELOG.md") if (path := ROOT / name).is_file()]
LINKED += [*SHOWN, *sorted((ROOT / "examples").rglob("*.md"))]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    line: int  # of its first line in the page, from 1
    language: str
    lines: list[str]


def blocks(page: Path) -> Iterator[Block]:
    """Those of a page, from top to bottom."""
    fence, begun = "", Block(0, "", [])
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        mark = re.match(r" *(`{3,}|~{3,}) *([\w+-]*)", line)
        if mark and not fence:
            fence, begun = mark[1], Block(number + 1, mark[2], [])
        elif fence and line.strip() == fence:
            yield begun
            fence = ""
        elif fence:
            begun.lines.append(line)
    assert not fence, f"{name_of(page)}:{begun.line}: a block that does not end"


# Links


def prose(page: Path) -> str:
    """The text of a page, with spaces in the place of everything that is code."""
    lines = page.read_text("utf-8").splitlines()
    for block in blocks(page):
        for index in range(block.line - 2, block.line + len(block.lines)):
            lines[index] = ""
    span = r"(`+)(?!`)((?:(?!\n\n).)+?)(?<!`)\1(?!`)"
    return re.sub(span, lambda m: re.sub(r"[^\n]", " ", m[0]), "\n".join(lines), flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What ``#`` may be followed by in a link to a page, as code hosts make it of headings."""
    text, code = page.read_text("utf-8").splitlines(), set()
    for block in blocks(page):
        code |= set(range(block.line - 1, block.line + len(block.lines)))
    found: dict[str, int] = {}
    names = set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", "\n".join(text)))
    for number, line in enumerate(text):
        heading = re.match(r"#{1,6} +(.*?) *#*$", line)
        if heading is None or number in code:
            continue
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading[1])
        slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        names.add(f"{slug}-{found[slug]}" if slug in found else slug)
        found[slug] = found.get(slug, 0) + 1
    return names


def links(page: Path) -> Iterator[tuple[int, str]]:
    """The line and the target of every link and picture."""
    text = prose(page)
    for pattern in (r"\]\(\s*<?([^()\s>]+)", r"^ *\[[^]]+\]: *(\S+)", r"\b(?:src|href)=\"([^\"]+)"):
        for match in re.finditer(pattern, text, re.MULTILINE):
            yield text.count("\n", 0, match.start()) + 1, match[1]


@pytest.mark.parametrize("page", LINKED, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for line, target in links(page):
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        path, _, anchor = target.partition("#")
        there = page.parent / path if path else page
        if not there.exists():
            broken.append(f"{name_of(page)}:{line}: there is no {target}")
        elif anchor and there.suffix == ".md" and anchor not in anchors(there):
            broken.append(f"{name_of(page)}:{line}: {path or 'the page'} has no heading #{anchor}")
    assert not broken, "\n".join(broken)


# The site


def script(name: str) -> ModuleType:
    """A module of scripts/tools/."""
    return importlib.import_module(name)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as strictly as can be."""
    pytest.importorskip("mkdocs", reason="the site needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    options = ("--strict", "--site-dir", str(folder))  # --quiet would have it overlook warnings
    ran = python("-m", "mkdocs", "build", *options, cwd=ROOT, NO_MKDOCS_2_WARNING="1")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return folder


def html_of(site: Path, page: Path) -> str:
    return (site / page.relative_to(ROOT / "docs")).with_suffix(".html").read_text("utf-8")


NEEDED = r"<(?:script|link|img)\b[^>]*?\s(?:src|href)=\"?([^\"\s>]+)"  # by a page, of other files


def test_the_site_has_every_page_and_needs_no_other_host(site: Path) -> None:
    for page in SHOWN[1:]:
        folder = (site / page.relative_to(ROOT / "docs")).parent
        found = re.findall(NEEDED, html_of(site, page))
        assert found
        for target in found:
            assert not re.match(r"\w+:|//", target), f"{name_of(page)}: {target}"
            assert (folder / target.partition("#")[0]).exists(), f"{name_of(page)}: {target}"
    assert (site / "outputs" / "figures" / "figure_4.png").is_file()


def test_style_sheets_of_the_site_need_no_other_host(site: Path) -> None:
    sheets = sorted(site.rglob("*.css"))
    assert site / "assets" / "katex" / "katex.min.css" in sheets
    for sheet in sheets:
        for target in re.findall(r"url\([\"']?([^\"')]+)", sheet.read_text("utf-8")):
            if not target.startswith("data:"):
                assert (sheet.parent / target).is_file(), f"{sheet}: {target}"


def test_the_search_knows_every_page_where_pages_are_opened_from_disk(site: Path) -> None:
    script_of_index = (site / "search" / "search_index.js").read_text("utf-8")
    index = json.loads(script_of_index.removeprefix("var __index = "))
    known = {entry["location"].partition("#")[0] for entry in index["docs"]}
    for page in SHOWN[1:]:
        assert page.relative_to(ROOT / "docs").with_suffix(".html").as_posix() in known
    html = (site / "index.html").read_text("utf-8")
    assert re.search(r"<script src=\"?assets/iframe-worker/shim\.js", html)


def test_every_page_leads_to_the_one_before_and_the_next(site: Path) -> None:
    links = [re.findall(r'rel="?(prev|next)\b', html_of(site, page)) for page in SHOWN[1:]]
    both = [{"prev", "next"} <= set(found) for found in links]
    assert both.count(False) == 2, "but for the first page and the last"


# Formulas


def formulas(page: Path) -> list[str]:
    """Those of a page, as LaTeX."""
    return re.findall(r"\$\$.+?\$\$|(?<![\\$\w])\$(?=\S)[^$\n]+?(?<=\S)\$(?!\w)", prose(page), re.S)


def test_formulas_are_set(site: Path) -> None:
    for page in SHOWN[1:]:
        html = html_of(site, page)
        assert "arithmatex" not in html, name_of(page)
        assert html.count('class="katex"') >= len(formulas(page)), name_of(page)


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (r'<span class="arithmatex">\(a_{t+1}\)</span>', '<span class="katex">'),
        (r'<span class="arithmatex">\(|x| &lt; 1\)</span>', "<mo>&lt;</mo>"),
        ('<div class="arithmatex">\\[\na = b\n\\]</div>', '<span class="katex-display">'),
    ],
)
def test_a_formula_becomes_html_and_mathml(before: str, expected: str) -> None:
    pytest.importorskip("quickjs", reason="the site needs the extra docs")
    config: Any = SimpleNamespace(docs_dir=str(ROOT / "docs"))
    after = script("mkdocs_math").on_post_page(f"<p>{before}</p>", None, config)
    assert expected in after
    assert "<math" in after
    assert "arithmatex" not in after


def test_a_formula_that_cannot_be_read_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("quickjs", reason="the site needs the extra docs")
    page: Any = SimpleNamespace(file=SimpleNamespace(src_uri="page.md"))
    config: Any = SimpleNamespace(docs_dir=str(ROOT / "docs"))
    wrong = r'<span class="arithmatex">\(\nosuchthing\)</span>'
    assert script("mkdocs_math").on_post_page(wrong, page, config) == wrong
    assert "page.md" in caplog.text
    assert "nosuchthing" in caplog.text


# Links that leave the docs


@pytest.mark.parametrize(
    ("markdown", "without", "with_repository"),
    [
        ("[a](method.md#x)", "[a](method.md#x)", "[a](method.md#x)"),
        ("[a](https://x.org)", "[a](https://x.org)", "[a](https://x.org)"),
        (
            "![a](../outputs/figures/figure_4.png)",
            "![a](outputs/figures/figure_4.png)",
            "![a](outputs/figures/figure_4.png)",
        ),
        ("`[a](../setup.cfg)`", "`[a](../setup.cfg)`", "`[a](../setup.cfg)`"),
        ("[`setup.cfg`](../setup.cfg)", "`setup.cfg`", "[`setup.cfg`](R/blob/HEAD/setup.cfg)"),
        ("[set](../setup.cfg#x)", "set (`setup.cfg`)", "[set](R/blob/HEAD/setup.cfg#x)"),
        ("[a](../nowhere.py)", "[a](../nowhere.py)", "[a](../nowhere.py)"),
    ],
)
def test_links_out_of_the_docs_are_rewritten(
    markdown: str, without: str, with_repository: str
) -> None:
    pytest.importorskip("mkdocs", reason="the site needs the extra docs")
    hooks = script("mkdocs_hooks")
    page: Any = SimpleNamespace(file=SimpleNamespace(src_uri="index.md"))
    for address, expected in ((None, without), ("R/", with_repository)):
        where = {"config_file_path": str(ROOT / "mkdocs.yml"), "docs_dir": str(ROOT / "docs")}
        config: Any = SimpleNamespace(**where, repo_url=address)
        assert hooks.on_page_markdown(markdown, page, config, None) == expected


# Pages that scripts write

WRITTEN = ("config_reference", "python_reference")


@pytest.mark.parametrize("name", WRITTEN)
def test_pages_that_a_script_writes_are_up_to_date(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name, "--check"])
    status = script(name).main()
    assert status == 0, capsys.readouterr().err


def test_a_page_that_is_not_up_to_date_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generated = script("generated")
    right, stale, left = (tmp_path / f"{name}.md" for name in ("right", "stale", "left"))
    for path in (right, stale, left):
        path.write_text("text", encoding="utf-8")
    pages = {right: "text", stale: "other text", tmp_path / "new" / "page.md": "new"}

    def status(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["a_script.py", *words])
        found: int = generated.run("a_script.py", "", pages, [tmp_path])
        return found

    assert status("--check") == 1
    assert stale.read_text(encoding="utf-8") == "text"
    assert left.exists()
    assert status() == 0
    assert {path: path.read_text(encoding="utf-8") for path in pages} == pages
    assert not left.exists()
    assert status("--check") == 0


def test_options_of_the_reference_have_types_and_meanings() -> None:
    page = (ROOT / "docs" / "reference" / "verbs" / "meta-train.md").read_text("utf-8")
    assert "| `threads` | int or null | `null` | CPU threads; null leaves it to PyTorch |" in page
    assert "| `meta_steps` | int | `10000`, or the task's |" in page
    tasks = (ROOT / "docs" / "reference" / "groups" / "task.md").read_text("utf-8")
    of_mnist = tasks.partition("## `task=mnist`")[2].partition("\n## ")[0].splitlines()
    assert "meta_steps=1400" in of_mnist
    assert "opt.initial_output=0.0" in of_mnist
    assert "unroll.lengths=[20,50,50,50,50,100,100,100]" in of_mnist


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("One ``a`` and :meth:`step`.\n\nA long\nline.", "One `a` and `step`.\n\nA long line.\n"),
        ("Args:\n    a, b: of\n        two.\n", "**Arguments**\n\n- `a`, `b`: of two.\n"),
        ("S.\n\nReturns:\n    θ_0 (B, *n).", "S.\n\n**Returns**\n\nθ_0 (B, \\*n).\n"),
        (
            "Raises:\n    A: one.\n    B: two.\n\nMore.",
            "**Errors**\n\n- `A`: one.\n- `B`: two.\n\nMore.\n",
        ),
        ("Example:\n    >>> 1 + 1\n    2", "**Example**\n\n```pycon\n>>> 1 + 1\n2\n```\n"),
        ("As in::\n\n    a = 1\n\nIt is.", "As in:\n\n```py\na = 1\n```\n\nIt is.\n"),
    ],
)
def test_docstrings_become_markdown(docstring: str, expected: str) -> None:
    assert "\n".join(script("docstrings").as_markdown(docstring)) == expected


# Code


@pytest.fixture(scope="module")
def variables(small_data: Path) -> dict[str, str]:
    """Of the environment: small data, the example as if it were installed, no network."""
    changes = {"L2LGD_DATA": str(small_data), "WANDB_MODE": "disabled", "PYTHONPATH": str(EXAMPLE)}
    return {**NO_NETWORK, **changes}


PYTHON = {page: [b for b in blocks(page) if b.language == "python"] for page in SHOWN}
PYTHON[ROOT / "docs" / "how-to" / "clients.md"] = []  # run by scripts/clients: see test_clients.py


@pytest.mark.parametrize("page", [page for page in SHOWN if PYTHON[page]], ids=name_of)
def test_python_on_a_page_runs(page: Path, variables: dict[str, str], tmp_path: Path) -> None:
    code = ""
    for block in PYTHON[page]:  # on the lines of the page, for tracebacks
        code += "\n" * (block.line - 1 - code.count("\n")) + "\n".join(block.lines) + "\n"
    for kind in (kind for kind in published.TREES if f"{kind}.safetensors" in code):
        file = published.write(kind, tmp_path / f"{kind}.state")
        convert(kind, file, tmp_path / f"{kind}.safetensors", "")
    ran = served("-c", code, cwd=tmp_path, **variables)
    assert ran.returncode == 0, f"{name_of(page)}: {ran.stderr}"


# Commands

SHELLS = ("", "bash", "sh", "shell", "console")
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "l2lgd")


@dataclass(frozen=True)
class Command:
    """A command line of l2lgd on a page."""

    line: int
    words: tuple[str, ...]  # after the program
    folder: str = "."  # where a cd before it leads
    torchrun: bool = False


def commands(page: Path) -> Iterator[Command]:
    """Those in blocks that are for a shell, and those that make runs for others there."""
    for block in blocks(page):
        if block.language not in SHELLS:
            continue
        folder = "."
        for line, text in logical_lines(block):
            for part in re.split(r"\s(?:&&|\|\|?|;|>>?|2>&1|&)(?:\s|$)", text.removeprefix("$ ")):
                if part.startswith("make "):
                    yield from (Command(line, words) for words in made_by(part, "l2lgd"))
                if not re.match(r"([A-Z_]+=\S+ +)*(l2lgd|torchrun|python3? -m l2lgd|cd) ?", part):
                    continue
                words = shlex.split(part, comments=True)
                words = words[next(k for k, word in enumerate(words) if "=" not in word) :]
                if words[0] == "cd":
                    folder = words[1]
                elif words[0] == "torchrun":
                    after = tuple(words[words.index("l2lgd") + 1 :])
                    yield Command(line, after, folder, torchrun=True)
                else:
                    yield Command(line, tuple(words[words.index("l2lgd") + 1 :]), folder)


PROGRAMS = set(re.findall(r"\$\(BIN\)/(\w+)", (ROOT / "Makefile").read_text("utf-8")))
NOTE_DOWN = """#!/bin/sh
for word; do printf '%s\\037' "$word" >> "$0.calls"; done
echo >> "$0.calls"
"""


@functools.cache
def made_by(line: str, program: str) -> list[tuple[str, ...]]:
    """The words after a program in every call of it that a command line of make makes.

    Make runs in earnest, with programs in the place of an installation's that only note that.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name in PROGRAMS:
            path = Path(folder, name)
            path.write_text(NOTE_DOWN, encoding="utf-8")
            path.chmod(0o755)
        Path(folder, ".installed").touch()
        words = [*shlex.split(line, comments=True), f"BIN={folder}", "RUN_DIR=made"]
        variables = {**os.environ, "MAKEFLAGS": ""}  # of a make that runs the tests
        ran = subprocess.run(
            words, cwd=ROOT, env=variables, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, f"{line}: {ran.stderr}"
        calls = Path(folder, f"{program}.calls")
        noted = calls.read_text("utf-8").splitlines() if calls.exists() else []
        return [tuple(call.split("\037")[:-1]) for call in noted]


def logical_lines(block: Block) -> Iterator[tuple[int, str]]:
    """Lines without those backslashes that go on on the next one, each with its number."""
    begun, number = "", 0
    for offset, line in enumerate(block.lines):
        number = number if begun else block.line + offset
        begun += line.strip()
        if begun.endswith("\\"):
            begun = begun[:-1]
            continue
        yield number, begun
        begun = ""


# Sizes that every command gets, in the place of its own.
ONE_META_STEP = {
    "meta_steps": "1",
    "num_functions": "1",
    "validation_functions": "1",
    "validate_every": "1",
    "num_steps": "2",
    "unroll.lengths": "[2]",
    "unroll.horizons": "null",
}
COUNTS = ("quadratic", "mnist", "mnist_long", "grid", "cifar", "neural_art")
COUNTS += ("sharing", "sharing_mnist")
SMALL: dict[str, dict[str, str]] = {
    "meta-train": {**ONE_META_STEP, "threads": "1", "logger": "none"},
    "tune": {**ONE_META_STEP, "trials": "1", "threads": "1", "logger": "none"},
    "evaluate": {
        **{"num_functions": "1", "num_steps": "2", "tune_functions": "1"},
        **{"threads": "1", "logger": "none"},
    },
    "check": {"threads": "1"},
    "benchmark": {
        **{"tasks": "[quadratic_ill]", "optimizers": "[untuned_adam]", "workers": "1"},
        **{"seeds": "1", "trials": "1", "tune_functions": "1", "scale": "small"},
    },
    "stylize": {"size": "16", "num_steps": "2", "threads": "1"},
    "figures": {f"scale.functions.{count}": "1" for count in COUNTS} | {"workers": "1"},
}
ONLY_LOOK = {"--help", "-h", "--cfg", "-c", "--info", "-i"}  # what runs nothing
PLACEHOLDER = re.compile(r"…|\.\.\.|<[^<>]+>|\b(?:FILE|FOLDER|DIR|RUN|PATH)\b")
PICTURES = (".jpg", ".jpeg", ".png")
WEIGHTS = ("checkpoint", "initial_weights")
PLACES = ("hydra.run.dir=", "tuned_dir=")  # where an evaluation leaves its results


@dataclass
class Stage:
    """Where the commands of a page run one after the other, and what stands in for placeholders."""

    folder: Path
    gallery: Mapping[str, str]
    variables: Mapping[str, str]  # of the environment
    data: Path
    tried: set[tuple[str, ...]]  # evaluations that ran on another page, or under another name
    used: Sequence[str] = ()  # words of the page's commands, but for where each leaves its results
    made: dict[str, str] = field(default_factory=dict)

    def ready(self, command: Command) -> list[list[str]]:
        """The words of one command, or two, that are tried in its place."""
        words = [str(word) for word in command.words]
        verb = words[0]
        if verb not in SMALL or ONLY_LOOK & set(words):
            return [[self._in_place("checkpoint", word, words) for word in words]]
        words = [self._replaced(_fewer_tuned(word), words) for word in words]
        if verb == "stylize":
            self._lay_out_pictures(words)
        small = self._small(verb, words)
        if command.torchrun:
            small["num_functions"] = "2"  # one for each process
        given = {word.lstrip("+").partition("=")[0] for word in words if "=" in word}
        going_on = bool({"resume", "rerun"} & given)  # in the sizes that it was begun with
        added = [f"{k}={v}" for k, v in small.items() if not going_on or k in given]
        kept = [word for word in words if word.lstrip("+").partition("=")[0] not in small]
        flags = {"--multirun", "-m"}
        if flags & set(words):
            kept = [_swept(word, 2) for word in kept]
        plain = [word for word in kept if not word.startswith(("hydra/launcher", "hydra.launcher"))]
        if plain == kept:
            return [[*kept, *added]]
        once = [_swept(word, 1) for word in kept if word not in flags]
        return [[*once, *added, "--cfg", "hydra"], [*plain, *added]]  # composed; run without

    def _small(self, verb: str, words: Sequence[str]) -> dict[str, str]:
        small = dict(SMALL[verb])
        if verb == "evaluate" and not any(word.startswith("baselines=") for word in words):
            small["baselines"] = "[adam]"  # tuning four for each command of a page takes minutes
        if any(word.startswith(("logger.", "logger=tensorboard")) for word in words):
            small.pop("logger", None)
        task = " ".join(word for word in words if word.startswith("task="))
        if verb == "stylize" or "neural_art" in task:
            small["task.vgg.weights"] = self.gallery["vgg"]
            small |= {} if verb == "stylize" else {"task.size": "16"}
        if "cifar" in task:
            small["task.batch_size"] = "8"
        if "figure=all" in words:
            small["figure"] = "4"
        return small

    def _replaced(self, word: str, words: Sequence[str]) -> str:
        name, equals, value = word.partition("=")
        if not equals:
            return word
        if value.startswith("[") and value.endswith("]"):
            parts = [part for part in value[1:-1].split(",") if part != "…"]
            inside = [self._in_place(name, part, words) for part in parts]
            return f"{name}=[{','.join(inside)}]"
        return f"{name}={self._in_place(name, value, words)}"

    def _in_place(self, name: str, value: str, words: Sequence[str]) -> str:
        """A value, or in the place of a placeholder what earlier commands left or stands in."""
        if not PLACEHOLDER.search(value):
            return value
        pattern = PLACEHOLDER.sub("*", value)
        said = bool(pattern.strip("*/")) and not Path(pattern).is_absolute()
        found = sorted(self.folder.glob(pattern)) if said else []
        if found:
            return found[-1].relative_to(self.folder).as_posix()
        known = {
            "task.vgg.weights": self.gallery["vgg"],
            "vgg": self.gallery["vgg"],
            "task.content": self.gallery["content"],
            "task.style": self.gallery["style"],
            "task.data.root": str(self.data / "mnist"),
            "data_dir": str(self.data),
            "weights_dir": str(SHIPPED),
        }
        if name in WEIGHTS:
            return str(_weights_for(words))
        if name in ("resume", "of", "reuse"):
            return self._run_of("meta-train" if name == "resume" else "evaluate")
        return known.get(name, value)

    def _run_of(self, verb: str) -> str:
        """The folder of a small run."""
        if verb not in self.made:
            self.made[verb] = f"a_{verb}"
            small = [f"{name}={value}" for name, value in SMALL[verb].items()]
            words = [verb, "task=quadratic", *small, f"hydra.run.dir={self.made[verb]}"]
            ran = l2lgd(*words, cwd=self.folder, **self.variables)
            assert ran.returncode == 0, ran.stderr
        return self.made[verb]

    def _lay_out_pictures(self, words: Sequence[str]) -> None:
        """Write those that a command names."""
        outputs = [after for word, after in itertools.pairwise(words) if word == "-o"]
        for word in words:
            name, equals, value = word.partition("=")
            path = self.folder / (value if equals else word)
            wanted = name in POSITIONAL["stylize"] if equals else word not in outputs
            if wanted and path.suffix in PICTURES and not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.open(self.gallery["style"]).save(path)

    def _is_tried(self, words: Sequence[str]) -> bool:
        """Did the same evaluation run before, whose folder no command of this page goes on from?"""
        named = [word for word in words if word.startswith(PLACES)]
        folders = [word.partition("=")[2] for word in named]
        goes_on = any(word.startswith(("checkpoint", "weights_dir", "reuse")) for word in words)
        if words[0] != "evaluate" or goes_on or any(f in u for f in folders for u in self.used):
            return False
        same = tuple(sorted(set(words) - set(named)))
        found = same in self.tried
        self.tried.add(same)
        return found

    def run(self, command: Command) -> tuple[int, str]:
        """The exit status of a command, and what it said with the words that were tried."""
        folder = self.folder / command.folder
        if not folder.exists() and (ROOT / command.folder).is_dir():
            shutil.copytree(ROOT / command.folder, folder)
        if command.words[0] == "convert":
            published.write(command.words[1], folder / command.words[2])
        for words in self.ready(command):
            if self._is_tried(words):
                continue
            run = _torchrun if command.torchrun else l2lgd
            ran = run(*words, cwd=folder, **self.variables)
            if ran.returncode:
                return ran.returncode, f"tried as: l2lgd {shlex.join(words)}\n{ran.stderr}"
        return 0, ""


def _fewer_tuned(word: str) -> str:
    """Baselines with one that is tuned, where there are several."""
    if not word.startswith("baselines=["):
        return word
    names = word.removeprefix("baselines=[").removesuffix("]").split(",")
    tuned = [name for name in names if name in HAND_DESIGNED]
    return f"baselines=[{','.join(name for name in names if name not in tuned[1:])}]"


def _swept(word: str, most: int) -> str:
    """The first of the numbers that a sweep goes over; names are all tried, if more than one."""
    name, equals, value = word.partition("=")
    values = value.split(",")
    if not equals or value.startswith(("[", "{", "'", '"')) or len(values) == 1:
        return word
    numbers = all(re.fullmatch(r"[-+\d.e]+", part) for part in values)
    return f"{name}={','.join(values[:most] if numbers or most == 1 else values)}"


def _weights_for(words: Sequence[str]) -> Path:
    """Shipped weights that fit the task and the optimizer of a command."""
    options = dict(word.split("=", 1) for word in words if "=" in word)
    task = options.get("task", "mnist")
    usual = {"cifar10": "lstm_per_group", "cifar_sub": "lstm_sub"}.get(task, "lstm")
    opt = options.get("opt", usual)
    found = sorted(SHIPPED.glob(f"{task}-{opt}.safetensors")) or sorted(
        SHIPPED.rglob(f"*-{opt}.safetensors")
    )
    assert found, f"no shipped weights for {shlex.join(words)}"
    return found[0]


_under_torchrun: dict[tuple[str, ...], CompletedProcess[str]] = {}  # several pages have the same


def _torchrun(*words: str, cwd: Path, **variables: str) -> CompletedProcess[str]:
    if words not in _under_torchrun:
        _under_torchrun[words] = python(*TORCHRUN, *words, cwd=cwd, **variables)
    return _under_torchrun[words]


COMMANDS = {page: list(commands(page)) for page in SHOWN}


def evaluates_figures(command: Command) -> bool:
    """Is it one that evaluates what figures show, at rates that are tuned for MNIST itself?"""
    of_own = any(word.startswith("of=") for word in command.words)
    return command.words[:1] == ("figures",) and not of_own and not ONLY_LOOK & set(command.words)


def assert_all_run(page: Path, stage: Stage, chosen: Sequence[Command]) -> None:
    failed = []
    stage.used = [word for c in chosen for word in c.words if not word.startswith(PLACES)]
    for command in chosen:
        status, said = stage.run(command)
        if status:
            typed = f"l2lgd {shlex.join(command.words)}"
            failed.append(f"{name_of(page)}:{command.line}: {typed}\nstatus {status}, {said}")
    assert not failed, "\n\n".join(failed)


@pytest.fixture(scope="module")
def tried() -> set[tuple[str, ...]]:
    return set()


@pytest.fixture
def stage(
    variables: dict[str, str],
    gallery: dict[str, str],
    small_data: Path,
    tried: set[tuple[str, ...]],
    tmp_path: Path,
) -> Stage:
    return Stage(tmp_path, gallery, variables, small_data, tried)


@pytest.mark.parametrize("page", [page for page in SHOWN if COMMANDS[page]], ids=name_of)
def test_commands_on_a_page_run(page: Path, stage: Stage) -> None:
    assert_all_run(page, stage, [c for c in COMMANDS[page] if not evaluates_figures(c)])


@pytest.mark.parametrize(
    "page", [page for page in SHOWN if any(map(evaluates_figures, COMMANDS[page]))], ids=name_of
)
@pytest.mark.parametrize("way", thinned(["composed", "run"], ["composed"]))
def test_commands_that_draw_figures_run(page: Path, way: str, stage: Stage, mnist_dir: str) -> None:
    """Composed only where tests are thinned; tests/figures evaluates, and draws every figure."""
    stage.variables = {**stage.variables, "L2LGD_DATA": mnist_dir}
    look = ("--cfg", "job") if way == "composed" else ()
    chosen = [c for c in COMMANDS[page] if evaluates_figures(c)]
    assert_all_run(page, stage, [replace(c, words=(*c.words, *look)) for c in chosen])
