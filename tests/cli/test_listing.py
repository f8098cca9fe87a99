"""``l2lgd optimizers``."""

from pathlib import Path

from helpers import l2lgd

from l2lgd.pretrained import weights


def test_the_table_has_what_ships_and_where_it_works() -> None:
    ran = l2lgd("optimizers", cwd=Path(), COLUMNS="200")
    assert ran.returncode == 0, ran.stderr
    for name in weights.names():
        assert name in ran.stdout
    assert ran.stdout.count("Apache-2.0") == len(weights.about())


def test_every_name_says_where_it_works_and_where_it_fails() -> None:
    own = [name for name in weights.names() if "/" not in name]
    assert sorted(weights.about()) == own
    for lines in weights.about().values():
        assert lines["works"]
        assert lines["fails"]


def test_one_name_tells_how_it_was_made() -> None:
    ran = l2lgd("optimizers", "quadratic-lstm", cwd=Path())
    assert ran.returncode == 0, ran.stderr
    assert "l2lgd meta-train experiment=quadratic_refine seed=3" in ran.stdout
    assert "begun from (1)" in ran.stdout
    lines = [line.split() for line in ran.stdout.splitlines()]
    assert ["numbers", "a", "parameter", "80"] in lines


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
