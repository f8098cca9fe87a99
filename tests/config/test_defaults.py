"""Who has the last word: the verb, the task, the experiment, what is typed."""

from pathlib import Path

import pytest
import yaml
from helpers import CONF, choices, composed, l2lgd
from omegaconf import OmegaConf

from l2lgd.config.old_names import current, upgraded, upgraded_task


@pytest.mark.parametrize(
    ("overrides", "option", "value"),
    [
        (("task=quadratic",), "num_steps", 100),  # the verb's
        (("task=quadratic",), "meta_steps", 8000),  # the task's
        (("experiment=quadratic_refine",), "meta_steps", 1500),  # the experiment's
        (("experiment=quadratic_refine", "meta_steps=7"), "meta_steps", 7),  # what is typed
        (("task=quadratic", "meta_steps=10000"), "meta_steps", 10000),  # though the verb has it too
        (("task=mnist",), "unroll.lengths", [20, 50, 50, 50, 50, 100, 100, 100]),
        (("task=mnist", "unroll=paper"), "unroll.lengths", [20]),
        (("task=mnist", "unroll.lengths=[20]"), "unroll.lengths", [20]),
        (("experiment=mnist_quick",), "unroll.lengths", [20, 50, 50, 50, 50, 100]),
        (("experiment=mnist_as_published",), "opt.initial_output", 1.0),
        (("task=mnist",), "opt.initial_output", 0.0),
        (("task=mnist", "opt=lstm_odd"), "opt.optimizer.initial_output", 0.0),
        (("task=cifar10",), "opt.optimizers.rest.optimizer.initial_output", 0.0),
        (("task=cifar2",), "meta_average", 0.9),  # of the task that it is made from
    ],
)
def test_the_last_word(overrides: tuple[str, ...], option: str, value: object) -> None:
    assert OmegaConf.select(composed("meta_train", *overrides), option) == value


@pytest.mark.parametrize(
    ("overrides", "functions", "meta_steps"),
    [
        (("task=quadratic",), 400, 500),
        (("task=quadratic", "search=meta_learning_rate"), 16, 500),
        (("task=mnist_mixture",), 20, 500),
    ],
)
def test_tune_takes_the_functions_of_what_is_searched(
    overrides: tuple[str, ...], functions: int, meta_steps: int
) -> None:
    config = composed("tune", *overrides)
    assert (config.num_functions, config.meta_steps) == (functions, meta_steps)


