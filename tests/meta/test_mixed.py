"""Meta-training on several tasks at once: who is drawn, what is kept, what is chosen."""

import json
import math
import re
import shlex
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers import composed, json_lines, l2lgd, spawn
from torch import Tensor, nn

from l2lgd.config.building import build
from l2lgd.config.defaults import composed as composed_config
from l2lgd.errors import ConfigError
from l2lgd.evaluation.keys import same_images
from l2lgd.evaluation.mixtures import FUNCTIONS, SEED
from l2lgd.meta.estimators.base import Estimator, MetaProblem
from l2lgd.meta.estimators.mixed import begin
from l2lgd.meta.estimators.pes import PersistentES
from l2lgd.meta.estimators.replay import Replay
from l2lgd.meta.schedules import Unroll
from l2lgd.meta.scores import FLOOR, score
from l2lgd.meta.trainer import MetaSettings, Trainer
from l2lgd.optimizers.coordinatewise import CoordinatewiseLSTM
from l2lgd.storage import checkpoint
from l2lgd.system import ranks
from l2lgd.system.ranks import Ranks
from l2lgd.tasks.base import Task, TaskPart
from l2lgd.tasks.module import ModuleTask
from l2lgd.tasks.parts import MixtureTask
from l2lgd.tasks.quadratic import QuadraticTask
from l2lgd.tracking.tracker import NullTracker

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "mixtures.md"
SETTINGS = {
    "meta_steps": 6,
    "meta_learning_rate": 0.01,
    "meta_decay": "constant",
    "meta_clip": 1.0,
    "num_functions": 3,
    "num_steps": 6,
    "validate_every": 3,
    "validation_functions": 2,
    "checkpoint_every": 3,
}
ESTIMATORS = {
    "replay": Replay(second_derivatives=True, smoothing=1.0),
    "pes": PersistentES(shortest_horizon=3),
}


class Notebook(NullTracker):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, dict[str, float]]] = []

    def log(self, step: int, values: Any) -> None:
        self.lines.append((step, dict(values)))


class OnePart(QuadraticTask):
    """A task whose only part is another."""

    def parts(self) -> dict[str, TaskPart]:
        return {"quadratic": TaskPart(QuadraticTask(dimension=4))}


def parities() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    inputs = torch.randn(60, 4, generator=draw)
    return inputs, (inputs.prod(1) > 0).long()


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))


def mixture(dtype: torch.dtype = torch.float32, **options: Any) -> MixtureTask:
    """Quadratics, and a module whose functions have other shapes and a horizon of their own."""
    tasks: dict[str, Task] = {
        "quadratic": QuadraticTask(dimension=4),
        "network": ModuleTask("network", network, dataset=parities, batch_size=8),
    }
    task = MixtureTask("mixture", tasks, **{"horizons": {"network": 10}, **options})
    task.setup("", torch.device("cpu"), dtype)
    return task


def trained(
    folder: Path, task: Task, estimator: Estimator | None = None, **changes: Any
) -> tuple[Notebook, dict[str, Tensor], dict[str, Any]]:
    """What was logged, and tensors and metadata of the last checkpoint."""
    notebook, options = Notebook(), {"references": None, "resume": False, "ranks": Ranks()}
    options |= {key: changes.pop(key) for key in list(changes) if key in options}
    trainer = Trainer(task, 0, notebook, options["ranks"])  # type: ignore[arg-type]
    trainer.meta_train(
        CoordinatewiseLSTM(hidden_size=4).to(task.dtype),
        Unroll([4]),
        estimator or Replay(),
        MetaSettings(**{**SETTINGS, **changes}),
        folder,
        {},
        bool(options["resume"]),
        references=options["references"],  # type: ignore[arg-type]
    )
    return notebook, *checkpoint.load(folder / "last.safetensors")


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_run_that_was_stopped_ends_with_the_same_bits(estimator: str, tmp_path: Path) -> None:
    once = trained(tmp_path / "once", mixture(), ESTIMATORS[estimator])
    first = trained(tmp_path / "twice", mixture(), ESTIMATORS[estimator], meta_steps=3)
    second = trained(tmp_path / "twice", mixture(), ESTIMATORS[estimator], resume=True)
    assert first[0].lines + second[0].lines == once[0].lines
    assert second[1].keys() == once[1].keys()
    assert all(second[1][name].equal(tensor) for name, tensor in once[1].items())
    for key in ("step", "marks"):
        assert second[2][key] == once[2][key]
    best = [checkpoint.load(tmp_path / name / "best.safetensors")[0] for name in ("once", "twice")]
    assert all(best[0][name].equal(best[1][name]) for name in best[0])


