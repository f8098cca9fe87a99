"""Command lines with mistakes, for ``torture.py``."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from l2lgd.storage import checkpoint
from l2lgd.tasks.vgg import layer_names

TINY = ["task=quadratic", "num_functions=4", "num_steps=20", "unroll.lengths=[5]", "threads=1"]
TINY += ["validation_functions=4", "logger=none"]
SMALL = ["task=quadratic", "num_functions=2", "num_steps=2", "threads=1", "logger=none"]
VALID = {  # in the folder of :func:`lay_out`
    "meta-train": [*TINY, "meta_steps=1", "validate_every=1"],
    "evaluate": [*SMALL, "tune_functions=2", "baselines=[]", "tuned_dir=tuned"],
    "tune": [*SMALL, "baselines=[adam]", "trials=2", "tuned_dir=tuned"],
    "figures": ["of=[evaluation]", "threads=1", "hydra.run.dir=drawn"],
    "stylize": [
        *("photograph.png", "painting.png", "-o", "painted.png"),
        *("task.vgg.weights=vgg.safetensors", "size=16", "num_steps=2", "threads=1"),
    ],
}
POSITIVE = {  # options that have to be above zero
    "meta-train": ["num_functions", "num_steps", "meta_steps", "meta_learning_rate"],
    "evaluate": ["num_functions", "num_steps", "tune_functions"],
    "tune": ["num_functions", "num_steps", "trials", "lowest_rate"],
    "figures": ["workers", "scale.functions.mnist"],
    "stylize": ["num_steps", "size"],
}
NUMBERS = {
    "meta-train": ["seed", "meta_steps", "num_steps", "meta_clip", "validate_every", "threads"],
    "evaluate": ["seed", "num_functions", "tune_seed", "task.dimension"],
    "tune": ["seed", "trials", "highest_rate"],
    "figures": ["seed", "threads"],
    "stylize": ["seed", "size", "task.style_weight"],
}
GROUPS = {
    "meta-train": ["task", "opt", "estimator", "unroll", "logger"],
    "evaluate": ["task", "opt", "logger"],
    "tune": ["task", "opt", "logger"],
    "figures": ["scale"],
    "stylize": ["task", "opt"],
}
FILES = {
    "meta-train": ["initial_weights", "resume", "rerun"],
    "evaluate": ["checkpoint", "reuse"],
    "figures": ["weights_dir", "of", "reuse"],
    "stylize": ["content", "style", "task.vgg.weights"],
}
LISTS = ["of", "reuse"]
NO_FILES = ["missing", "text", "empty", "binary", "folder", "broken.png", "huge"]
VALUES = ["-1", "0", "1e30", "-1e-30", "1.5", "nan", "inf", "many", "null", "'???'", "''"]
VALUES += ["~nobody/x", "1000000000000", "18446744073709551616", "-1e39", "[5,[5]]"]
VALUES += ["true", "[]", "[1,x]", "{}", "{a: 1}", "${nothing}", "x/../y", "/dev/null", "é"]


OWN_CONFIGS = [
    b"a: b: c",
    b"\ta: 1",
    b"a: 1\na: 2",
    b"name: \xff\xfe",
    b"a: !!python/object/apply:os.system [true]",
    b"- 1\n- 2",
    b"just words",
    b"_target_: os.system\ncommand: 'true'",
    b"_target_: l2lgd.cli.main.main",
    b"_target_: l2lgd.__main__.main",
    b"_target_: l2lgd.tasks.base.Task",
    b"_target_: l2lgd.optimizers.bfgs.BFGS",
    b"_target_: l2lgd.tasks.quadratic.QuadraticTask\nname: x\ndimension: ${dimension}",
    b"_target_: l2lgd.tasks.quadratic.QuadraticTask\nname: x\ndimension: [1]",
    b"_target_: l2lgd.tasks.quadratic.QuadraticTask\nname: x\ndimensions: 1",
    b"_target_: l2lgd.tasks.quadratic.QuadraticTask\nname: x\nrecipe: {num_step: 1}",
    b"a: &a\n  b: *a",
    b"a: " + 3000 * b"[" + 3000 * b"]",
    b"defaults: 7",
    b"defaults:\n  - nothing",
]


def lay_out(folder: Path, draw: random.Random) -> None:
    """Files that command lines name: what is no weights, no picture and no run; and what is."""
    (folder / "text").write_text("no weights", encoding="utf-8")
    (folder / "empty").touch()
    (folder / "folder").mkdir()
    (folder / "binary").write_bytes(draw.randbytes(3000))
    (folder / "configs" / "task").mkdir(parents=True)
    for number, content in enumerate(OWN_CONFIGS):
        (folder / "configs" / "task" / f"own{number}.yaml").write_bytes(content)
    (folder / "broken.png").write_bytes(b"\\x89PNG" + draw.randbytes(100))
    with (folder / "huge").open("wb") as file:
        file.truncate(1 << 40)  # a terabyte of nothing takes no room
    for name in ("photograph.png", "painting.png"):
        Image.frombytes("RGB", (24, 20), draw.randbytes(24 * 20 * 3)).save(folder / name)
    noise, weights, inputs = torch.Generator().manual_seed(draw.getrandbits(32)), {}, 3
    for name in layer_names("vgg16"):
        weights[f"{name}.weight"] = torch.randn(4, inputs, 3, 3, generator=noise) / 4
        weights[f"{name}.bias"] = torch.zeros(4)
        inputs = 4
    about = {"network": "vgg16", "name": "random", "mean": [120.0] * 3, "std": [60.0] * 3}
    checkpoint.save(folder / "vgg.safetensors", weights, about)


def mistake(draw: random.Random) -> tuple[list[str], list[str]]:
    """A command line with a mistake, and words of which the answer has to have one."""
    verb = draw.choice(list(VALID))
    kinds = [misspelt, not_positive, no_number, no_choice, no_file, odd_word, own_config]
    kind = draw.choice(kinds)
    return kind(draw, verb)


def misspelt(draw: random.Random, verb: str) -> tuple[list[str], list[str]]:
    name = draw.choice([*NUMBERS[verb], *POSITIVE[verb]])
    at = draw.randrange(len(name))
    letter = draw.choice([c for c in "abcdefghijklmnopqrstuvwxyz_" if c != name[at]])
    wrong = draw.choice([name[:at] + letter + name[at + 1 :], name + letter, f"+{name}{letter}"])
    wrong_group = [part for part in [wrong.lstrip("+").rpartition(".")[0]] if part]
    return [verb, *VALID[verb], f"{wrong}=1"], [wrong.lstrip("+"), *wrong_group]


def not_positive(draw: random.Random, verb: str) -> tuple[list[str], list[str]]:
    name = draw.choice(POSITIVE[verb])
    value = draw.choice([0, -1, -draw.randrange(2, 10**6)])
    return [verb, *VALID[verb], f"{name}={value}"], [name.rpartition(".")[2]]


def no_number(draw: random.Random, verb: str) -> tuple[list[str], list[str]]:
    name = draw.choice(NUMBERS[verb])
    value = draw.choice(["many", "[1,2]", "{a: 1}", "1x", "nan", "inf", "true1", "'1 2'"])
    return [verb, *VALID[verb], f"{name}={value}"], [name.rpartition(".")[2]]


def no_choice(draw: random.Random, verb: str) -> tuple[list[str], list[str]]:
    group = draw.choice(GROUPS[verb])
    value = draw.choice(["none1", "mnits", "lstmm", "../lstm", "../task/quadratic", "7"])
    return [verb, *VALID[verb], f"{group}={value}"], [group, value]


def no_file(draw: random.Random, verb: str) -> tuple[list[str], list[str]]:
    verb = verb if verb in FILES else "evaluate"
    name, value = draw.choice(FILES[verb]), draw.choice(NO_FILES)
    if (name, value) == ("weights_dir", "folder"):
        value = "missing"
    given = f"[{value}]" if name in LISTS else value
    return [verb, *VALID[verb], f"{name}={given}"], [name, value]


def own_config(draw: random.Random, verb: str) -> tuple[list[str], list[str]]:
    """A config of one's own that is none, in the folder of :func:`lay_out`."""
    number = draw.randrange(len(OWN_CONFIGS))
    words = [word for word in VALID[verb] if word != "task=quadratic"]
    words += ["--config-dir", "configs", f"task=own{number}"]
    return [verb, *words], ["own", "task", "YAML", "opt", "recipe", "composing"]