def test_an_optimizer_of_ones_own_keeps_what_it_sets(tmp_path: Path) -> None:
    own = tmp_path / "conf" / "opt"
    own.mkdir(parents=True)
    text = "defaults: [lstm, _self_]\noutput_scale: 0.5\n"
    (own / "mine.yaml").write_text(text, encoding="utf-8")
    words = ("--config-dir", "conf", "task=neural_art", "opt=mine", "--cfg", "job")
    done = l2lgd("meta-train", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["opt"]["output_scale"] == 0.5


def test_the_config_that_is_shown_has_the_numbers_that_run(tmp_path: Path) -> None:
    done = l2lgd("meta-train", "task=cifar10", "--cfg", "job", cwd=tmp_path)
    shown = yaml.safe_load(done.stdout)
    assert (shown["num_steps"], shown["meta_steps"]) == (1000, 160)
    assert shown["unroll"]["horizons"][0] == 200


@pytest.mark.parametrize("task", choices("task"))
def test_only_paths_are_interpolated(task: str) -> None:
    config = OmegaConf.to_container(composed("meta_train", f"task={task}"), resolve=False)
    assert isinstance(config, dict)
    open_ones = {k for k, v in config.items() if isinstance(v, str) and "${" in v}
    assert open_ones == {"data_dir", "tuned_dir"}
    assert "${" not in str(config["unroll"]) + str(config["opt"]) + str(config["task"])


def test_what_a_task_recommends_is_not_typed(tmp_path: Path) -> None:
    done = l2lgd("meta-train", "task=mnist", "task.recommended.meta_steps=3", cwd=tmp_path)
    assert done.returncode == 2
    assert "give meta_steps= itself" in done.stderr


def test_a_recipe_of_earlier_versions_is_what_a_task_recommends() -> None:
    node = {
        "_target_": "x.Y",
        "recipe": {"meta_steps": 3, "unroll_lengths": [5], "output_scale": 2.0, "loss_label": "f"},
    }
    assert upgraded_task(node) == {
        "_target_": "x.Y",
        "loss_label": "f",
        "recommended": {"meta_steps": 3, "unroll": {"lengths": [5]}, "opt": {"output_scale": 2.0}},
    }


def test_words_of_earlier_versions_mean_what_they_meant() -> None:
    words = ["--multirun", "meta_steps=5", "unroll=recipe", "task.recipe.meta_steps=3"]
    words += ["task.recipe.unroll_lengths=[5]", "task.recipe.weights_of=[a]", "seed=1"]
    assert current(words, ["meta_steps"]) == [
        "--multirun",
        "meta_steps=3",
        "unroll.lengths=[5]",
        "meta_steps=5",
        "unroll=task",
        "++task.weights_of=[a]",
        "seed=1",
    ]


def test_options_of_estimators_were_options_of_unrolls() -> None:
    node = {"recommended": {"unroll": {"lengths": [5], "smoothing": 2.0}}}
    recommended = {"unroll": {"lengths": [5]}, "estimator": {"smoothing": 2.0}}
    assert upgraded_task(node) == {"recommended": recommended}
    words = ["unroll.smoothing=3", "unroll.lengths=[5]", "task.recipe.smoothing=2"]
    assert current(words, []) == ["estimator.smoothing=2", "estimator.smoothing=3", words[1]]
    found = upgraded({"unroll": {"lengths": [5], "difference": 0.1}, "seed": 1})
    assert found["unroll"] == {"lengths": [5]}
    assert found["estimator"]["difference"] == 0.1


def test_the_papers_unrolls_bring_the_papers_estimator() -> None:
    def second(*words: str) -> bool:
        return bool(composed("meta_train", "task=mnist", *words).estimator.second_derivatives)

    assert second()
    assert not second("unroll=paper")
    assert not second("unroll=growing")
    assert second("unroll=paper", "estimator=task")
    assert composed("meta_train", "unroll=paper", "estimator=pes").estimator.sigma == 0.01


def test_a_recipe_is_added_to_what_the_task_it_is_made_of_recommends(tmp_path: Path) -> None:
    own = tmp_path / "conf" / "task"
    own.mkdir(parents=True)
    text = "defaults: [quadratic, _self_]\ndimension: 5\nrecipe: {meta_steps: 77}\n"
    (own / "mine.yaml").write_text(text, encoding="utf-8")
    words = ("--config-dir", "conf", "task=mine", "--cfg", "job")
    shown = yaml.safe_load(l2lgd("meta-train", *words, cwd=tmp_path).stdout)
    assert (shown["meta_steps"], shown["num_functions"]) == (77, 16)
    assert shown["unroll"]["loss_weights"] == "linear"


@pytest.mark.parametrize("key", ["recipe", "recommended"])
def test_an_experiment_can_say_what_is_recommended(key: str, tmp_path: Path) -> None:
    own = tmp_path / "conf" / "experiment"
    own.mkdir(parents=True)
    text = f"# @package _global_\ntask: {{{key}: {{meta_steps: 66}}}}\nvalidate_every: 9\n"
    (own / "mine.yaml").write_text(text, encoding="utf-8")
    words = ("--config-dir", "conf", "task=quadratic", "experiment=mine", "--cfg", "job")
    done = l2lgd("meta-train", *words, cwd=tmp_path)
    shown = yaml.safe_load(done.stdout)
    assert (shown["meta_steps"], shown["validate_every"]) == (66, 9), done.stderr


def test_what_no_recipe_ever_had_is_a_mistake(tmp_path: Path) -> None:
    done = l2lgd("meta-train", "task=quadratic", "task.recipe.foo=3", cwd=tmp_path)
    assert done.returncode == 2
    assert "task.recipe" in done.stderr


@pytest.mark.parametrize("target", ["[x]", "{x: [y]}", "3"])
def test_a_target_that_is_no_text_is_a_mistake_in_one_line(target: str, tmp_path: Path) -> None:
    own = tmp_path / "conf" / "task"
    own.mkdir(parents=True)
    text = f"defaults: [quadratic]\n_target_: {target}\n"
    (own / "mine.yaml").write_text(text, encoding="utf-8")
    done = l2lgd("meta-train", "--config-dir", "conf", "task=mine", "logger=none", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "l2lgd: task has no _target_: it must name the class to build\n"


def test_only_one_place_composes() -> None:
    for folder in ("l2lgd", "scripts"):
        for path in (CONF.parent / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert "initialize_config" not in text or path.name in ("defaults.py", "art.py"), path
