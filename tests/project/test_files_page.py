"""docs/reference/files.md has every file that a run leaves behind, and every field in them."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from helpers import art_options, json_lines, l2lgd

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "files.md"
SMALL = ("task=quadratic", "num_functions=2", "num_steps=3", "threads=1", "logger=none")
META = ("meta_steps=3", "validate_every=2", "validation_functions=2", "checkpoint_every=1")
TUNE = ("lowest_rate=0.01", "highest_rate=0.03", "trials=1", "baselines=[adam]")
RUNS = {  # by folder: the verb and its options
    "meta-train": ("meta-train", *SMALL, *META, "unroll.lengths=[3]"),
    "evaluate": ("evaluate", *SMALL, "tune_functions=1", "baselines=[adam]"),
    "rates": ("tune", *SMALL, *TUNE),
    "meta-rates": ("tune", "search=meta_learning_rate", *SMALL, *META, *TUNE),
    "scales": ("tune", "search=update_scale", *SMALL, "lowest_rate=0.9", "highest_rate=1.1"),
    "figures": ("figures", "of=[evaluate]"),
}
PLACEHOLDER = re.compile(r"(?<![A-Za-z])(NAME|RATE|JOB|K|N)(?![A-Za-z])")


class Row(NamedTuple):
    names: list[str]  # in the first cell
    second: str


def rows(section: str) -> Iterator[Row]:
    """Those of the table below a heading of the page."""
    text = PAGE.read_text("utf-8").partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    assert text, f"there is no heading {section}"
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        names = re.findall(r"`([^`]+)`", cells[0])
        if line.startswith("|") and names:
            yield Row(names, cells[1])


def fits(name: str, path: str, verb: str) -> bool:
    """Is a path what a name of the page, with its placeholders, stands for?"""
    pattern = PLACEHOLDER.sub("@", name.replace("VERB", verb))
    expression = re.escape(pattern).replace("@", r"[^/]+")
    return re.match(expression if name.endswith("/") else f"{expression}$", path) is not None


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, gallery: Mapping[str, str]) -> Path:
    """The folders of small runs of every verb, and of a sweep."""
    root = tmp_path_factory.mktemp("runs")
    data = f"data_dir={root / 'data'}"
    for folder, (verb, *options) in RUNS.items():
        ran = l2lgd(verb, *options, data, f"hydra.run.dir={folder}", cwd=root)
        assert ran.returncode == 0, ran.stderr
    sweep = (*SMALL, *META, "seed=0,1", "hydra.sweep.dir=sweep", data)
    ran = l2lgd("meta-train", "--multirun", *sweep, cwd=root)
    assert ran.returncode == 0, ran.stderr
    art = [option for option in art_options(gallery) if option.startswith("task.vgg")]
    picture = next(Path(gallery["content"]).rglob("*.png"))
    words = (str(picture), gallery["style"], *art, "size=16", "num_steps=2", "beside=adam")
    ran = l2lgd("stylize", *words, "learning_rate=1", "hydra.run.dir=stylize", cwd=root)
    assert ran.returncode == 0, ran.stderr
    return root


FOLDERS = {folder: verb for folder, (verb, *_) in RUNS.items()} | {"stylize": "stylize"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_file_of_a_run_is_on_the_page(runs: Path, folder: str) -> None:
    verb = FOLDERS[folder]
    known = [name for part in ("Every verb", verb) for row in rows(part) for name in row.names]
    assert not unknown(runs / folder, known, verb)


def test_every_file_of_a_sweep_is_on_the_page(runs: Path) -> None:
    known = [name for row in rows("Sweeps") for name in row.names]
    of_jobs = [
        name for part in ("Every verb", "meta-train") for row in rows(part) for name in row.names
    ]
    known += [f"JOB/{name}" for name in of_jobs] + [".lock"]
    assert not unknown(runs / "sweep", known, "meta-train")


def unknown(folder: Path, known: list[str], verb: str) -> list[str]:
    """Files for which there is no name."""
    found = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert found
    return [path for path in found if not any(fits(name, path, verb) for name in known)]


@pytest.mark.parametrize("folder", [name for name in FOLDERS if name != "figures"])
def test_every_field_of_a_summary_is_on_the_page(runs: Path, folder: str) -> None:
    summary = json.loads((runs / folder / "summary.json").read_text("utf-8"))
    assert not set(fields(summary)) - documented("summary.json", FOLDERS[folder])


def fields(summary: Mapping[str, Any]) -> Iterator[str]:
    """Names of fields, with those inside ``data`` and of each optimizer."""
    for name, value in summary.items():
        yield name
        if name == "data" and value:
            yield from (f"data.{key}" for key in value)
        if name == "results":
            yield from (f"results.NAME.{key}" for one in value.values() for key in one)


@pytest.mark.parametrize("folder", ["meta-train", "evaluate", "rates", "stylize"])
def test_every_field_of_the_metrics_is_on_the_page(runs: Path, folder: str) -> None:
    lines = json_lines(runs / folder / "metrics.jsonl")
    summary = json.loads((runs / folder / "summary.json").read_text("utf-8"))
    optimizers = "|".join(summary.get("results", ["-"]))
    found = {re.sub(rf"^({optimizers})(?=_|$)", "NAME", key) for line in lines for key in line}
    assert not found - documented("metrics.jsonl", FOLDERS[folder]) - {"time"}


def documented(section: str, verb: str) -> set[str]:
    """Fields that the page has for a verb."""
    of_verb = [row for row in rows(section) if verb in row.second or row.second == "all"]
    return {name for row in of_verb for name in row.names}


@pytest.mark.parametrize(
    ("name", "path", "fitting"),
    [
        ("VERB.log", "tune.log", True),
        ("VERB.log", "tune.log.1", False),
        ("figure_N.png", "figure_own.png", True),
        ("meta_learning_rate=RATE/", "meta_learning_rate=0.01/metrics.jsonl", True),
        ("JOB/job.json", "0/job.json", True),
        ("JOB/job.json", "0/1/job.json", False),
        ("curves.csv", "curves_csv", False),
    ],
)
def test_names_of_the_page_stand_for_paths(name: str, path: str, fitting: bool) -> None:
    assert fits(name, path, "tune") is fitting