def odd_word(draw: random.Random, verb: str) -> tuple[list[str], list[str]]:
    word = draw.choice(
        ["--resum", "seed", "=3", "seed==", "a b", "(", "~nothing", "--cfgs", "[", "é"]
    )
    return [verb, *VALID[verb], word], [word, word.strip("~="), "seed", "nothing"]


def options(verb: str) -> list[str]:
    """The names of all options of a verb, as its config is composed for ``VALID``."""
    from omegaconf import OmegaConf

    from l2lgd.config.defaults import composed

    words = [word for word in VALID[verb] if "=" in word and not word.startswith("hydra")]
    config: Any = OmegaConf.to_container(composed(verb.replace("-", "_"), words))
    return [".".join(keys) for keys in _leaves(config, ())]


def _leaves(node: Any, keys: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if not isinstance(node, dict) or not node:
        yield keys
        return
    for key, value in node.items():
        yield from _leaves(value, (*keys, str(key)))


def any_value(draw: random.Random, option: tuple[str, str]) -> tuple[list[str], list[str]]:
    """A command line that sets an option of a verb to something, and what has to be named."""
    (verb, name), value = option, draw.choice(VALUES)
    names = [name.rpartition(".")[2], value, "diverges", "no trained weights"]
    names += ["cannot be built", "lowest_rate"]  # of a search without an end
    return [verb, *VALID[verb], f"{name}={value}"], names
