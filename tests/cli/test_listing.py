"""``l2lgd optimizers``."""

from pathlib import Path

import torch
from helpers import l2lgd

from l2lgd.pretrained import weights
from l2lgd.storage import checkpoint


def test_what_ships_has_a_line_each_that_fits_a_terminal() -> None:
    ran = l2lgd("optimizers", cwd=Path(), COLUMNS="80")
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in lines if line.strip()}
    for name in weights.names():
        task, *use = rows[name]
        assert task == weights.find(name).metadata["task_name"]
        assert use == ([weights.about()[name]["for"]] if name in weights.about() else [])
    assert "Apache-2.0" in ran.stdout


def test_every_name_says_where_it_works_and_where_it_fails() -> None:
    own = [name for name in weights.names() if "/" not in name]
    assert sorted(weights.about()) == own
    for lines in weights.about().values():
        assert lines["for"]
        assert lines["works"]
        assert lines["fails"]


def test_one_name_tells_how_it_was_made() -> None:
    ran = l2lgd("optimizers", "quadratic-lstm", cwd=Path())
    assert ran.returncode == 0, ran.stderr
    assert "l2lgd meta-train experiment=quadratic_refine seed=3" in ran.stdout
    assert "begun from (1)" in ran.stdout
    lines = [line.split() for line in ran.stdout.splitlines()]
    assert ["numbers", "per", "parameter", "80"] in lines


def test_the_commands_that_made_weights_can_be_pasted() -> None:
    found = weights.find("quadratic-lstm").metadata
    lines = l2lgd("optimizers", "quadratic-lstm", cwd=Path(), COLUMNS="80").stdout.splitlines()
    for told in (found, found["begun_from"]):
        assert f"    {told['command']}" in lines


def test_text_of_a_file_does_nothing_to_the_terminal(tmp_path: Path) -> None:
    shipped = weights.find("quadratic-lstm")
    tensors, metadata = checkpoint.load(shipped.path)
    evil = "\x1b[2Jgone\r\nsecond \x07line\u202e"
    metadata |= {"command": evil, "licence": evil, "task_name": evil}
    metadata["begun_from"] = {"command": evil}
    checkpoint.save(tmp_path / "own.safetensors", tensors, metadata)
    ran = l2lgd("optimizers", "own.safetensors", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("gone") == 4
    for line in ran.stdout.splitlines():
        assert line.isprintable()
        assert not line.startswith("second")


STRANGER = {
    "opt": {
        "_target_": "trap.rules.Rule",
        "units": 7,
        "inner": {"_target_": "another.Part", "widths": [3, 4]},
    },
    "opt_name": "rule",
    "task_name": "bowls",
    "packages": {"trap": "0.3.1", "another": None},
    "versions": {"l2lgd": "9.9.9"},
    "command": "l2lgd meta-train task=bowls",
    "seed": 5,
    "meta_step": 40,
    "config": {"meta_steps": 60},
    "validation_loss": 0.125,
}


def test_a_file_is_described_without_its_class(tmp_path: Path) -> None:
    package = tmp_path / "trap"
    package.mkdir()
    (package / "__init__.py").write_text('open("sprung", "w").close()', encoding="utf-8")
    (tmp_path / "another.py").write_text('open("sprung", "w").close()', encoding="utf-8")
    tensors = {"scale": torch.zeros(3, 2), "bias": torch.zeros(())}
    checkpoint.save(tmp_path / "own.safetensors", tensors, STRANGER)
    ran = l2lgd("optimizers", "own.safetensors", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert ran.returncode == 0, ran.stderr
    said = [line.split(maxsplit=1) for line in ran.stdout.splitlines()]
    for name, value in (
        ("class", "trap.rules.Rule"),
        ("package", "trap 0.3.1, another (version not known)"),
        ("units", "7"),
        ("inner._target_", "another.Part"),
        ("inner.widths", "[3, 4]"),
        ("weights:", "7 numbers, 2 tensors:"),
        ("scale", "(3, 2)"),
        ("bias", "()"),
        ("trained", "on       bowls"),
        ("meta-steps", "40 of 60"),
        ("validation", "loss  0.125"),
        ("versions", "l2lgd 9.9.9"),
        ("seed", "5"),
        ("l2lgd", "meta-train task=bowls"),
    ):
        assert [name, value] in said
    assert not (tmp_path / "sprung").exists()


def test_a_meta_training_under_way_is_described_by_its_weights(tmp_path: Path) -> None:
    words = ("task=quadratic", "logger=none", "meta_steps=2", "num_functions=2", "num_steps=5")
    words += ("unroll.lengths=[5]", "validate_every=2", "validation_functions=2", "threads=1")
    ran = l2lgd("meta-train", *words, "hydra.run.dir=run", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    told = []
    for name in ("best", "last"):
        file = f"run/checkpoints/{name}.safetensors"
        ran = l2lgd("optimizers", file, cwd=tmp_path)
        assert ran.returncode == 0, ran.stderr
        told.append([line for line in ran.stdout.splitlines() if file not in line])
    assert told[0] == told[1]
    assert "  weights: 5141 numbers, 6 tensors:" in told[0]


def test_mistakes_end_in_one_line(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "losses.safetensors", {"adam": torch.zeros(3, 2)}, {"losses": {}})
    (tmp_path / "text.safetensors").write_text("no tensors", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    for words, message in (
        (["mnist-lstn"], "did you mean mnist-lstm"),
        (["a", "b"], "too many words"),
        (["none.safetensors"], "no checkpoint at none.safetensors"),
        (["losses.safetensors"], "holds no weights of a learned optimizer; give the path"),
        (["text.safetensors"], "text.safetensors is not a readable checkpoint"),
        (["folder"], "folder is a folder; give a .safetensors file"),
    ):
        ran = l2lgd("optimizers", *words, cwd=tmp_path)
        assert ran.returncode == 2
        assert message in ran.stderr
        assert len(ran.stderr.splitlines()) == 1
