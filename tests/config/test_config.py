"""Typed configs: every YAML composes and builds; mistakes are named, with the nearest option."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import CONF, OPTIMIZERS, VERBS, choices, composed, node, optimizer_node, thinned
from omegaconf import DictConfig, OmegaConf

from l2lgd.cli.help import verb_help
from l2lgd.config.building import build
from l2lgd.config.differences import differences
from l2lgd.config.options import FILLED
from l2lgd.config.overrides import at_home, with_whole_paths
from l2lgd.config.schemas import SCHEMAS, Recommended, RecommendedOpt, RecommendedUnroll, validated
from l2lgd.errors import ConfigError, nearest
from l2lgd.optimizers.base import Optimizer
from l2lgd.tasks.base import Task

GROUPS = sorted(
    folder.name
    for folder in CONF.iterdir()
    if folder.is_dir() and folder.name not in ("hydra", "experiment", "__pycache__")
)
CHOICES = [(group, choice) for group in GROUPS for choice in choices(group)]
QUADRATIC = {"_target_": "l2lgd.tasks.quadratic.QuadraticTask"}


def groups_of(verb: str) -> list[str]:
    text = (CONF / f"{verb}.yaml").read_text(encoding="utf-8")
    return re.findall(r"^  - (\w+): ", text, re.MULTILINE)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_composes_into_its_schema(verb: str) -> None:
    options = validated(composed(verb), verb)
    assert isinstance(options, SCHEMAS[verb])
    assert isinstance(options.seed, int)
    if verb not in ("benchmark", "figures"):  # which have several
        assert options.num_steps == (128 if verb == "stylize" else 100)
    assert isinstance(options.data_dir, str)
    # What the schema has and the YAML lacks, or the other way round, would show here.
    assert {field.name for field in dataclasses.fields(options)} == set(composed(verb))


def test_every_primary_config_is_a_verb() -> None:
    assert {file.stem for file in CONF.glob("*.yaml")} == set(SCHEMAS) == set(VERBS)


def test_every_group_is_of_some_verb() -> None:
    assert set(GROUPS) <= {group for verb in VERBS for group in groups_of(verb)}


def composed_choices() -> Sequence[tuple[str, str, str]]:
    """Verb, group and choice; thinned, each choice with two verbs, and each verb in turn."""
    verbs_of = {group: [verb for verb in VERBS if group in groups_of(verb)] for group in GROUPS}
    few = []
    for group in GROUPS:
        first, *others = verbs_of[group]
        for k, choice in enumerate(choices(group)):
            few += [
                (verb, group, choice) for verb in (first, *others[k % max(len(others), 1) :][:1])
            ]
    return thinned([(verb, *pair) for pair in CHOICES for verb in verbs_of[pair[0]]], few)


@pytest.mark.parametrize(("verb", "group", "choice"), composed_choices())
def test_every_choice_composes_with_verbs_that_have_the_group(
    verb: str, group: str, choice: str
) -> None:
    validated(composed(verb, f"{group}={choice}"), verb)


@pytest.mark.parametrize("choice", choices("experiment"))
def test_every_experiment_composes_with_a_verb(choice: str) -> None:
    failures = []
    for verb in VERBS:
        try:
            validated(composed(verb, f"experiment={choice}"), verb)
        except Exception as error:
            failures.append(f"{verb}: {error}")
    assert len(failures) < len(VERBS), failures


@pytest.mark.parametrize("choice", OPTIMIZERS)
def test_every_optimizer_builds(choice: str) -> None:
    assert isinstance(build(optimizer_node(choice), "opt"), Optimizer)


@pytest.mark.parametrize("choice", choices("task"))
def test_every_task_builds_under_its_own_name(choice: str) -> None:
    task = build(node("evaluate", "task", f"task={choice}"), "task")
    assert isinstance(task, Task)
    assert task.name == choice


@pytest.mark.parametrize("choice", choices("unroll"))
def test_every_unroll_builds(choice: str) -> None:
    target = "l2lgd.meta.schedules.Unroll"
    build({"_target_": target, **node("meta_train", "unroll", f"unroll={choice}")}, "unroll")


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_of_a_verb_has_a_line_in_its_help(verb: str) -> None:
    text = (CONF / f"{verb}.yaml").read_text(encoding="utf-8")
    shown = re.sub(r"\n {4,}", " ", verb_help(verb.replace("_", "-"), ""))  # not wrapped
    config = composed(verb)
    options = [key for key in config if key not in groups_of(verb)]
    assert len(options) > 8
    for option in options:
        if isinstance(config[option], DictConfig):
            assert all(f"  {option}.{part} " in shown for part in config[option])
            continue
        comment = re.search(rf"^{option}: .*  # (.+)$", text, re.MULTILINE)
        assert comment, f"{option} has no comment in {verb}.yaml"
        assert re.search(rf"^  {option} +{re.escape(comment[1])}", shown, re.MULTILINE), option
    for group in set(groups_of(verb)):
        assert f"\n{group}=" in shown
        for choice in choices(group):
            assert re.search(rf"^  {choice} +\S", shown, re.MULTILINE), f"{group}={choice}"


def changed(verb: str, **changes: Any) -> Any:
    """A verb's config with other values, as no check of Hydra's would let through."""
    plain: Any = OmegaConf.to_container(composed(verb))
    return OmegaConf.create({**plain, **changes})


def test_an_unknown_option_gets_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="no option num_step; did you mean num_steps"):
        validated(changed("evaluate", num_step=3), "evaluate")


def test_an_option_far_from_all_others_gets_the_list() -> None:
    with pytest.raises(ConfigError, match=r"no option qqq; choose one of .*num_steps"):
        validated(changed("evaluate", qqq=3), "evaluate")


def test_an_option_of_another_verb_is_unknown() -> None:
    with pytest.raises(ConfigError, match="no option meta_steps"):
        validated(changed("evaluate", meta_steps=3), "evaluate")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_steps", "many"),
        ("num_steps", 1.5),
        ("seed", None),
        ("baselines", "adam"),
        ("allow_targets", {"a": 1}),
    ],
)
def test_a_value_of_the_wrong_type_is_named(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"^{name}(={value})?: "):
        validated(changed("evaluate", **{name: value}), "evaluate")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_must_be_finite(value: float) -> None:
    with pytest.raises(ConfigError, match=r"task\.initial_std=\w+: must be a finite number"):
        build({**QUADRATIC, "initial_std": value}, "task")


def test_a_missing_value_is_asked_for() -> None:
    with pytest.raises(ConfigError, match="data_dir has no value; give data_dir=…"):
        validated(changed("evaluate", data_dir="???"), "evaluate")


def test_a_missing_value_is_asked_for_although_the_constructor_has_a_default() -> None:
    with pytest.raises(ConfigError, match=r"task\.dimension has no value; give task\.dimension=…"):
        build({**QUADRATIC, "dimension": "???"}, "task")


def test_an_option_left_out_is_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"opt\.algorithm has no value; give opt\.algorithm=…"):
        build({"_target_": "l2lgd.optimizers.hand_designed.HandDesigned"}, "opt")


def test_a_task_recommends_only_what_there_is() -> None:
    for recommended, said in (
        ({"num_step": 3}, r"no option task\.recommended\.num_step; did you mean num_steps"),
        ({"unroll": {"length": [3]}}, r"no option task\.recommended\.unroll\.length; did you mean"),
        ({"meta_steps": "many"}, r"task\.recommended\.meta_steps"),
        (7, r"task\.recommended=7"),
    ):
        changed = OmegaConf.merge(composed("evaluate", "task=quadratic"), {})
        changed.task.recommended = recommended
        with pytest.raises(ConfigError, match=said):
            validated(changed, "evaluate")
    changed.task.weights_of = 3
    changed.task.recommended = {}
    with pytest.raises(ConfigError, match=r"task\.weights_of: must be a list"):
        validated(changed, "evaluate")


def test_all_that_may_be_recommended_is_an_option_of_some_verb() -> None:
    known = {field.name for field in dataclasses.fields(Recommended)} - {
        "unroll",
        "estimator",
        "opt",
    }
    assert known == {name for names in FILLED.values() for name in names.values()}
    for verb, names in FILLED.items():
        assert set(names) <= {field.name for field in dataclasses.fields(SCHEMAS[verb])}
    for group, choice, kind in (
        ("unroll", "task", RecommendedUnroll),
        ("opt", "lstm", RecommendedOpt),
    ):
        options = OmegaConf.load(CONF / group / f"{choice}.yaml")
        assert {field.name for field in dataclasses.fields(kind)} <= set(options)


def test_build_checks_names_and_types_against_the_constructor() -> None:
    task = build({**QUADRATIC, "dimension": 3}, "task")
    assert task.dimension == 3
    with pytest.raises(ConfigError, match=r"no option task\.dimensoin; did you mean dimension"):
        build({**QUADRATIC, "dimensoin": 3}, "task")
    with pytest.raises(ConfigError, match=r"^task\.dimension=three: "):
        build({**QUADRATIC, "dimension": "three"}, "task")
    with pytest.raises(ConfigError, match=r"^task\.dimension=0: must be at least 1"):
        build({**QUADRATIC, "dimension": 0}, "task")


def test_build_names_unknown_nested_options_with_the_nearest_one() -> None:
    mnist = node("evaluate", "task", "task=mnist")
    mnist["data"]["sorce"] = "embedded"
    with pytest.raises(ConfigError, match=r"task\.data\.sorce.*did you mean (task\.data\.)?source"):
        build(mnist, "task")


def test_build_names_nested_values_out_of_range_by_their_full_name() -> None:
    mnist = node("evaluate", "task", "task=mnist")
    mnist["data"]["source"] = "internet"
    with pytest.raises(ConfigError, match=r"^task\.data\.source=internet: choose one of"):
        build(mnist, "task")


@pytest.mark.parametrize("target", ["os.system", "l2lgdx.tasks.T", "torch.nn.Linear", "l2lgd"])
def test_a_target_outside_the_package_is_refused(target: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(target)):
        build({"_target_": target}, "task")


def test_an_allowed_package_may_be_a_target() -> None:
    node = {"_target_": "torch.nn.modules.linear.Identity"}
    with pytest.raises(ConfigError, match=r"allow_targets=\[torch\]"):
        build(node, "opt")
    with pytest.raises(ConfigError):
        build(node, "opt", ["torchvision"])


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("l2lgd.cli.main.main", "is not a class"),
        ("l2lgd.storage.files.write_atomically", "is not a class"),
        ("l2lgd.runs.run.Path", r"is not a class of l2lgd\.tasks"),
        ("l2lgd.tasks.quadratic.Tensor", r"allow_targets=\[torch\]"),
        ("l2lgd.optimizers.bfgs.BFGS", r"is not a class of l2lgd\.tasks"),
        ("l2lgd.tasks.images.Classifiers", r"is no Task: .* l2lgd\.tasks\.base\.Task"),
    ],
)
def test_only_a_class_of_its_kind_is_built(target: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build({"_target_": target}, "task", kind=Task)


def test_what_a_node_holds_is_not_called_either() -> None:
    node = {
        "_target_": "l2lgd.optimizers.sign_equivariant.SignEquivariant",
        "optimizer": {"_target_": "l2lgd.cli.main.main", "arguments": ["--version"]},
    }
    with pytest.raises(ConfigError, match=r"^opt\.optimizer\._target_=.*is not a class"):
        build(node, "opt")


def test_an_allowed_package_builds(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_own_tasks.py").write_text(
        "from l2lgd.tasks.quadratic import QuadraticTask\n\nclass Mine(QuadraticTask):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    config = {"_target_": "my_own_tasks.Mine", "dimension": 2}
    task = build(config, "task", ["my_own_tasks"])
    assert type(task).__name__ == "Mine"
    drawn = task.sample("train", 1, torch.Generator().manual_seed(0))
    assert drawn.initial_parameters.shape == (1, 2)


@pytest.mark.parametrize("target", ["l2lgd.tasks.quadratik.QuadraticTask", "l2lgd.tasks.Nothing"])
def test_a_target_that_does_not_exist_is_named(target: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(target)):
        build({"_target_": target}, "task")


def test_a_node_without_a_target_says_so() -> None:
    with pytest.raises(ConfigError, match="task has no _target_"):
        build({"dimension": 3}, "task")


def test_nearest_prefers_the_likely_choice_and_else_lists_all() -> None:
    assert nearest("adm", ["adam", "sgd"]) == "; did you mean adam?"
    assert nearest("xyz", ["adam", "sgd"]) == "; choose one of adam, sgd"
    assert nearest("xyz", []) == ""


def test_differences_are_listed_by_full_name() -> None:
    before = OmegaConf.create({"a": 1, "b": {"c": 2, "d": 3}, "seed": 0})
    after = OmegaConf.create({"a": 1, "b": {"c": 5, "e": 3}, "seed": 9})
    assert differences(before, after, ["seed"]) == [
        "b.c: 2 → 5",
        "b.d: 3 → absent",
        "b.e: absent → 3",
    ]
    assert differences(before, before, []) == []


def test_an_option_that_an_earlier_version_had_not_is_as_good_as_null() -> None:
    """A run that began before there were task.data.size and task.data.colours goes on."""
    now = composed("meta_train", "task=mnist")
    before: Any = OmegaConf.to_container(now)
    del before["task"]["data"]["size"], before["task"]["data"]["colours"]
    before = OmegaConf.create(before)
    assert differences(before, now, []) == []
    small = composed("meta_train", "task=mnist", "task.data.size=8")
    assert differences(before, small, []) == ["task.data.size: absent → 8"]
    assert differences(now, small, []) == ["task.data.size: None → 8"]
    old = build(OmegaConf.to_container(before.task), "task")
    assert (old.data.size, old.data.colours) == (None, None)


HOMES = [
    ("hydra.run.dir=~/x", 'hydra.run.dir="HOME/x"'),
    ("data_dir='~/x y'", 'data_dir="HOME/x y"'),
    (r"data_dir=~/x\ y", 'data_dir="HOME/x y"'),
    ("reuse=[~/a,'~/b',c]", 'reuse=["HOME/a","HOME/b",c]'),
    ("data_dir=~/a,~/b", 'data_dir="HOME/a","HOME/b"'),
    ("hydra.run.dir=~/${oc.env:A,b}/c", 'hydra.run.dir="HOME/${oc.env:A,b}/c"'),
    ("checkpoint=~", 'checkpoint="HOME"'),
    ("checkpoints={a: ~/x, b: ~/y}", 'checkpoints={a: "HOME/x", b: "HOME/y"}'),
    ("~unroll", "~unroll"),
    ("name='a,~/b'", "name='a,~/b'"),
    ("name=a~b", "name=a~b"),
    ("data_dir=~no_such_user/x", "data_dir=~no_such_user/x"),
]


@pytest.mark.parametrize(("word", "meant"), HOMES)
def test_a_value_that_begins_with_a_tilde_is_at_home(
    word: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/a user")
    assert at_home(word) == meant.replace("HOME", "/home/a user")


PLACES = [
    ("--config-dir=mine", "--config-dir=/here/mine"),
    ("--config-dir=/there", "--config-dir=/there"),
    (at_home("--config-dir=~/mine"), f"--config-dir={Path.home()}/mine"),
    ("hydra.searchpath=[mine]", 'hydra.searchpath=["/here/mine"]'),
    (
        "hydra.searchpath=[file://mine,'file:///there',pkg://l2lgd_example.conf]",
        'hydra.searchpath=["/here/mine","/there","pkg://l2lgd_example.conf"]',
    ),
    ("hydra.searchpath=[]", "hydra.searchpath=[]"),
    ("hydra.searchpath=[pkg://l2lgd_example.conf]", "hydra.searchpath=[pkg://l2lgd_example.conf]"),
    ("data_dir=mine", "data_dir=mine"),
]


@pytest.mark.parametrize(("word", "whole"), PLACES)
def test_configs_are_found_whatever_the_working_directory_is_later(word: str, whole: str) -> None:
    assert with_whole_paths(word, Path("/here")) == whole
