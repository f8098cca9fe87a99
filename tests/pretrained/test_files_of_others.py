"""Files of weights that somebody else has made: whatever they say, nothing acts."""

import importlib
import inspect
import pkgutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import l2lgd
from torch import nn

import l2lgd as package
from l2lgd import LearnedOptimizer
from l2lgd.cli.listing import optimizers
from l2lgd.errors import CheckpointError, ConfigError
from l2lgd.evaluation.learned import trained
from l2lgd.meta.state import read_last
from l2lgd.optimizers.base import Optimizer
from l2lgd.pretrained.weights import bounded_by
from l2lgd.runs.run import Run
from l2lgd.storage import checkpoint
from l2lgd.storage.checkpoint import FORMAT, _digest

GROUPED = "l2lgd.optimizers.groups.Grouped"
LSTM = {"_target_": "l2lgd.optimizers.coordinatewise.CoordinatewiseLSTM"}
FILE = "quadratic-lstm.safetensors"  # as evaluate weights_dir= looks for it


def classes() -> Iterator[type]:
    """Every class that the package defines."""
    for module in pkgutil.walk_packages(package.__path__, "l2lgd."):
        if module.name.endswith("__main__"):
            continue
        try:
            found = importlib.import_module(module.name)
        except ImportError:  # of what is not installed here, such as Triton
            continue
        for value in vars(found).values():
            if isinstance(value, type) and value.__module__ == module.name:
                yield value


def listed(path: Path) -> None:
    optimizers([str(path)])


def in_python(path: Path) -> None:
    LearnedOptimizer(nn.Linear(2, 2).parameters(), weights=str(path))


def evaluated(path: Path) -> None:
    options: Any = SimpleNamespace(allow_targets=[], checkpoint=None, weights_dir=str(path.parent))
    config: dict[str, Any] = {"task": {}}
    run = Run("evaluate", path.parent, config, options, None, "quadratic", "x", None, 1)  # type: ignore[arg-type]
    trained(run, "lstm", {}, "test")


BUILDING = (in_python, evaluated)
WAYS = (listed, *BUILDING)


def file_of(folder: Path, opt: Any, **metadata: Any) -> Path:
    path = folder / FILE
    checkpoint.save(path, {"x": torch.zeros(1)}, {"opt": opt, **metadata})
    return path


def grouped(member: dict[str, Any]) -> dict[str, Any]:
    groups = [{"match": "*", "use": "a"}]
    return {"_target_": GROUPED, "optimizers": {"a": LSTM, "x": member}, "groups": groups}


