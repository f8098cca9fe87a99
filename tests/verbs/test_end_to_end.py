"""Whole runs of the installed command, and what they leave behind."""

import csv
import itertools
import json
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import begun, json_lines, l2lgd, prepared, wait_until
from omegaconf import OmegaConf
from PIL import Image

from l2lgd.config.building import build
from l2lgd.meta.state import load_weights
from l2lgd.meta.trainer import Trainer
from l2lgd.storage import checkpoint
from l2lgd.tasks.quadratic import QuadraticTask
from l2lgd.tracking.tracker import NullTracker

QUICK = ("task=quadratic", "logger=none", "device=cpu", "threads=1")
META = (
    *("meta-train", *QUICK, "seed=5", "num_functions=4", "num_steps=12", "unroll.lengths=[5]"),
    *("meta_steps=30", "validate_every=10", "validation_functions=6", "checkpoint_every=10"),
)
# Long enough to be killed on the way.
SECOND = ("estimator.second_derivatives=true", "estimator.second_derivatives_from=0.4")
LONG = (
    *META,
    *SECOND,
    "opt.hidden_size=4",
    "meta_steps=300",
    "checkpoint_every=20",
    "validate_every=30",
)


def run(*arguments: str, cwd: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    done = l2lgd(*arguments, cwd=cwd, **changes)
    assert done.returncode == 0, done.stderr
    return done


def summary_of(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def untimed(path: Path) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in line.items() if name != "time"} for line in json_lines(path)
    ]


def assert_same_tensors(one: Path, other: Path) -> None:
    mine, theirs = checkpoint.load(one)[0], checkpoint.load(other)[0]
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert tensor.equal(theirs[name]), name


