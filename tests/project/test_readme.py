"""README: short, whole, true to the committed results, and every command of it runs."""

import configparser
import csv
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from helpers import python
from test_docs import ROOT, blocks, logical_lines, made_by, script
from test_publishing import copied_to

README = ROOT / "README.md"
TEXT = README.read_text("utf-8")
RESULTS = ROOT / "outputs" / "results"

# Size


def numbers(markdown: str) -> list[str]:
    """Those that a reader meets: in prose and tables, not in code, targets of links or names.

    A name is a word with a number after a hyphen, such as CIFAR-10.
    """
    without_code = re.sub(r"^```.*?^```|`[^`\n]+`", "", markdown, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"(?<![\w.-])\d+(?:[.,]\d+)*", re.sub(r"\]\([^)]*\)", "]", without_code))


def test_it_is_short() -> None:
    assert len(TEXT.splitlines()) <= 150
    assert len(TEXT.split()) <= 1000  # code, links and the bars of tables included
    assert len(numbers(TEXT)) <= 50


def test_numbers_are_counted() -> None:
    code = "```bash\nl2lgd evaluate seed=1\n```\n"
    assert numbers(f"{code}Of CIFAR-10 `x=2` [3](4.md) | 0.5 | 1,000 steps: 7.") == [
        *("3", "0.5", "1,000", "7")
    ]


# Parts

PARTS = (
    r"# l2lgd\n",
    r"It is for those who",
    r"^(?:\* .+\n){3}\n",
    r"!\[[^]]+\]\(outputs/figures/figure_4\.png\)",
    r"## Which door is yours",
    r"## Install\n",
    r"^make run\b",
    r"^make test\b",
    r"^pip install -e",
    r"\| Extra \|",
    r"## A trained optimizer in your loop",
    r"LearnedOptimizer\(",
    r"`mnist-lstm_mixture`",
    r"\(docs/results/benchmark\.md\)",
    r"## The paper again",
    r"^make figures\b",
    r"^make reproduce\b",
    r"## Six commands\n\n```bash\n(?:l2lgd .+\n){6}```",
    r"## Results",
    r"\| Task \| Paper \| Ours \| Best tuned \| Ratio \|",
    r"\*\*The learned optimizer loses\*\*",
    r"^make results\b",
    r"## What is inside",
    r"section 3",
    r"## Speed\n\n\|.+\n\|[-|]+\n(?:\|.+\n){3}\n",
    r"Nothing has been measured on a GPU yet",
    r"## A guided tour of six files\n\n(?:\* \[`[^`]+`\]\(l2lgd/.+\n){6}\n",
    r"## Documentation",
    r"## Citation",
    r"```bibtex\n@inproceedings",
    r"\[CITATION\.cff\]\(CITATION\.cff\)",
    r"Licence: \[Apache-2\.0\]\(LICENSE\)",
)


def test_its_parts_stand_in_order() -> None:
    position = 0
    for part in PARTS:
        found = re.compile(part, re.MULTILINE).search(TEXT, position)
        assert found, f"no {part} after {TEXT[:position].splitlines()[-1:]}"
        position = found.start() + 1


def test_the_extras_are_all_in_its_table() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    table = TEXT.partition("| Extra |")[2].partition("\n\n")[0]
    named = re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in table.split("\n")[2:]))
    assert sorted(named) == sorted(setup["options.extras_require"])


# Commands

TYPED = [
    line.partition("  #")[0].strip()
    for block in blocks(README)
    if block.language == "bash"
    for _, line in logical_lines(block)
]
MAKE = [line for line in TYPED if line.startswith("make ")]
MADE = [
    (p, words) for line in MAKE for p in ("pytest", "python", "ruff") for words in made_by(line, p)
]
INSTEAD = {  # of the last words of a program that make calls
    "scripts/tools/reproduce.py": ["--estimate"],
    "pytest": ["-n", "0", "--collect-only", str(ROOT / "tests" / "test_architecture.py")],
    "ruff": [],  # in a folder without files
}


def test_every_command_is_run_by_a_test() -> None:
    """Calls of l2lgd, typed or made, are run by test_docs.py, the others below."""
    assert {line.split()[0] for line in TYPED} == {"l2lgd", "make", "pip"}
    spans = re.findall(r"(?<!`)`((?:make|l2lgd|pip|python) [^`\n]+)`", TEXT)
    assert spans
    assert not [span for span in spans if not any(line.startswith(span) for line in TYPED)]