@pytest.mark.parametrize("way", BUILDING)
def test_no_class_of_the_package_but_optimizers_is_built_from_weights(
    way: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    victim = tmp_path / "victim.txt"
    victim.write_text("precious", encoding="utf-8")
    refused = 0
    for found in classes():
        legal = found.__module__.startswith("l2lgd.optimizers.") and issubclass(found, Optimizer)
        if legal and not inspect.isabstract(found):
            continue
        node = {"_target_": f"{found.__module__}.{found.__qualname__}"}
        node |= {"filename": "victim.txt", "mode": "w"}
        with pytest.raises(ConfigError, match=r"opt\.optimizers\.x\._target_=.* is n"):
            way(file_of(tmp_path, grouped(node)))
        refused += 1
    assert refused > 100
    assert victim.read_text(encoding="utf-8") == "precious"
    assert {path.name for path in tmp_path.iterdir()} == {"victim.txt", FILE}


def test_a_log_file_is_not_opened_by_the_commands_either(tmp_path: Path) -> None:
    (tmp_path / "victim.txt").write_text("precious", encoding="utf-8")
    node = {"_target_": "l2lgd.tracking.console.LogFile", "filename": "victim.txt", "mode": "w"}
    path = file_of(tmp_path, grouped(node), opt_name="lstm")
    quick = ("task=quadratic", "num_functions=1", "num_steps=1", "baselines=[]", "logger=none")
    ran = l2lgd("evaluate", *quick, f"checkpoint={path.name}", cwd=tmp_path)
    assert ran.returncode == 2
    assert "x._target_=l2lgd.tracking.console.LogFile is not a class of" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    ran = l2lgd("optimizers", path.name, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ["optimizers.x.filename", "victim.txt"] in [s.split() for s in ran.stdout.splitlines()]
    assert (tmp_path / "victim.txt").read_text(encoding="utf-8") == "precious"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "opt",
    [
        {**LSTM, "hidden_size": [[[0]] * 100] * 60},
        {**LSTM, **{f"k{number}": 0 for number in range(60_000)}},
    ],
)
def test_an_opt_beyond_all_bounds_is_refused(
    way: Callable[[Path], None], opt: Any, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError) as caught:
        way(file_of(tmp_path, opt))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("way", BUILDING)
def test_an_opt_within_another_is_checked_as_that_is(
    way: Callable[[Path], None], tmp_path: Path
) -> None:
    opt = grouped({"_target_": GROUPED, "optimizers": {"a": LSTM}, "groups": "x" * 10})
    with pytest.raises(ConfigError) as caught:
        way(file_of(tmp_path, opt))
    assert "\n" not in str(caught.value)


NTM = {"_target_": "l2lgd.optimizers.ntm_bfgs.NTMBFGS"}
ODD = "l2lgd.optimizers.sign_equivariant.SignEquivariant"


@pytest.mark.parametrize("way", BUILDING)
@pytest.mark.parametrize(
    "opt",
    [
        {**LSTM, "hidden_size": 20_000},
        {**LSTM, "hidden_size": 1, "num_layers": 200_000},
        {**LSTM, "hidden_size": 1, "num_layers": 10**12},
        {**NTM, "read_heads": 10**7},
        {"_target_": ODD, "optimizer": {**LSTM, "hidden_size": 20_000}},
        grouped({**LSTM, "hidden_size": 20_000}),
        grouped({**NTM, "hidden_size": 20_000}),
    ],
)
def test_more_weights_than_the_file_has_are_not_made(
    way: Callable[[Path], None], opt: Any, tmp_path: Path
) -> None:
    drawn: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.init, "trunc_normal_", lambda tensor, **_: drawn.append(tensor.numel()))
        with pytest.raises(CheckpointError, match="its weights are fewer than") as caught:
            way(file_of(tmp_path, opt))
    assert sum(drawn) < 10_000
    assert "\n" not in str(caught.value)


def test_what_other_threads_make_meanwhile_may_be_of_any_size(tmp_path: Path) -> None:
    made: list[nn.Linear] = []
    with bounded_by(file_of(tmp_path, LSTM)):
        thread = threading.Thread(target=lambda: made.append(nn.Linear(50, 50)))
        thread.start()
        thread.join()
        with pytest.raises(CheckpointError, match="its weights are fewer than"):
            nn.Linear(50, 50)
    assert len(made) == 1
    nn.Linear(50, 50)


def test_weights_of_another_optimizer_are_refused_in_a_short_line(tmp_path: Path) -> None:
    tensors = {"x": torch.zeros(20_000)}
    checkpoint.save(tmp_path / FILE, tensors, {"opt": {**LSTM, "hidden_size": 1, "num_layers": 99}})
    with pytest.raises(CheckpointError, match=r"does not fit this optimizer.* …$") as caught:
        in_python(tmp_path / FILE)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("where", ["opt", "begun_from", "seed"])
@pytest.mark.parametrize("depth", [400, 100_000])
def test_metadata_nested_without_end_are_refused(
    way: Callable[[Path], None], where: str, depth: int, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    tensors = {"x": torch.zeros(1)}
    content = f'{{"{where}": {"[" * depth}{"]" * depth}}}'
    if where == "begun_from":
        content = '{"begun_from": ' * depth + "{}" + "}" * depth
    fields = {"format": FORMAT, "content": content, "sha256": _digest(tensors, content)}
    save_file(tensors, tmp_path / FILE, fields)
    with pytest.raises(CheckpointError, match="metadata cannot be read"):
        way(tmp_path / FILE)


def test_nor_is_a_run_gone_on_with_whose_config_is_beyond_all_bounds(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    for config in ({f"k{number}": 0 for number in range(60_000)}, {"a": [[[0]] * 100] * 60}):
        checkpoint.save(path, {"x": torch.zeros(1)}, {"config": config})
        with pytest.raises(CheckpointError, match="its config is too large"):
            read_last(path)
