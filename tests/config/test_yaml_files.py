"""YAML of people: however it is made, it is read at once, or refused in one line."""

import json
from pathlib import Path

import pytest
from yaml import YAMLError

from l2lgd.cli.before_hydra import words_of
from l2lgd.config.defaults import composed
from l2lgd.config.yaml_files import load_yaml
from l2lgd.errors import ConfigError
from l2lgd.runs.sweeps import Sweep

TEN = range(1, 10)
LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{k}: &a{k} [{','.join([f'*a{k - 1}'] * 10)}]\n" for k in TEN
)
MERGED = "a0: &a0 {k: 1}\n" + "".join(
    f"a{k}: &a{k} {{<<: [{','.join([f'*a{k - 1}'] * 10)}]}}\n" for k in TEN
)
BAD = {  # and what is said of it
    "laughs": (LAUGHS, "more than 5000 values"),
    "merged": (MERGED, "more than 5000 values"),
    "keys": ("".join(f"k{number}: 0\n" for number in range(6000)), "more than 5000 values"),
    "deep": (f"x: {'[' * 100_000}{']' * 100_000}", "nested too deeply"),
    "deep_block": ("\n".join(" " * k + "k:" for k in range(900)), "nested too deeply"),
    "itself": ("x: &x [*x]", "refers to itself"),
    "number": ("3", "no mapping"),
    "word": ("hello", "no mapping"),
    "list": ("- a\n- b", "no mapping"),
    "digits": (f"x: {'1' * 5000}", "Exceeds the limit"),
    "date": ("x: !!timestamp nonsense", "none of its type"),
    "defaults": ("defaults: [{a: {b: c}}]", "cannot be read"),
    "header": ("# @package a b\nx: 1", "Too many components"),
    "latin": ("x: \xe4", "codec"),
    "long": (f"x: {'a' * 5_000_000}", "more than 500,000 bytes"),
    "interpolations": (f"x: {'${y}' * 6000}", "more than 5000 values"),
    "no_yaml": ("x: [1", "cannot be read"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_config_that_nobody_can_mean_is_refused_by_name(name: str, tmp_path: Path) -> None:
    text, said = BAD[name]
    path = tmp_path / "task" / f"{name}.yaml"
    path.parent.mkdir()
    path.write_bytes(text.encode("latin-1"))
    search = f"hydra.searchpath=[file://{tmp_path}]"
    with pytest.raises(ConfigError, match=said) as caught:
        composed("evaluate", [search, f"task={name}"])
    assert str(caught.value).startswith(f"{path} cannot be read: ")
    assert "\n" not in str(caught.value)


ROUND = {f"d{k}": [f"d{k + 1}"] * 2 for k in range(22)} | {"d22": []}
CHAIN = {f"d{k}": [f"d{k + 1}"] for k in range(600)} | {"d600": []}


@pytest.mark.parametrize(
    "lists",
    [ROUND, CHAIN, {"d0": ["quadratic"] * 4000}, {"d0": ["d0"]}],
    ids=["doubling", "chain", "many", "itself"],
)
def test_defaults_lists_that_lead_to_too_many_configs_are_refused(
    lists: dict[str, list[str]], tmp_path: Path
) -> None:
    (tmp_path / "task").mkdir()
    for name, defaults in lists.items():
        text = json.dumps({"defaults": defaults, "x": 1})
        (tmp_path / "task" / f"{name}.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="the defaults lists that lead to it name too many"):
        composed("evaluate", [f"hydra.searchpath=[file://{tmp_path}]", "task=d0"])


def test_a_hundred_configs_in_a_chain_are_not_too_many(tmp_path: Path) -> None:
    (tmp_path / "task").mkdir()
    for k in range(100):
        text = json.dumps({"defaults": [f"d{k + 1}"] if k < 99 else [], f"x{k}": k})
        (tmp_path / "task" / f"d{k}.yaml").write_text(text, encoding="utf-8")
    found = composed("evaluate", [f"hydra.searchpath=[file://{tmp_path}]", "task=d0"])
    assert (found.task.x0, found.task.x99) == (0, 99)


def test_aliases_empty_files_and_long_lists_are_as_good_as_ever(tmp_path: Path) -> None:
    (tmp_path / "task").mkdir()
    text = "defaults: [quadratic]\nx: &x {a: 1}\ny: {<<: *x, b: [*x, *x]}\n"
    text += f"z: {list(range(2000))}\n"
    (tmp_path / "task" / "mine.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "task" / "none.yaml").write_text("# nothing\n", encoding="utf-8")
    search = f"hydra.searchpath=[file://{tmp_path}]"
    found = composed("evaluate", [search, "task=mine"]).task
    assert found.y == {"a": 1, "b": [{"a": 1}, {"a": 1}]}
    assert (len(found.z), found._target_) == (2000, "l2lgd.tasks.quadratic.QuadraticTask")
    assert not composed("evaluate", [search, "task=none"]).get("task")


@pytest.mark.parametrize("file", ["overrides.yaml", "hydra.yaml"])
@pytest.mark.parametrize("name", ["laughs", "keys", "deep", "itself", "number", "word", "digits"])
def test_a_run_with_such_files_is_not_gone_on_with(file: str, name: str, tmp_path: Path) -> None:
    folder = tmp_path / ".hydra"
    folder.mkdir()
    (folder / "overrides.yaml").write_text("- seed=1\n", encoding="utf-8")
    (folder / file).write_text(BAD[name][0], encoding="utf-8")
    with pytest.raises(ConfigError, match=f"{file} cannot be read") as caught:
        words_of("meta-train", [f"resume={tmp_path}"])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "hydra", ["[a]", "{hydra: 3}", "{hydra: {runtime: {config_sources: [3]}}}"]
)
def test_nor_one_whose_hydra_yaml_is_of_something_else(hydra: str, tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text("[]", encoding="utf-8")
    (tmp_path / ".hydra" / "hydra.yaml").write_text(hydra, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"hydra\.yaml cannot be read"):
        words_of("meta-train", [f"resume={tmp_path}"])


@pytest.mark.parametrize("depth", [400, 100_000])
def test_a_sweep_nested_without_end_is_not_run_again(depth: int, tmp_path: Path) -> None:
    nested = "[" * depth + "]" * depth
    (tmp_path / "sweep.json").write_text(f'{{"jobs": {nested}}}', encoding="utf-8")
    with pytest.raises(ConfigError, match="nested too deeply"):
        Sweep.read(tmp_path)
    plan = json.dumps({"verb": "evaluate", "hydra": [], "jobs": [["seed=1"]]})
    (tmp_path / "sweep.json").write_text(plan, encoding="utf-8")
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "job.json").write_text(f'{{"job": {nested}}}', encoding="utf-8")
    with pytest.raises(ConfigError, match="nested too deeply"):
        Sweep.read(tmp_path)


def test_a_file_that_is_a_folder_or_missing_says_so(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="directory"):
        load_yaml(tmp_path)
    (tmp_path / "x").write_text("{[a]: 1}", encoding="utf-8")
    with pytest.raises(YAMLError, match="unhashable"):
        load_yaml(tmp_path / "x")
