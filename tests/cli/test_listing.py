"""``l2lgd optimizers``."""

from pathlib import Path

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


def test_mistakes_end_in_one_line() -> None:
    for words, message in (
        (["mnist-lstn"], "did you mean mnist-lstm"),
        (["a", "b"], "too many words"),
        (["none.safetensors"], "no checkpoint at none.safetensors"),
    ):
        ran = l2lgd("optimizers", *words, cwd=Path())
        assert ran.returncode == 2
        assert message in ran.stderr
        assert len(ran.stderr.splitlines()) == 1
