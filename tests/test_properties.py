"""Anything at all, on the command line and in files: an error of ours, or none."""

import contextlib
import json
from pathlib import Path

import pytest
import torch
from helpers import CONF
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from l2lgd.cli.verbs import VERBS
from l2lgd.config.building import build
from l2lgd.config.overrides import HYDRA_FLAGS, ordered
from l2lgd.errors import CheckpointError, ConfigError, UserError
from l2lgd.evaluation.tuned_rates import TunedRates, file_name
from l2lgd.figures.base import Table
from l2lgd.results import losses
from l2lgd.runs.sweeps import Sweep
from l2lgd.storage import checkpoint
from l2lgd.tracking.metrics import lines_up_to

MANY = settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)
WORDS = st.text(max_size=12) | st.sampled_from(
    [*HYDRA_FLAGS, "seed=0", "-o", "task=mnist", "=", "--", "-", "~seed", "+seed=1", "seed=0,1"]
)


@MANY
@given(verb=st.sampled_from(list(VERBS)), words=st.lists(WORDS, max_size=6))
def test_words_are_put_in_order_or_refused(verb: str, words: list[str]) -> None:
    with contextlib.suppress(ConfigError):
        flags = [word.startswith("-") for word in ordered(verb, words)]
        assert flags == sorted(flags, reverse=True), "flags come first"


TARGETS = sorted(
    {
        str(OmegaConf.load(path)["_target_"])
        for group in ("task", "opt", "logger")
        for path in (CONF / group).glob("*.yaml")
        if "_target_" in OmegaConf.load(path)
    }
)


@MANY
@given(
    target=st.sampled_from([*TARGETS, "os.system", "l2lgd.cli.main.main", "l2lgd.nothing.Here"])
    | VALUES,
    options=st.dictionaries(
        st.sampled_from(["name", "dimension", "num_layers", "p", "data", "optimizer", "mode"])
        | st.text(max_size=6),
        VALUES,
        max_size=3,
    ),
)
def test_no_node_of_a_config_builds_what_it_must_not(target: object, options: dict) -> None:
    with contextlib.suppress(ConfigError):
        found = build({**options, "_target_": target}, "task")
        assert type(found).__module__.startswith("l2lgd.")


@pytest.mark.parametrize("target", ["os.system", "builtins.eval", "subprocess.Popen", "l2lgdx.A"])
def test_what_is_outside_the_package_is_not_even_imported(target: str) -> None:
    with pytest.raises(ConfigError, match="is outside l2lgd"):
        build({"_target_": target, "command": "true"}, "task")


@MANY
@given(content=st.binary(max_size=300))
def test_any_bytes_are_refused_as_a_checkpoint(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "losses.safetensors"
    path.write_bytes(content)
    for read in (checkpoint.load, lambda _: losses.read(tmp_path)):
        with pytest.raises(CheckpointError):
            read(path)


@MANY
@given(metadata=st.dictionaries(st.text(max_size=8), VALUES, max_size=3))
def test_any_metadata_come_back_or_are_refused(metadata: dict, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, {"a": torch.zeros(2)}, metadata)
    _, found = checkpoint.load(path)
    assert json.dumps(found, sort_keys=True) == json.dumps(metadata, sort_keys=True)
    (tmp_path / "losses.safetensors").write_bytes(path.read_bytes())
    with pytest.raises(CheckpointError):
        losses.read(tmp_path)


@MANY
@given(plan=VALUES, job=VALUES)
def test_any_json_is_a_sweep_or_refused(plan: object, job: object, tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text(json.dumps(plan), encoding="utf-8")
    with pytest.raises(ConfigError):
        Sweep.read(tmp_path)
    good = {"verb": "meta-train", "hydra": [], "jobs": [["seed=0"]]}
    (tmp_path / "sweep.json").write_text(json.dumps(good), encoding="utf-8")
    (tmp_path / "0").mkdir(exist_ok=True)
    (tmp_path / "0" / "job.json").write_text(json.dumps(job), encoding="utf-8")
    with contextlib.suppress(ConfigError):
        Sweep.read(tmp_path)


@MANY
@given(text=st.text(max_size=200))
def test_any_text_is_a_table_or_refused(text: str) -> None:
    with contextlib.suppress(UserError):
        Table.parse(text)


@MANY
@given(content=VALUES)
def test_any_json_in_the_place_of_a_tuned_rate_is_passed_over(
    content: object, tmp_path: Path
) -> None:
    key = {"task_name": "a", "optimizer_name": "b"}
    rates = TunedRates(tmp_path / "none", tmp_path)
    (tmp_path / file_name(key)).write_text(json.dumps(content), encoding="utf-8")
    assert rates.find(key) is None


@MANY
@given(content=st.binary(max_size=200), steps=st.lists(st.integers(0, 5), max_size=4))
def test_any_end_of_the_metrics_is_dropped(
    content: bytes, steps: list[int], tmp_path: Path
) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step}) for step in sorted(steps)]
    path.write_bytes("".join(line + "\n" for line in lines).encode() + b"\x00" + content)
    kept = lines_up_to(path, 5)
    assert kept[: len(lines)] == lines
