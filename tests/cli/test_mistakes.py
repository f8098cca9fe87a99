"""What newcomers type is answered with what they meant."""

import shlex
from pathlib import Path

import pytest
from helpers import CONF, l2lgd

from l2lgd.cli.help import verb_help
from l2lgd.cli.mistakes import ALIASES, refuse
from l2lgd.cli.verbs import VERBS
from l2lgd.config.overrides import ordered
from l2lgd.errors import ConfigError, close_to

ANSWERED = {  # what is typed, and words of the answer
    "meta-train --task mnist": ["did you mean task=mnist?"],
    "meta-train --task=mnist": ["did you mean task=mnist?"],
    "meta-train --seed=0": ["did you mean seed=0?"],
    "meta-train --sed=0": ["did you mean seed=0?"],
    "meta-train --meta-steps 100": ["did you mean meta_steps=100?"],
    "meta-train --opt.hidden_size=10": ["did you mean opt.hidden_size=10?"],
    "meta-train --lr=0.1": ["did you mean meta_learning_rate=0.1?"],
    "meta-train --gpu": ["did you mean device=cuda?"],
    "meta-train --verbose": ["hydra.verbose=true"],
    "meta-train --multi-run seed=0,1": ["did you mean --multirun?"],
    "meta-train -s 3": ["no flag -s", "l2lgd meta-train --help"],
    "meta-train lr=0.1": ["no option lr", "did you mean meta_learning_rate=0.1?"],
    "meta-train +lr=0.1": ["no option lr", "did you mean meta_learning_rate=0.1?"],
    "evaluate lr=0.1": ["no option lr", "opt=adam opt.learning_rate=0.1"],
    "tune lr=0.1": ["no option lr", "lowest_rate=", "highest_rate="],
    "stylize a.jpg b.jpg lr=0.1": ["no option lr", "did you mean learning_rate=0.1?"],
    "meta-train steps=100": ["did you mean meta_steps=100 or num_steps=100?"],
    "evaluate steps=100": ["did you mean num_steps=100?"],
    "meta-train optimizer=lstm": ["did you mean opt=lstm?"],
    "meta-train checkpoint=x": ["initial_weights=x or resume=x"],
    "evaluate resume=x": ["did you mean checkpoint=x?"],
    "evaluate out=x": ["did you mean hydra.run.dir=x?"],
    "meta-train unroll=20": ["did you mean unroll.lengths=[20]?"],
    "meta-train unroll=[20,50]": ["did you mean unroll.lengths=[20,50]?"],
    "meta-train logger=off": ["did you mean logger=none?"],
    "meta-train wandb=off": ["logger=none"],
    "meta-train task=null": ["no task=null", "mnist", "quadratic"],
    "meta-train mnist": ["did you mean task=mnist?"],
    "meta-train task mnist": ["did you mean task=mnist?"],
    "meta-train task = mnist": ["did you mean task=mnist?"],
    "meta-train task =mnist": ["did you mean task=mnist?"],
    "meta-train task= mnist": ["task=mnist"],
    "meta-train task: mnist": ["did you mean task=mnist?"],
    "meta-train task:mnist": ["did you mean task=mnist?"],
    "evaluate mnist-lstm": ["did you mean checkpoint=mnist-lstm?"],
    "meta-train own.safetensors": ["did you mean initial_weights=own.safetensors?"],
    "evaluate baselines=[adam, sgd]": ["baselines=[adam,sgd]"],
    "evaluate baselines=[adam": ["bracket is not closed"],
    "figures 4": ["did you mean figure=4?"],
    "figures 4 5": ["did you mean figure=[4,5]?"],
    "figures figure_4 seed=2": ["did you mean figure=4?"],
    "stylize a.jpg b.jpg c.jpg": ["c.jpg cannot be read", "usage: l2lgd stylize"],
}


@pytest.mark.parametrize("typed", ANSWERED)
def test_a_mistake_is_answered_with_what_was_meant(typed: str) -> None:
    verb, *words = shlex.split(typed)
    with pytest.raises(ConfigError) as caught:
        refuse(verb, words)
    message = str(caught.value)
    assert "\n" not in message
    for part in ANSWERED[typed]:
        assert part in message


@pytest.mark.parametrize(
    "typed",
    [
        "meta-train --multirun seed=0,1 hydra/launcher=cores",
        "meta-train -c job --package task -cd folder",
        "meta-train --info defaults task=mnist",
        "meta-train --info=all +task.x=1 ++seed=1 ~opt",
        "meta-train rerun=folder",
        "meta-train experiment=null data_dir= 'opt.groups=[{match: conv*, use: a}]'",
        "stylize a.jpg b.jpg -o c.png size=64",
        "figures figures.style=paper scale.functions.mnist=1",
        "tune search=learning_rate baselines=[adam,sgd]",
    ],
)
def test_what_is_right_is_let_through(typed: str) -> None:
    verb, *words = shlex.split(typed)
    refuse(verb, words)
    ordered(verb, words)