def test_parts_are_drawn_by_weight_and_keep_horizons_of_their_own() -> None:
    task = mixture(weights={"quadratic": 3.0})
    rule = CoordinatewiseLSTM(hidden_size=2)
    course = begin(Replay(), MetaProblem(rule, task, Unroll([4]), 1, 6, 0, Ranks()))
    horizons, drawn = {}, Counter[str]()
    for _ in range(200):
        unrolled = course.unroll(0.0)
        (name,) = [key for key in unrolled.numbers if "/" in key]
        drawn[name] += 1
        horizons[name] = unrolled.horizon
    assert horizons == {"meta_loss/quadratic": 6, "meta_loss/network": 10}
    assert drawn["meta_loss/quadratic"] / 200 == pytest.approx(0.75, abs=0.08)


def test_a_validation_is_told_by_part(tmp_path: Path) -> None:
    references = {"quadratic": 2.0, "network": 0.5}
    task = mixture()
    notebook, _, _ = trained(tmp_path, task, references=references)
    validations = [line for _, line in notebook.lines if "validation_loss" in line]
    assert len(validations) == 2
    for line in validations:
        losses = {name: line[f"validation_loss/{name}"] for name in references}
        logs = [math.log(losses[name] / references[name]) for name in references]
        assert line["validation_loss"] == pytest.approx(sum(logs) / 2)
    best = checkpoint.load(tmp_path / "best.safetensors")[1]
    lowest = min(validations, key=lambda line: line["validation_loss"])
    assert best["validation_losses"] == {n: lowest[f"validation_loss/{n}"] for n in references}
    # Each part's number is that of an evaluation of this part alone.
    alone = Trainer(task.parts()["network"].task, 0, NullTracker())
    rule = CoordinatewiseLSTM(hidden_size=4)
    rule.load_state_dict(checkpoint.load(tmp_path / "best.safetensors")[0])
    measured = alone.evaluate(rule, "validation", 2, 10).final_loss()
    assert measured == best["validation_losses"]["network"]


def test_a_task_alone_is_logged_and_trained_as_ever(tmp_path: Path) -> None:
    task = QuadraticTask(dimension=4)
    notebook, tensors, metadata = trained(tmp_path / "task", task)
    assert not any("/" in name for _, line in notebook.lines for name in line)
    assert [set(line) for step, line in notebook.lines if "validation_loss" in line] == [
        {"validation_loss", "best_validation_loss"}
    ] * 2
    assert "marks" in metadata
    assert set(metadata["marks"]) == {"lowest", "strayed", "diverged"}
    assert "validation_losses" not in checkpoint.load(tmp_path / "task" / "best.safetensors")[1]
    same, same_tensors, _ = trained(tmp_path / "part", OnePart())
    assert same.lines == notebook.lines
    assert all(same_tensors[name].equal(tensor) for name, tensor in tensors.items())


def test_the_score_has_no_scale() -> None:
    losses, references = {"a": 0.3, "b": 20.0}, {"a": 0.6, "b": 10.0}
    assert score(losses, references) == pytest.approx(0.0)
    by_thousand = ({**part, "b": 1000 * part["b"]} for part in (losses, references))
    assert score(*by_thousand) == pytest.approx(score(losses, references))
    assert score({"a": 0.3}, {"a": 2.0}) == 0.3  # one task has its loss
    assert score(losses | {"a": math.inf}, references) == math.inf
    assert score(losses | {"a": math.nan}, references) == math.inf
    least = (math.log(FLOOR) + math.log(2)) / 2
    for nothing in (0.0, -1.0, 1e-12):
        assert score(losses | {"a": nothing}, references) == pytest.approx(least)


