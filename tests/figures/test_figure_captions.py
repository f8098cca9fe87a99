"""Captions of figures: two sentences, and the same for what is committed."""

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module

from l2lgd.figures.captions import caption, intervals, notes
from l2lgd.figures.catalogue import BUDGETS, FIGURES
from l2lgd.figures.drawing import about

COMMITTED = Path(__file__).parents[2] / "outputs" / "figures"
STAND_IN = "a stand-in"


@pytest.mark.parametrize("name", FIGURES)
def test_the_committed_captions_are_two_sentences_of_what_their_json_says(name: str) -> None:
    text = (COMMITTED / f"figure_{name}.md").read_text(encoding="utf-8")
    made = about(COMMITTED, name)
    assert text == caption(FIGURES[name], made)
    assert text.count("\n") == 1
    assert text.endswith(".\n")
    assert text.count(". ") == 1
    assert (STAND_IN in text) == any(STAND_IN in note for note in notes(made))
    for provenance in ("seed", "torch", "l2lgd ", "cpu"):
        assert provenance not in text


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({"a": 100, "b": 100}, "bands are 95 % bootstrap intervals of the mean over 100 test"),
        ({"a": 100, "b": 100, "c": 20}, "over 100 test functions (20 in “c”)"),
        ({"a": 100, "b": 1, "c": 100}, "over 100 test functions (1 without bands in “b”)"),
        ({"a": 1, "b": 1, "c": 3}, "over 3 test functions (1 without bands in “a” and “b”)"),
        ({"a": 1, "b": 1}, "losses are of one test function each, without bands"),
    ],
)
def test_intervals_say_over_how_many_functions(counts: dict[str, int], said: str) -> None:
    assert said in intervals("bands", counts)


def test_a_note_names_its_panels_where_others_have_other_data() -> None:
    def panel(note: dict[str, str] | None) -> dict[str, Any]:
        return {"num_functions": 100, "diverged": {}, "data": note}

    subset, full = panel({"note": "a subset"}), panel({"name": "mnist"})
    panels = {"quadratic": panel(None), "mnist": subset, "mnist_200": full}
    assert caption(FIGURES["4"], {"panels": panels}).endswith("; a subset, in “MNIST”.\n")
    panels["mnist_200"] = subset
    assert caption(FIGURES["4"], {"panels": panels}).endswith("; a subset.\n")


def test_the_budget_in_the_caption_is_that_of_the_experiments() -> None:
    with initialize_config_module("l2lgd.conf", version_base="1.3"):
        steps: list[Any] = [
            compose("meta_train", [f"experiment={name}"]).meta_steps
            for name in ("sharing", "mnist_quick")
        ]
    assert [f"{count:,}" for count in steps] == ["1,500", "300"]
    assert f"{steps[0]:,} meta-steps on quadratics, {steps[1]:,} on MNIST" == BUDGETS
    assert BUDGETS in (COMMITTED / "figure_sharing.md").read_text(encoding="utf-8")