@pytest.mark.parametrize(("program", "words"), MADE, ids=lambda part: str(part))
def test_other_programs_that_make_calls_run(
    program: str, words: tuple[str, ...], tmp_path: Path
) -> None:
    short = next((INSTEAD[name] for name in (program, *words) if name in INSTEAD), ["--version"])
    arguments = [str(ROOT / word) if word.startswith("scripts/") else word for word in words]
    start = [] if program == "python" else ["-m", program]
    ran = python(*start, *arguments, *short, cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_installing_by_hand_works(tmp_path: Path) -> None:
    (line,) = (line for line in TYPED if line.startswith("pip "))
    words = [*shlex.split(line)[1:], "--dry-run", "--no-deps", "--no-build-isolation", "--no-index"]
    ran = python("-m", "pip", *words, cwd=copied_to(tmp_path / "clone"), PYTHONWARNINGS="ignore")
    assert ran.returncode == 0, ran.stderr
    assert "Would install l2lgd" in ran.stdout
    assert "does not provide the extra" not in ran.stdout + ran.stderr


# Results

HAND_DESIGNED = ("sgd", "rmsprop", "adam", "nag")
ROWS = {  # the folder of results, the learned optimizer, figure, panel and step of the paper
    "Quadratics": ("quadratic", "lstm", ("4", "quadratic", "100")),
    "MNIST": ("mnist", "lstm", ("4", "mnist", "100")),
    "MNIST, two layers": ("mnist_two_layers", "lstm", ("5", "mnist_two_layers", "100")),
    "MNIST, ReLU": ("mnist_relu", "lstm", ("5", "mnist_relu", "100")),
    "MNIST, 1,000 steps": ("mnist_1000", "lstm", None),
    "CIFAR-10": ("cifar10", "lstm_per_group", ("7", "cifar10", "1000")),
    "CIFAR-2": ("cifar2", "lstm_per_group", ("7", "cifar2", "1000")),
    "Neural art, in millions": ("neural_art", "lstm", None),
}
FOREIGN = "17 foreign tasks"  # of the benchmark


def final_losses(name: str) -> dict[str, float]:
    """Of every optimizer; after 1,000 steps the figure's last point, a mean of ten steps."""
    if name == "mnist_1000":
        with (ROOT / "outputs/figures/figure_mixture.csv").open(encoding="utf-8") as file:
            rows = [
                row for row in csv.DictReader(file) if (row["panel"], row["at"]) == (name, "1000")
            ]
        return {row["optimizer"]: float(row["value"]) for row in rows}
    found = json.loads((RESULTS / name / "summary.json").read_text("utf-8"))["results"]
    return {optimizer: result["final_loss"]["mean"] for optimizer, result in found.items()}


def published(figure: str, panel: str, step: str) -> float:
    """The paper's learned optimizer at a step."""
    with (ROOT / "l2lgd/figures/published.csv").open(encoding="utf-8") as file:
        lines = [line for line in file if not line.startswith("#")]
    wanted = (figure, panel, "lstm", step)
    (loss,) = (row[4] for row in csv.reader(lines) if tuple(row[:4]) == wanted)
    return float(loss)


def shown() -> dict[str, list[str]]:
    """The cells of the table of results, without its first column."""
    table = TEXT.partition("| Task |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.split("\n")[2:]]
    return {row[0]: row[1:] for row in rows}


def rounds_to(cell: str, value: float) -> bool:
    digits = len(cell.partition(".")[2])
    return abs(float(cell) - value) <= 0.5 * 10**-digits


def test_the_table_has_every_row() -> None:
    assert list(shown()) == [*ROWS, FOREIGN]


def test_the_row_of_the_benchmark_agrees_with_its_summary() -> None:
    found = json.loads((RESULTS / "benchmark" / "summary.json").read_text("utf-8"))
    best = found["scores"]["cifar10-lstm_per_group"]
    _, ours, other, ratio = shown()[FOREIGN]
    assert f"{len(found['tasks'])} foreign tasks" == FOREIGN
    cost = best["optimizer_seconds_per_coordinate"] * 1e6
    assert ours == f"{best['diverged']} of {best['runs']} diverged, {cost:.1f} µs/parameter"
    assert other == "**tuned Adam**"
    assert rounds_to(ratio, best["loss_ratio"]["median"])


@pytest.mark.parametrize("row", ROWS)
def test_the_table_agrees_with_the_committed_results(row: str) -> None:
    name, learned, where = ROWS[row]
    losses = final_losses(name)
    ours, best = losses[learned], min(losses[optimizer] for optimizer in HAND_DESIGNED)
    scale = 1e6 if "in millions" in row else 1
    paper, *cells = shown()[row]
    assert [cell.startswith("**") for cell in cells] == [ours < best, ours > best, False]
    for cell, value in zip(cells, (ours / scale, best / scale, ours / best), strict=True):
        assert rounds_to(cell.strip("*"), value), (cell, value)
    assert paper == "–" if where is None else float(paper) == published(*where)


# The page of a package index, and citing


@pytest.mark.parametrize(
    ("markdown", "without", "with_address"),
    [
        ("[a](b.md#c)", "a (`b.md#c`)", "[a](R/blob/HEAD/b.md#c)"),
        ("[`c.py`](b/c.py)", "`b/c.py`", "[`c.py`](R/blob/HEAD/b/c.py)"),
        ("[a](https://x.org)", "[a](https://x.org)", "[a](https://x.org)"),
        ("[a](#b)", "a", "a"),
        ("`[a](b.md)`", "`[a](b.md)`", "`[a](b.md)`"),
        ("```\n[a](b.md)\n```", "```\n[a](b.md)\n```", "```\n[a](b.md)\n```"),
        ("![a](b.png)\n\nCaption.\n\nEnd.", "End.", "![a](R/raw/HEAD/b.png)\n\nCaption.\n\nEnd."),
    ],
)
def test_links_of_the_page_of_a_package(markdown: str, without: str, with_address: str) -> None:
    tool = script("package_page")
    begin = "# a\n\nb."
    assert tool.page(f"{begin}\n\n{markdown}\n", None) == f"{begin} {tool.NOTE}\n\n{without}\n"
    assert tool.page(f"{begin}\n\n{markdown}\n", "R/") == f"{begin}\n\n{with_address}\n"


def test_the_page_of_the_package_is_up_to_date() -> None:
    ran = python(str(ROOT / "scripts/tools/package_page.py"), "--check")
    assert ran.returncode == 0, ran.stderr


def test_the_citation_is_of_this_version_and_of_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert {"cff-version", "title", "message", "authors"} <= citation.keys()
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    about = setup["metadata"]
    assert (citation["version"], citation["license"]) == (about["version"], about["license"])
    (paper,) = citation["references"]
    assert f"title = {{{paper['title']}}}" in TEXT
    assert f"({paper['url']})" in TEXT
    for author in paper["authors"]:
        assert author["family-names"].split()[-1] in TEXT