@pytest.mark.parametrize("factor", [1.0, 1000.0])
def test_the_best_does_not_depend_on_the_scale_of_a_part(factor: float, tmp_path: Path) -> None:
    # A mean of losses would take the second, where the first part is scaled up.
    told = iter([(0.5, 10.0), (0.4, 14.0), (0.9, 4.0)])

    def final_losses(*_: Any) -> dict[str, float]:
        one, other = next(told)
        return {"quadratic": factor * one, "network": other}

    trainer = Trainer(mixture(), 0, NullTracker())
    trainer.final_losses = final_losses  # type: ignore[method-assign]
    settings = MetaSettings(**{**SETTINGS, "validate_every": 2})  # type: ignore[arg-type]
    rule, references = CoordinatewiseLSTM(hidden_size=2), {"quadratic": factor, "network": 5.0}
    progress = trainer.meta_train(
        rule, Unroll([2]), Replay(), settings, tmp_path, {}, references=references
    )
    assert progress.best_meta_step == 6
    assert progress.best_validation_loss == pytest.approx(math.log(0.9 * 0.8) / 2)


def as_rank(rank: int, size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    if size > 1:
        meet = f"file://{folder}/meet"
        torch.distributed.init_process_group("gloo", meet, rank=rank, world_size=size)
    task = mixture(torch.float64)
    trained_by = partial(trained, folder, task, ESTIMATORS["replay"])
    if rank == 0:
        trained_by(ranks=Ranks(rank, size))
    else:  # which has no files
        Trainer(task, 0, NullTracker(), Ranks(rank, size)).meta_train(
            CoordinatewiseLSTM(hidden_size=4).double(),
            Unroll([4]),
            ESTIMATORS["replay"],
            MetaSettings(**SETTINGS),  # type: ignore[arg-type]
            folder,
            {},
        )
    if size > 1:
        ranks.leave()


def test_two_processes_end_where_one_does(tmp_path: Path) -> None:
    found = []
    for size in (1, 2):
        folder = tmp_path / str(size)
        folder.mkdir()
        if size == 1:
            as_rank(0, size, folder)
        else:
            spawn(as_rank, (size, folder), size, tmp_path)
        tensors, _ = checkpoint.load(folder / "last.safetensors")
        phi = [tensor.flatten() for name, tensor in tensors.items() if name.startswith("phi.")]
        found.append(torch.cat(phi))
    assert (found[0] - found[1]).norm() <= 1e-10 * found[0].norm()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": {"mnist": 1.0}}, r"weights\.mnist: tasks are quadratic, network"),
        ({"weights": {"network": 0.0}}, r"weights\.network=0\.0: must be positive"),
        ({"horizons": {"network": 0}}, r"horizons\.network=0: must be at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        mixture(**options)


def test_tasks_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="needs two at least"):
        MixtureTask("mixture", {"quadratic": QuadraticTask()})
    with pytest.raises(ConfigError, match=r"tasks\.a\.b: a name has letters"):
        MixtureTask("mixture", {"a.b": QuadraticTask(), "c": QuadraticTask()})
    with pytest.raises(ConfigError, match=r"tasks\.inner is a mixture itself"):
        MixtureTask("mixture", {"inner": mixture(), "c": QuadraticTask()})
    with pytest.raises(ConfigError, match="task=quadratic, task=network"):
        mixture().sample("test", 2, torch.Generator())
    rule = CoordinatewiseLSTM(hidden_size=2)
    problem = MetaProblem(rule, mixture(), Unroll([4], horizons=[5]), 1, 6, 0, Ranks())
    with pytest.raises(ConfigError, match=r"leave unroll\.horizons=null"):
        begin(Replay(), problem)


def test_data_are_told_by_part_and_together() -> None:
    data = mixture().data_description()
    assert data is not None
    parts: Any = data["parts"]
    assert list(parts) == ["network"]
    assert data["num_examples"] == {
        split: parts["network"]["num_examples"][split] for split in ("train", "validation", "test")
    }
    moved = {**data, "source": "x", "parts": {"network": {**parts["network"], "source": "x"}}}
    assert same_images(moved) == same_images(data)
    alone = MixtureTask("mixture", {"quadratic": QuadraticTask(), "other": QuadraticTask()})
    assert alone.data_description() is None


def test_a_part_has_the_horizon_that_it_recommends() -> None:
    words = ("task=mixture", "+task@task.tasks.cifar=cifar10")
    assert composed("meta_train", *words).task.horizons.cifar == 1000
    given = composed_config("meta_train", [*words, "task.horizons.cifar=7"])
    assert dict(given.task.horizons) == {"quadratic": None, "mnist": None, "cifar": 7}


def test_the_mixture_of_the_page_composes(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    (tmp_path / "conf" / "task").mkdir(parents=True)
    (tmp_path / "conf" / "task" / "nets_and_bowls.yaml").write_text(text, encoding="utf-8")
    words = ("--config-dir", "conf", "task=nets_and_bowls", "--cfg", "job")
    ran = l2lgd("meta-train", *words, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    config = yaml.safe_load(ran.stdout)
    assert config["num_functions"] == 4
    task: Any = build(config["task"], "task", kind=Task)  # type: ignore[type-abstract]
    parts = task.parts()
    assert {name: (part.weight, part.num_steps) for name, part in parts.items()} == {
        "quadratic": (1.0, 50),
        "rotated": (1.0, None),
        "cifar10": (2.0, 200),
    }
    assert parts["quadratic"].task.dimension == 20
    assert parts["rotated"].task.name == "quadratic_rotated"


def test_rates_are_those_that_evaluate_finds() -> None:
    config = composed("evaluate", "task=mnist")
    assert (config.tune_functions, config.tune_seed) == (FUNCTIONS, SEED)


def test_from_the_command_to_its_commands(small_data: Path, tmp_path: Path) -> None:
    words = ["task=mixture", "task.tasks.quadratic.dimension=3", "task.horizons.quadratic=5"]
    words += ["task.tasks.mnist.hidden_layers=[2,2]", "task.tasks.mnist.batch_size=4"]
    words += [
        "task.tasks.mnist.data.source=folder",
        f"task.tasks.mnist.data.root={small_data}/mnist",
    ]
    words += ["meta_steps=4", "validate_every=2", "checkpoint_every=2", "num_steps=4"]
    words += ["num_functions=2", "validation_functions=2", "unroll.lengths=[2]", "logger=none"]
    words += ["threads=1", "tuned_dir=tuned", "opt.hidden_size=3", "hydra.run.dir=run"]
    ran = l2lgd("meta-train", *words, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text("utf-8"))
    names = {"quadratic", "mnist"}
    assert set(summary["validation_losses"]) == set(summary["reference_losses"]) == names
    lines = json_lines(tmp_path / "run" / "metrics.jsonl")
    validated = [line for line in lines if "validation_loss" in line]
    assert {f"validation_loss/{name}" for name in names} <= set(validated[-1])
    assert min(line["validation_loss"] for line in validated) == summary["best_validation_loss"]
    kept = sorted(file.name.partition("-adam-")[0] for file in (tmp_path / "tuned").iterdir())
    assert kept == ["mnist", "quadratic"]

    printed = [line for line in ran.stderr.splitlines() if line.startswith("l2lgd evaluate")]
    assert len(printed) == 2
    for name, line in zip(("quadratic", "mnist"), printed, strict=True):
        given = ["baselines=[adam]", "num_functions=2", "logger=none", "tuned_dir=tuned"]
        ran = l2lgd(*shlex.split(line)[1:], *given, f"hydra.run.dir={name}", cwd=tmp_path)
        assert ran.returncode == 0, ran.stderr
        assert "searching" not in ran.stderr  # the rate that was found for the score
        found = json.loads((tmp_path / name / "summary.json").read_text("utf-8"))
        assert found["task"] == name
        assert found["num_steps"] == {"quadratic": 5, "mnist": 4}[name]

    again = l2lgd("meta-train", "resume=run", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    ran = l2lgd("evaluate", "task=mixture", "logger=none", cwd=tmp_path)
    assert ran.returncode == 2
    assert "one by one: task=quadratic, task=mnist" in ran.stderr