def test_what_is_suggested_in_place_of_another_word_is_an_option() -> None:
    options = {option for verb in VERBS for option in verb_help(verb, "").split()}
    for word, meant in ALIASES.items():
        for option in meant:
            name = option.partition("=")[0]
            assert name in options or name.startswith("hydra."), word


COMPOSED = {  # mistakes that show only in the composed config, or in what it names
    "meta-train task=mnist batch_size=10": ["did you mean task.batch_size?"],
    "meta-train task=quadratic hidden_size=10": ["did you mean opt.hidden_size?"],
    "evaluate task=quadratic opt=adam opt.lr=0.1": ["did you mean learning_rate?"],
    "meta-train task=QUADRATIC": ["did you mean quadratic?"],
    "evaluate opt=LSTM": ["did you mean lstm?"],
    "evaluate task=quadratic split=val": ["did you mean validation?"],
    "meta-train task=quadratic seed=0,1": ["seed=0,1", "--multirun"],
    "evaluate task=quadratic baselines=adam,sgd": ["baselines=[adam,sgd]"],
    "meta-train task=quadratic seed=abc": ["seed=abc: must be a whole number"],
    "meta-train task=quadratic meta_steps=1e3": ["must be a whole number", "meta_steps=1000"],
    "meta-train task=quadratic deterministic=maybe": ["deterministic=maybe", "true or false"],
    "meta-train task=quadratic matmul_precision=low": ["matmul_precision=low", "highest, high"],
    "evaluate task=quadratic num_steps=${nothing}": ["num_steps: Interpolation key 'nothing'"],
    "evaluate task=quadratic opt.backend=${nothing}": ["opt.backend: Interpolation key"],
    "tune task=quadratic trials=0": ["trials=0: must be at least 1"],
    "tune task=quadratic highest_rate=-1": ["highest_rate=-1", "positive"],
    "tune task=quadratic baselines=[]": ["baselines=[adam]"],
    "figures figure=20": ["figure=20", "4, 5, ", "sharing", "all"],
    "figures threads=0": ["threads=0: must be at least 1"],
    "figures vgg=nope figure=8": ["vgg=nope: no such file"],
    "stylize nope.jpg x.jpg": ["there is no nope.jpg", "content=FILE"],
    "stylize here.jpg x.jpg": ["no picture x.jpg", "give style=FILE"],
    "evaluate task=quadratic checkpoint=run": ["checkpoint=run/checkpoints/best.safetensors"],
    "evaluate task=quadratic checkpoint=mnist-lstn": ["did you mean mnist-lstm?"],
    "evaluate task=quadratic opt=lstm_gac checkpoint=mnist-lstm": ["give opt=lstm"],
    "new": ["usage: l2lgd new task|optimizer NAME"],
    "new task": ["NAME is missing", "usage: l2lgd new task NAME [FOLDER]"],
    "new tsk mine": ["did you mean task?"],
    "new task a b c": ["too many words"],
    "help nonsense": ["no verb nonsense"],
    "run": ["did you mean meta-train?"],
    "Evaluate": ["did you mean evaluate?"],
    "task=mnist": ["the verb comes first", "l2lgd meta-train task=mnist"],
}


@pytest.mark.parametrize("typed", COMPOSED)
def test_what_the_program_says_to_a_mistake(typed: str, tmp_path: Path) -> None:
    (tmp_path / "here.jpg").touch()
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "best.safetensors").touch()
    verb, *words = shlex.split(typed)
    done = l2lgd(verb, *words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("l2lgd: ")
    for part in COMPOSED[typed]:
        assert part in line


@pytest.mark.parametrize(
    ("word", "choices", "meant"),
    [
        ("MNIST", ["mnist", "mnist_40"], "mnist"),
        ("val", ["train", "validation", "test"], "validation"),
        ("adm", ["Adam", "sgd"], "Adam"),
        ("xyz", ["adam", "sgd"], ""),
    ],
)
def test_the_choice_that_was_meant_is_found(word: str, choices: list[str], meant: str) -> None:
    assert close_to(word, choices) == meant


def test_every_verb_has_a_config() -> None:
    assert {path.stem.replace("_", "-") for path in CONF.glob("*.yaml")} == set(VERBS)
