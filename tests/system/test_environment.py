"""Variables of the environment: empty ones, and those of other launchers."""

import os
from pathlib import Path

import pytest
import torch

from l2lgd.config import defaults
from l2lgd.errors import ConfigError
from l2lgd.system import environment, launch
from l2lgd.system.ranks import local_device

OF_LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OF_LAUNCHERS:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("value", "read", "number"),
    [("", "otherwise", None), ("  ", "otherwise", None), (" 3 ", "3", 3), ("x", "x", None)],
)
def test_an_empty_variable_is_none(
    value: str, read: str, number: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("L2LGD_TEST", value)
    assert environment.variable("L2LGD_TEST", "otherwise") == read
    assert environment.number("L2LGD_TEST") == number


def test_configs_take_empty_variables_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("L2LGD_DATA", "WANDB_MODE", "WANDB_PROJECT", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("MPLBACKEND", "nonsense")
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    environment.settle()
    config = defaults.composed("evaluate", ["task=quadratic"])
    assert config.data_dir == "~/.cache/l2lgd"
    assert config.logger.mode == "offline"
    assert config.logger.project == "l2lgd"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "", "here empty has a meaning"
    assert "MPLBACKEND" not in os.environ


@pytest.mark.skipif(os.name != "posix", reason="~ is the HOME of posix")
@pytest.mark.parametrize("value", ["", "  "])
def test_an_empty_home_is_not_the_root_of_the_file_system(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOME")
    home = Path.home()
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOMEBREW", "")
    environment.settle()
    assert Path("~").expanduser() == home
    assert os.environ.keys().isdisjoint({"HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"})
    assert "HOMEBREW" in os.environ


@pytest.mark.parametrize(
    ("variables", "rank", "size"),
    [
        ({}, 0, 1),
        ({"RANK": "1"}, 0, 1),
        ({"WORLD_SIZE": "8"}, 0, 1),
        ({"RANK": "3", "WORLD_SIZE": "1"}, 0, 1),
        ({"RANK": "3", "WORLD_SIZE": ""}, 0, 1),
        ({"RANK": "", "WORLD_SIZE": "2"}, 0, 1),
        ({"RANK": "1", "WORLD_SIZE": "all"}, 0, 1),
        ({"RANK": "1", "WORLD_SIZE": "0"}, 0, 1),
        ({"RANK": "1", "WORLD_SIZE": "2"}, 1, 2),
    ],
)
def test_a_rank_counts_only_with_a_world_size(
    variables: dict[str, str], rank: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (launch.rank(), launch.size()) == (rank, size)
    launch.check()
    assert launch.program() == (
        ["l2lgd"] if size == 1 else ["torchrun", "--nproc-per-node", "2", "-m", "l2lgd"]
    )


def test_a_rank_beyond_the_world_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="RANK=5 and WORLD_SIZE=2 do not belong together"):
        launch.check()


def test_a_local_rank_alone_chooses_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "7")
    assert local_device("cuda") == "cuda"
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert local_device("cuda") == "cuda:7"
    monkeypatch.setenv("LOCAL_RANK", "")
    assert local_device("cuda") == "cuda:0"
    assert torch.device(local_device("cuda")).index == 0