def assert_picture(path: Path) -> None:
    with Image.open(path) as picture:
        assert picture.format == "PNG"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short meta-training."""
    folder = tmp_path_factory.mktemp("trained")
    run(*META, "hydra.run.dir=run", cwd=folder)
    return folder / "run"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a longer one, which others are compared with."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    run(*LONG, "hydra.run.dir=run", cwd=folder)
    return folder / "run"


def test_meta_training_leaves_the_files_of_a_run(trained: Path) -> None:
    found = summary_of(trained)
    assert (found["task"], found["opt"], found["seed"]) == ("quadratic", "lstm", 5)
    assert found["meta_steps"] == 30
    assert found["seconds"] > 0
    assert found["coordinate_steps_per_second"] > 0
    assert found["versions"]["torch"] == version("torch")
    assert found["device"] == "cpu"
    best = Path(found["checkpoint"])
    assert best == trained / "checkpoints" / "best.safetensors"
    assert best.is_file()
    assert (trained / "checkpoints" / "last.safetensors").is_file()
    assert OmegaConf.load(trained / ".hydra" / "config.yaml").seed == 5
    lines = json_lines(trained / "metrics.jsonl")
    assert [line["step"] for line in lines if "meta_loss" in line] == [*range(1, 31)]
    assert all(isinstance(line["time"], float) for line in lines)
    losses = [line["validation_loss"] for line in lines if "validation_loss" in line]
    assert found["best_validation_loss"] == min(losses)


def test_the_command_in_a_summary_can_be_run_again(trained: Path) -> None:
    found = summary_of(trained)
    assert found["verb"] == "meta-train"
    assert found["command"].split()[:2] == ["l2lgd", "meta-train"]


def test_checkpoints_say_where_they_come_from(trained: Path) -> None:
    for name in ("best", "last"):
        _, about = checkpoint.load(trained / "checkpoints" / f"{name}.safetensors")
        assert about["task_name"] == "quadratic"
        assert about["opt_name"] == "lstm"
        assert about["seed"] == 5
        assert about["licence"] == "Apache-2.0"
        assert about["versions"]["l2lgd"] == version("l2lgd")


def test_the_selected_weights_have_the_loss_they_were_selected_for(trained: Path) -> None:
    path = trained / "checkpoints" / "best.safetensors"
    _, about = checkpoint.load(path)
    learned = build(about["opt"], "opt")
    load_weights(path, learned)
    curves = Trainer(QuadraticTask(), 5, NullTracker()).evaluate(learned, "validation", 6, 12)
    assert curves.final_loss() == about["validation_loss"]
    assert about["validation_loss"] == summary_of(trained)["best_validation_loss"]


def test_evaluation_gives_the_loss_that_training_saw(trained: Path, tmp_path: Path) -> None:
    run(
        *("evaluate", *QUICK, "seed=5", "num_functions=6", "num_steps=12", "split=validation"),
        *("baselines=[]", f"checkpoint={trained}/checkpoints/best.safetensors"),
        "hydra.run.dir=run",
        cwd=tmp_path,
    )
    measured = summary_of(tmp_path / "run")["results"]["lstm"]["final_loss"]["mean"]
    assert measured == pytest.approx(summary_of(trained)["best_validation_loss"], rel=1e-12)


def test_evaluation_compares_with_tuned_optimizers(trained: Path, tmp_path: Path) -> None:
    weights = str(trained / "checkpoints" / "best.safetensors")
    arguments = (
        *("evaluate", *QUICK, f"checkpoint={weights}", "baselines=[adam,sgd]", "seed=2"),
        *("num_functions=9", "num_steps=10", "tune_functions=3", "tuned_dir=tuned"),
    )
    done = run(*arguments, "hydra.run.dir=first", cwd=tmp_path)
    for name in ("lstm", "adam", "sgd"):
        assert name in done.stdout
    folder = tmp_path / "first"
    found = summary_of(folder)
    expected = {"task": "quadratic", "split": "test", "num_functions": 9, "num_steps": 10}
    expected |= {"verb": "evaluate", "seed": 2, "data": None, "device": "cpu"}
    assert {name: found[name] for name in expected} == expected
    assert found["command"].startswith("l2lgd evaluate task=quadratic ")
    assert {"l2lgd", "torch"} <= found["versions"].keys()
    assert found["seconds"] > 0
    assert list(found["results"]) == ["lstm", "adam", "sgd"]
    for name, result in found["results"].items():
        low, high = result["final_loss"]["ci95"]
        assert low <= result["final_loss"]["mean"] <= high
        assert result["diverged"] == 0
        if name == "lstm":
            assert result["learning_rate"] is None
            assert result["checkpoint"] == weights
        else:
            rates = [rate for rate, _ in result["search"]]
            tried = {rate: loss for rate, loss in result["search"] if loss is not None}
            assert result["learning_rate"] == min(tried, key=tried.__getitem__)
            assert min(rates) < result["learning_rate"] < max(rates)
    with (folder / "curves.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [*range(11)]
    assert len({row[name] for row in rows[:1] for name in found["results"]}) == 1, "same functions"
    for name, result in found["results"].items():
        assert float(rows[-1][name]) == pytest.approx(result["final_loss"]["mean"], rel=1e-4)
        assert all(float(r[f"{name}_low"]) <= float(r[f"{name}_high"]) for r in rows)
    assert [line["step"] for line in json_lines(folder / "metrics.jsonl")] == [*range(11)]
    assert_picture(folder / "curves.png")

    # The second time the rates are not searched again, and the numbers are the same.
    again = run(*arguments, "hydra.run.dir=second", cwd=tmp_path)
    assert "searching" in done.stderr
    assert "searching" not in again.stderr
    assert summary_of(tmp_path / "second")["results"] == found["results"]

    # Losses are reused where nothing that they depend on has changed.
    reusing = ("reuse=[second,first]", "hydra.run.dir=third")
    third = run(*arguments, *reusing, "baselines=[adam,rmsprop]", cwd=tmp_path)
    taken = {
        name for name in ("lstm", "adam") if f"{name}: losses taken from second" in third.stderr
    }
    assert taken == {"lstm", "adam"}
    results = summary_of(tmp_path / "third")["results"]
    assert list(results) == ["lstm", "adam", "rmsprop"]
    assert {results[n].pop("losses_from") for n in taken} == {"second"}
    assert {n: results[n] for n in taken} == {n: found["results"][n] for n in taken}
    for change in ("seed=3", "num_functions=8", "split=validation", "task.dimension=9"):
        changed = run(*arguments, *reusing, "baselines=[]", change, cwd=tmp_path)
        assert "taken from" not in changed.stderr
    missing = l2lgd(*arguments, "reuse=[first,nowhere]", cwd=tmp_path)
    assert missing.returncode == 2
    assert "reuse=[nowhere]: has no losses.safetensors" in missing.stderr


def test_options_beside_a_checkpoint_count(trained: Path, tmp_path: Path) -> None:
    weights = trained / "checkpoints" / "best.safetensors"
    command = ("evaluate", *QUICK, f"checkpoint={weights}", "baselines=[]", "num_functions=3")
    losses = {}
    for scale in ("0.1", "0.05"):
        run(*command, f"opt.output_scale={scale}", f"hydra.run.dir={scale}", cwd=tmp_path)
        losses[scale] = summary_of(tmp_path / scale)["results"]["lstm"]["final_loss"]["mean"]
    assert losses["0.1"] != losses["0.05"]
    done = l2lgd(*command, "opt.hidden_size=7", cwd=tmp_path)
    assert done.returncode == 2
    assert "does not fit" in done.stderr
    assert done.stderr.count("\n") == 1


def test_weights_are_not_evaluated_under_another_name(trained: Path, tmp_path: Path) -> None:
    weights = trained / "checkpoints" / "best.safetensors"
    done = l2lgd("evaluate", *QUICK, "opt=lstm_gac", f"checkpoint={weights}", cwd=tmp_path)
    assert done.returncode == 2
    assert "holds weights of opt=lstm, not of opt=lstm_gac" in done.stderr


def test_missing_weights_of_a_baseline_are_noticed_before_anything_is_begun(
    trained: Path, tmp_path: Path
) -> None:
    weights = trained / "checkpoints" / "best.safetensors"
    own = ("task.weights_of=[none]", "baselines=[sgd,lstm_gac]", "hydra.run.dir=run")
    done = l2lgd("evaluate", *QUICK, f"checkpoint={weights}", *own, cwd=tmp_path)
    assert done.returncode == 2
    assert "no trained weights ship for task=quadratic opt=lstm_gac" in done.stderr
    assert "tuned" not in done.stderr + done.stdout


def test_a_meta_training_may_begin_with_trained_weights(trained: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    shutil.copy(trained / "checkpoints" / "best.safetensors", weights)
    begin = ("meta_steps=1", "meta_learning_rate=1e-12", f"initial_weights={weights}")
    run(*META, *begin, "hydra.run.dir=on", cwd=tmp_path)
    tensors, about = checkpoint.load(tmp_path / "on/checkpoints/best.safetensors")
    for name, tensor in checkpoint.load(weights)[0].items():
        torch.testing.assert_close(tensors[name], tensor)
    assert about["begun_from"]["command"] == summary_of(trained)["command"]
    again = ("meta_steps=1", "initial_weights=on/checkpoints/best.safetensors")
    run(*META, *again, "hydra.run.dir=third", cwd=tmp_path)
    _, third = checkpoint.load(tmp_path / "third/checkpoints/best.safetensors")
    assert third["begun_from"]["begun_from"] == about["begun_from"], "the first is forgotten"
    begun_with = checkpoint.load(weights)[0]
    weights.unlink()  # it has done its part: going on does not need it
    run("meta-train", "resume=on", cwd=tmp_path)
    for name, tensor in checkpoint.load(tmp_path / "on/checkpoints/last.safetensors")[0].items():
        if name.startswith("phi."):
            torch.testing.assert_close(tensor, begun_with[name.removeprefix("phi.")])
    bad = l2lgd(*META, "initial_weights=nowhere.safetensors", cwd=tmp_path)
    assert bad.returncode == 2
    assert "nowhere.safetensors" in bad.stderr


def test_an_optimizer_that_diverges_is_counted_not_hidden(tmp_path: Path) -> None:
    run(
        *("evaluate", *QUICK, "opt=sgd", "opt.learning_rate=10", "baselines=[]"),
        *("num_functions=3", "num_steps=60", "hydra.run.dir=run"),
        cwd=tmp_path,
    )
    result = summary_of(tmp_path / "run")["results"]["sgd"]
    assert result["diverged"] == 3
    assert result["final_loss"]["mean"] is None
    assert_picture(tmp_path / "run" / "curves.png")


def test_an_interval_of_one_function_is_a_dash(tmp_path: Path) -> None:
    done = run(
        *("evaluate", *QUICK, "opt=sgd", "opt.learning_rate=0.01", "baselines=[]"),
        *("num_functions=1", "num_steps=5", "hydra.run.dir=run"),
        cwd=tmp_path,
    )
    (line,) = [line for line in done.stdout.splitlines() if "sgd" in line]
    assert [cell.strip() for cell in line.split("│")[1:-1]][2] == "–"
    assert summary_of(tmp_path / "run")["results"]["sgd"]["final_loss"]["ci95"] is None
    assert_picture(tmp_path / "run" / "curves.png")


def test_last_weights_can_be_loaded_too(trained: Path) -> None:
    _, about = checkpoint.load(trained / "checkpoints" / "last.safetensors")
    learned, untrained = build(about["opt"], "opt"), build(about["opt"], "opt")
    load_weights(trained / "checkpoints" / "last.safetensors", learned)
    assert not learned.output_weight.equal(untrained.output_weight)


def test_a_checkpoint_cannot_name_code_to_run(trained: Path, tmp_path: Path) -> None:
    tensors, about = checkpoint.load(trained / "checkpoints" / "best.safetensors")
    bad = tmp_path / "bad.safetensors"
    checkpoint.save(bad, tensors, {**about, "opt": {"_target_": "os.mkdir", "path": "owned"}})
    done = l2lgd("evaluate", *QUICK, f"checkpoint={bad}", "baselines=[]", cwd=tmp_path)
    assert done.returncode == 2
    assert "os.mkdir" in done.stderr
    assert not (tmp_path / "owned").exists()


def test_learning_rates_are_tuned_and_kept(tmp_path: Path) -> None:
    run(
        *("tune", *QUICK, "baselines=[sgd,nag]", "num_functions=3", "num_steps=8"),
        *("lowest_rate=0.001", "highest_rate=0.01", "tuned_dir=tuned", "hydra.run.dir=run"),
        cwd=tmp_path,
    )
    found = summary_of(tmp_path / "run")
    assert (found["verb"], found["search"]) == ("tune", "learning_rate")
    for name in ("sgd", "nag"):
        tried = dict(found["results"][name]["trials"])
        assert found["results"][name]["learning_rate"] == min(tried, key=tried.__getitem__)
        assert found["results"][name]["validation_loss"] == min(tried.values())
        assert list((tmp_path / "tuned").glob(f"quadratic-{name}-*.json"))
    assert_picture(tmp_path / "run" / "search.png")


def test_the_meta_learning_rate_is_searched_at_random(tmp_path: Path) -> None:
    arguments = (
        *("tune", *QUICK, "search=meta_learning_rate", "trials=2", "meta_steps=4"),
        *("num_functions=2", "num_steps=4", "validation_functions=2"),
    )
    run(*arguments, "hydra.run.dir=run", cwd=tmp_path)
    found = summary_of(tmp_path / "run")
    assert found["search"] == "meta_learning_rate"
    trials = found["results"]["lstm"]["trials"]
    assert len(trials) == 2
    assert all(1e-4 <= rate <= 0.03 for rate, _ in trials)
    assert found["results"]["lstm"]["meta_learning_rate"] in [rate for rate, _ in trials]
    assert len(list((tmp_path / "run").glob("trial_*/metrics.jsonl"))) == 2
    assert_picture(tmp_path / "run" / "search.png")


def test_a_factor_on_trained_updates_is_searched_and_kept(trained: Path, tmp_path: Path) -> None:
    weights = trained / "checkpoints" / "best.safetensors"
    bounds = ("lowest_rate=0.1", "highest_rate=10", "num_functions=3", "num_steps=12")
    search = ("tune", *QUICK, "search=update_scale", *bounds)
    run(*search, f"checkpoint={weights}", "hydra.run.dir=run", cwd=tmp_path)
    found = summary_of(tmp_path / "run")["results"]["lstm"]
    tried = dict(found["trials"])
    assert len(tried) > 5
    assert found["validation_loss"] == tried[found["update_scale"]] == min(tried.values())
    assert_picture(tmp_path / "run" / "search.png")
    scaled = tmp_path / "run/checkpoints/best.safetensors"
    before, after = checkpoint.load(weights)[0], checkpoint.load(scaled)[0]
    expected = found["update_scale"] * before["output_weight"]
    torch.testing.assert_close(after["output_weight"], expected)
    assert checkpoint.load(scaled)[1]["begun_from"]["command"] == summary_of(trained)["command"]
    own = ("evaluate", *QUICK, f"checkpoint={scaled}", "baselines=[]", "hydra.run.dir=again")
    run(*own, "split=validation", "num_functions=3", "num_steps=12", "seed=0", cwd=tmp_path)
    again = summary_of(tmp_path / "again")["results"]["lstm"]["final_loss"]["mean"]
    assert again == pytest.approx(found["validation_loss"])


def killed_midway(folder: Path) -> Path:
    """A run that got SIGKILL after its first checkpoints and before its end."""
    process = begun("-m", "l2lgd", *LONG, "hydra.run.dir=run", cwd=folder)
    metrics, last = folder / "run" / "metrics.jsonl", folder / "run/checkpoints/last.safetensors"
    wait_until(
        lambda: last.exists() and metrics.read_bytes().count(b"\n") > 50, "50 lines", process
    )
    process.kill()
    assert process.wait() == -9
    assert not (folder / "run" / "summary.json").exists(), "killed too late to test anything"
    return folder / "run"


def test_a_killed_run_goes_on_to_the_bits_of_one_that_was_not(
    uninterrupted: Path, tmp_path: Path
) -> None:
    folder = killed_midway(tmp_path)
    # What a crash in the middle of a line leaves.
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 299, "ti')

    # Another value of an option that decides the numbers is refused, and named.
    before = (folder / "metrics.jsonl").read_bytes()
    refused = l2lgd("meta-train", "resume=run", "num_functions=6", cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert refused.stderr.startswith("l2lgd: ")
    assert "num_functions: 4 → 6" in refused.stderr
    assert (folder / "metrics.jsonl").read_bytes() == before

    run("meta-train", "resume=run", cwd=tmp_path)
    for name in ("last", "best"):
        file = f"checkpoints/{name}.safetensors"
        assert_same_tensors(folder / file, uninterrupted / file)
    assert untimed(folder / "metrics.jsonl") == untimed(uninterrupted / "metrics.jsonl")
    resumed, once = summary_of(folder), summary_of(uninterrupted)
    for name in ("best_validation_loss", "best_meta_step", "meta_steps", "skipped"):
        assert resumed[name] == once[name]
    assert resumed["command"] == once["command"]
    assert list(tmp_path.iterdir()) == [folder], "the run goes on in its own folder only"


def test_the_same_command_gives_the_same_bits(trained: Path, tmp_path: Path) -> None:
    run(*META, "hydra.run.dir=again", cwd=tmp_path)
    for name in ("last", "best"):
        file = f"checkpoints/{name}.safetensors"
        assert_same_tensors(tmp_path / "again" / file, trained / file)
    assert untimed(tmp_path / "again" / "metrics.jsonl") == untimed(trained / "metrics.jsonl")


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock" and path.suffix != ".log"
    }


@pytest.fixture
def finished(trained: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, to do things to."""
    for name, content in files_of(trained).items():
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_bytes(content)
    return tmp_path / "run"


