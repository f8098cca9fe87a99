"""``checkpoints=``: the weights of several learned optimizers in one comparison."""

import json
from pathlib import Path

import pytest
from helpers import l2lgd

from l2lgd.pretrained import weights
from l2lgd.storage import checkpoint

QUICK = ("task=quadratic", "num_functions=2", "num_steps=4", "logger=none", "device=cpu")
QUICK += ("threads=1", "hydra.run.dir=run")
GAC = "sharing/quadratic-lstm_gac"


def results(folder: Path) -> dict[str, dict]:
    found: dict[str, dict] = json.loads((folder / "run" / "summary.json").read_text("utf-8"))
    return found["results"]


def own_file(folder: Path, name: str, factor: float = 1.0) -> None:
    """Shipped weights times a factor, in a file of one's own."""
    tensors, metadata = checkpoint.load(weights.find(name).path)
    scaled = {key: value * factor for key, value in tensors.items()}
    checkpoint.save(folder / "my own.safetensors", scaled, metadata)


def test_each_optimizer_has_the_file_that_is_given_for_it(tmp_path: Path) -> None:
    own_file(tmp_path, GAC, 0.5)
    several = 'checkpoints={lstm: mnist-lstm, lstm_gac: "my own.safetensors"}'
    ran = l2lgd("evaluate", *QUICK, "opt=lstm", "baselines=[lstm_gac]", several, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    together = results(tmp_path)
    assert {name: one["checkpoint"] for name, one in together.items()} == {
        "lstm": "l2lgd/pretrained/shipped/mnist-lstm.safetensors",
        "lstm_gac": "my own.safetensors",
    }
    for name, file in (("lstm", "mnist-lstm"), ("lstm_gac", "my own.safetensors")):
        words = ("baselines=[]", f"opt={name}", f'checkpoint="{file}"')
        ran = l2lgd("evaluate", *QUICK, *words, cwd=tmp_path)
        assert ran.returncode == 0, ran.stderr
        assert results(tmp_path)[name] == together[name]


def test_losses_are_only_taken_for_the_same_weights(tmp_path: Path) -> None:
    words = ("evaluate", *QUICK[:-1], "baselines=[lstm_gac]", "checkpoint=quadratic-lstm")
    several = 'checkpoints={lstm_gac: "my own.safetensors"}'
    for factor, folder in ((1.0, "first"), (1.0, "same"), (0.5, "run")):
        own_file(tmp_path, GAC, factor)
        reuse = [] if folder == "first" else ["reuse=[first]"]
        ran = l2lgd(*words, several, f"hydra.run.dir={folder}", *reuse, cwd=tmp_path)
        assert ran.returncode == 0, ran.stderr
        taken = "lstm_gac: losses taken from first" in ran.stderr
        assert taken == (folder == "same")
    assert "losses_from" in results(tmp_path)["lstm"]


def test_what_has_no_file_takes_the_weights_that_ship(tmp_path: Path) -> None:
    several = "checkpoints={lstm_mixture: mnist-lstm_mixture}"
    words = ("baselines=[lstm_mixture,sgd]", "tune_functions=1", f"tuned_dir={tmp_path}", several)
    ran = l2lgd("evaluate", *QUICK, *words, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    found = results(tmp_path)
    assert found["lstm"]["checkpoint"] == "l2lgd/pretrained/shipped/quadratic-lstm.safetensors"
    assert found["lstm_mixture"]["checkpoint"].endswith("/mnist-lstm_mixture.safetensors")
    assert "checkpoint" not in found["sgd"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["checkpoints={rnnprop: FILE}"], "rnnprop is not compared, only lstm, adam"),
        (["checkpoints={adam: FILE}"], "for learned optimizers, opt=adam is not one"),
        (["opt=adam", "checkpoints={adam: FILE}"], "for learned optimizers, opt=adam is not one"),
        (["checkpoint=mnist-lstm", "checkpoints={lstm: FILE}"], "leave one of them out"),
        (
            ["baselines=[rnnprop]", "checkpoints={rnnprop: mnist-lstm}"],
            "not of opt=rnnprop; give 'checkpoints={lstm: \"mnist-lstm\"}'",
        ),
        (["baselines=[rnnprop]"], "evaluate it with 'checkpoints={rnnprop: FILE}'"),
        (["checkpoints={lstm: no.safetensors}"], "no checkpoint at no.safetensors"),
        (["checkpoints=mnist-lstm"], "must be a mapping, such as checkpoints={NAME: VALUE}"),
        (["checkpoints=[mnist-lstm]"], "must be a mapping"),
        (["checkpoints={lstm: null}"], "checkpoints.lstm: must not be null"),
    ],
)
def test_mistakes_end_in_one_line_before_anything_runs(
    words: list[str], said: str, tmp_path: Path
) -> None:
    ran = l2lgd("evaluate", *QUICK, "baselines=[adam]", *words, cwd=tmp_path)
    assert ran.returncode == 2
    assert said in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    assert not (tmp_path / "run" / "losses.safetensors").exists()


def test_the_folder_of_a_run_is_answered_with_its_weights(tmp_path: Path) -> None:
    inside = tmp_path / "a run" / "checkpoints" / "best.safetensors"
    inside.parent.mkdir(parents=True)
    inside.write_bytes(weights.find("quadratic-lstm").path.read_bytes())
    ran = l2lgd("evaluate", *QUICK, 'checkpoints={lstm: "a run"}', cwd=tmp_path)
    assert ran.returncode == 2
    assert "'checkpoints={lstm: \"a run/checkpoints/best.safetensors\"}'" in ran.stderr
