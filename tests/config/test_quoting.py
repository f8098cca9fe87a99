"""What is printed can be pasted: quoted for Hydra, for OmegaConf and for the shell."""

import subprocess

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from l2lgd.config.overrides import any_option, option, quoted, typed, value_of

NAMES = [
    "plain/folder-1.5_x",
    "a=b",
    "a, b",
    "[x]",
    "it's",
    'say "so"',
    "both ' and \"",
    "#1",
    "b~",
    " blanks ",
    "größe µ",
    "back\\slash",
    "end\\",
    "quote\\'",
    "back\\\"slash's",
    "null",
    "1e3",
    "true",
    "a;b&c|d",
    "(x){y}",
    "$HOME",
    "50%",
    "a:b",
    "meta_learning_rate=0.000127",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_value_is_read_as_it_was_written(name: str) -> None:
    for override in (option("resume", name), f"resume={quoted(name)}"):
        value = OverridesParser.create().parse_override(override).value()
        assert value == name
        assert isinstance(value, str)
        assert OmegaConf.create({"x": value}).x == name
        assert value_of(override) == name


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, False, 3, -2.5, 1e-07, 1e30, "null", "1", ""),
        *([], {}, [1, [2.5, None]], NAMES, ["null", "1", ""], {"a": 1, "b": {"c": NAMES}}),
    ],
)
def test_a_value_of_a_config_is_read_as_it_was(value: object) -> None:
    read = OverridesParser.create().parse_override(any_option("x", value)).value()
    found = OmegaConf.create({"x": read}).x
    assert (OmegaConf.to_container(found) if OmegaConf.is_config(found) else found) == value
    assert type(read) is type(value)


def test_interpolations_are_text() -> None:
    for name in ("a${b}c", "a\\${b}", "'${x}'"):
        value = OverridesParser.create().parse_override(f"x={quoted(name)}").value()
        assert OmegaConf.create({"x": value}).x == name


def test_a_shell_gives_back_what_was_printed() -> None:
    line = " ".join(typed("x", name) for name in NAMES)
    ran = subprocess.run(
        ["sh", "-c", f"printf '%s\\0' {line}"], capture_output=True, text=True, check=True
    )
    assert [value_of(word) for word in ran.stdout.split("\0")[:-1]] == NAMES


def test_what_needs_no_quotes_has_none() -> None:
    assert typed("resume", "outputs/run-1_0.5") == "resume=outputs/run-1_0.5"
    assert typed("resume", "a b") == "'resume=\"a b\"'"


def test_a_folder_whose_name_begins_with_a_tilde_is_no_home() -> None:
    assert value_of(option("resume", "~x")) == "./~x"


def test_a_name_is_taken_as_it_is_typed() -> None:
    for name in ("a=b", "a,b", "x[1]", "it's", "größe"):
        assert value_of(f"resume={name}") == name