def test_a_finished_run_is_not_overwritten(finished: Path) -> None:
    before = files_of(finished)
    done = l2lgd(*META, "seed=6", "hydra.run.dir=run", cwd=finished.parent)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "already holds a run" in done.stderr
    assert "resume=" in done.stderr
    after = files_of(finished)
    results = [name for name in before if not name.startswith(".hydra")]
    assert {name: after[name] for name in results} == {name: before[name] for name in results}


def test_a_refused_run_leaves_the_config_of_the_run_that_is_there(finished: Path) -> None:
    # Or else resuming compares with, and goes on with, the options of the refused one.
    before = files_of(finished)
    l2lgd(*META, "seed=6", "hydra.run.dir=run", cwd=finished.parent)
    assert files_of(finished) == before


def test_resuming_a_finished_run_changes_no_result(finished: Path) -> None:
    before = files_of(finished)
    run("meta-train", f"resume={finished}", cwd=finished.parent)
    after = files_of(finished)
    for name in ("checkpoints/best.safetensors", "metrics.jsonl"):
        assert after[name] == before[name]


@pytest.mark.parametrize(
    ("size", "full"),
    [(14_000, "best.safetensors"), (9_000, "metrics.jsonl")],
    ids=["at a checkpoint", "at a metric"],
)
def test_a_full_disk_ends_in_a_message(size: int, full: str, tmp_path: Path) -> None:
    # The network's 20 kB do not fit into the first limit, some thirty metrics not into the second.
    steps = ["meta_steps=9"] if size > 10_000 else ["meta_steps=500", "validate_every=500"]
    steps += ["checkpoint_every=500"]
    # A limit on the size of files stands in for a full disk.
    limit = f"import resource as r; r.setrlimit(r.RLIMIT_FSIZE, ({size}, {size}))"
    done = prepared(limit, "-m", "l2lgd", *META, *steps, "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("l2lgd: could not write")
    assert full in last


def test_wandb_offline_needs_no_login_and_leaves_its_own_record(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path / "home"), "WANDB_MODE": "offline"}
    (tmp_path / "home").mkdir()
    run(
        *("meta-train", "task=quadratic", "device=cpu", "threads=1", "logger=wandb"),
        *("num_functions=2", "num_steps=4", "meta_steps=2", "validation_functions=2"),
        "hydra.run.dir=run",
        cwd=tmp_path,
        **home,
    )
    (record,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    assert list(record.glob("*.wandb"))
    assert len(json_lines(tmp_path / "run" / "metrics.jsonl")) == 3
    _, about = checkpoint.load(tmp_path / "run" / "checkpoints" / "last.safetensors")
    assert record.name.endswith(about["mirror_id"])


def test_mnist_is_trained_on_and_named_in_the_summary(mnist_dir: str, tmp_path: Path) -> None:
    run(
        *("meta-train", "task=mnist", "logger=none", "device=cpu", "threads=1"),
        *(f"data_dir={mnist_dir}", "opt.hidden_size=4", "num_functions=1", "num_steps=4"),
        *("meta_steps=2", "validation_functions=1", "hydra.run.dir=run"),
        cwd=tmp_path,
    )
    found = summary_of(tmp_path / "run")
    assert found["data"] == {"name": "mnist", "source": "torchvision", "num_examples": 5000}
    assert found["best_validation_loss"] == pytest.approx(2.3, abs=0.3)


def test_going_on_with_other_data_is_refused(tmp_path: Path) -> None:
    small = ("task=mnist", "logger=none", "device=cpu", "threads=1", "meta_steps=2")
    small += ("num_steps=2", "unroll.lengths=[1]", "validation_functions=1", "hydra.run.dir=run")
    images = torch.zeros(28, 28, dtype=torch.uint8).numpy()
    for number in range(2):
        for part, label in itertools.product(("train", "test"), "01"):
            folder = tmp_path / "data" / "mnist" / part / label
            folder.mkdir(parents=True, exist_ok=True)
            for index in range(4):
                Image.fromarray(images + index + 9 * number).save(folder / f"{index}.png")
        if number == 0:
            run("meta-train", *small, "task.data.source=folder", "data_dir=data", cwd=tmp_path)
    done = l2lgd("meta-train", "resume=run", cwd=tmp_path)
    assert done.returncode == 2
    assert "other data" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_embedded_digits_are_called_a_subset_in_the_summary(tmp_path: Path) -> None:
    run(
        *("evaluate", "task=mnist", "logger=none", "device=cpu", "threads=1", "opt=adam"),
        *("task.data.source=embedded", "opt.learning_rate=0.01", "baselines=[]"),
        *("num_functions=2", "num_steps=3", "hydra.run.dir=run"),
        cwd=tmp_path,
    )
    data = summary_of(tmp_path / "run")["data"]
    assert (data["source"], data["num_examples"]) == ("embedded", 1666)
    assert "subset" in data["note"]


def test_small_images_are_meta_trained_on_and_evaluated(tmp_path: Path) -> None:
    """A perceptron on grey ones, then with its weights a convnet on the same with colours."""
    data = ("task.data.name=mnist", "task.data.source=embedded", "task.data.size=8")
    few = ("logger=none", "device=cpu", "threads=1", "num_functions=2", "num_steps=4", "opt=lstm")
    run(
        *("meta-train", "task=mnist", *data, *few, "unroll.lengths=[2]", "meta_steps=3"),
        *("validation_functions=2", "validate_every=3", "hydra.run.dir=run"),
        cwd=tmp_path,
    )
    described = summary_of(tmp_path / "run")["data"]
    assert (described["size"], "colours" in described) == (8, False)
    _, metadata = checkpoint.load(tmp_path / "run" / "checkpoints" / "best.safetensors")
    assert metadata["data"]["size"] == 8
    run(
        *("evaluate", "task=cifar10", *data, *few, "task.data.colours=true", "baselines=[]"),
        *("task.batch_size=8", "checkpoint=run/checkpoints/best.safetensors", "hydra.run.dir=of"),
        cwd=tmp_path,
    )
    summary = summary_of(tmp_path / "of")
    assert (summary["data"]["size"], summary["data"]["colours"]) == (8, True)
    assert summary["results"]["lstm"]["final_loss"]["mean"] < 10


def test_weights_of_full_mnist_are_not_held_out_on_the_embedded_digits(tmp_path: Path) -> None:
    done = l2lgd(
        *("evaluate", "task=mnist", "logger=none", "device=cpu", "baselines=[]"),
        *("task.data.source=embedded", "num_functions=2", "num_steps=3"),
        cwd=tmp_path,
    )
    assert done.returncode == 0
    assert "NOT HELD OUT" in done.stderr


def test_one_thread_is_what_these_tests_assume() -> None:
    assert torch.get_num_threads() == 1
