"""Titles of pictures: a task in words."""

from pathlib import Path

import pytest

from l2lgd.config.titles import title_of


@pytest.mark.parametrize(
    ("task", "overrides", "title"),
    [
        ("quadratic", [], "random quadratics |Wθ − y|²"),
        ("mnist_40", ["num_steps=9", "seed=1"], "MNIST with 40 hidden units"),
        ("mnist_40", ["task.activation=relu"], "MNIST with 40 hidden units; activation=relu"),
        ("mnist_40", ["task.data.source=embedded"], "MNIST with 40 hidden units"),
        ("nobodys_task", [], "nobodys task"),
    ],
)
def test_a_title_is_the_words_of_the_tasks_file(
    task: str, overrides: list[str], title: str
) -> None:
    assert title_of(task, overrides) == title


def test_tasks_of_ones_own_have_titles_too(tmp_path: Path) -> None:
    (tmp_path / "task").mkdir()
    text = "# @package _global_\n# rings of points (mine)\nname: rings\n"
    (tmp_path / "task" / "rings.yaml").write_text(text, encoding="utf-8")
    assert title_of("rings", folders=[tmp_path / "nowhere", tmp_path]) == "rings of points"
