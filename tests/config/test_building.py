"""What a ``_target_`` node may hold: all of it is checked before anything is constructed."""

from pathlib import Path
from typing import Any

import pytest
import torch

from l2lgd.config.building import build
from l2lgd.errors import ConfigError
from l2lgd.optimizers.base import LearnedRule, Optimizer
from l2lgd.optimizers.groups import Grouped
from l2lgd.tracking.console import LogFile

LSTM = {"_target_": "l2lgd.optimizers.coordinatewise.CoordinatewiseLSTM"}
OWN = """
from pathlib import Path
from l2lgd import LearnedRule
from l2lgd.optimizers.base import Optimizer

class Traced(LearnedRule):
    def __init__(self, inner: Optimizer | None = None, others: dict[str, LearnedRule] | None = None,
                 anything=None, options: dict | None = None):
        super().__init__()
        with Path("built").open("a") as file:
            file.write("x")
        self.inner, self.others = inner, others
    def initial_state(self, parameters): ...
    def step(self, gradient, state, width=None): ...
    def reset_parameters(self, generator): ...

class NoOptimizer:
    def __init__(self):
        Path("acted").touch()
"""
TRACED = {"_target_": "own_optimizers.Traced"}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, beside a package of one's own."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "own_optimizers.py").write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    monkeypatch.delitem(__import__("sys").modules, "own_optimizers", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def test_what_an_argument_may_be_follows_from_the_signature(place: Path) -> None:
    node = {**TRACED, "inner": LSTM, "others": {"a": LSTM, "b": {**TRACED, "inner": None}}}
    found: Any = build(node, "opt", ["own_optimizers"], LearnedRule)
    assert type(found.inner).__name__ == "CoordinatewiseLSTM"
    assert [type(member).__name__ for member in found.others.values()] == [
        "CoordinatewiseLSTM",
        "Traced",
    ]
    assert (place / "built").read_text() == "xx"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            {"inner": {"_target_": "own_optimizers.NoOptimizer"}},
            r"opt\.inner\._target_=.* is no Op",
        ),
        ({"inner": {"_target_": "l2lgd.tracking.console.LogFile"}}, "not a class of l2lgd.optimiz"),
        ({"inner": "a name"}, r"opt\.inner has no _target_"),
        ({"others": {"a": {**TRACED, "inner": {**LSTM, "p": "x"}}}}, r"opt\.others\.a\.inner\.p"),
        ({"others": {"a": {"_target_": "l2lgd.optimizers.bfgs.BFGS"}}}, "is no LearnedRule"),
        ({"others": [LSTM]}, r"opt\.others has no _target_"),
        ({"anything": LSTM}, r"opt\.anything: Traced takes no object there"),
        ({"options": {"deep": LSTM}}, r"opt\.options: Traced takes no object there"),
    ],
)
def test_nothing_is_built_where_anything_is_wrong(
    arguments: dict[str, Any], said: str, place: Path
) -> None:
    node = {**TRACED, "inner": dict(TRACED), **arguments}
    with pytest.raises(ConfigError, match=said):
        build(node, "opt", ["own_optimizers"], Optimizer)
    assert list(place.iterdir()) == []


def test_nodes_within_nodes_have_a_bound(place: Path) -> None:
    node = dict(TRACED)
    for _ in range(100):
        node = {**TRACED, "inner": node}
    with pytest.raises(ConfigError, match="opt is nested too deeply"):
        build(node, "opt", ["own_optimizers"], Optimizer)
    assert list(place.iterdir()) == []


def test_members_that_are_no_optimizers_are_refused_by_name() -> None:
    group = {"_target_": f"{Grouped.__module__}.Grouped", "groups": [{"match": "*", "use": "x"}]}
    name = f"{LogFile.__module__}.{LogFile.__qualname__}"
    for members, said in (
        ({"x": LSTM, "y": {"_target_": name, "filename": "y"}}, rf"opt\.optimizers\.y.*={name}"),
        ({"x": 3}, r"opt\.optimizers\.x has no _target_"),
        (3, r"opt\.optimizers has no _target_"),
        ({}, "optimizers has only"),
    ):
        with pytest.raises(ConfigError, match=said):
            build({**group, "optimizers": members}, "opt", kind=Optimizer)


def test_a_choice_of_the_right_room_is_built_on_the_device_that_is_set() -> None:
    with torch.device("meta"):
        found = build(LSTM, "opt", kind=LearnedRule)
    assert {weight.device.type for weight in found.parameters()} == {"meta"}
