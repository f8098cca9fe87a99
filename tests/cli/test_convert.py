"""``l2lgd convert``."""

import json
from pathlib import Path

import pytest
from helpers import l2lgd
from published import TREES, celo, packed, write


@pytest.mark.parametrize("kind", TREES)
def test_published_weights_are_converted_and_evaluated(
    kind: str, small_data: Path, tmp_path: Path
) -> None:
    write(kind, tmp_path / "theta.state")
    ran = l2lgd("convert", kind, "theta.state", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    made, _, command, _ = ran.stdout.splitlines()
    assert made == f"{kind}.safetensors"
    words = command.split()[1:]
    small = ("num_functions=1", "num_steps=3", "baselines=[]", "logger=none", "threads=1")
    ran = l2lgd(*words, *small, "hydra.run.dir=run", cwd=tmp_path, L2LGD_DATA=str(small_data))
    assert ran.returncode == 0, ran.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text("utf-8"))
    assert list(summary["results"]) == [words[2].removeprefix("opt=")]
    ran = l2lgd("optimizers", made, cwd=tmp_path)
    assert f"theta.state of {kind}" in ran.stdout


def test_mistakes_with_convert_end_in_one_line(tmp_path: Path) -> None:
    write("celo", tmp_path / "theta.state")
    (tmp_path / "there.safetensors").touch()
    (tmp_path / "damaged.state").write_bytes(packed(celo())[:-1])
    for words, message in (
        ([], "convert needs two words; usage: l2lgd convert celo|small_fc FILE"),
        (["celo"], "its FILE is missing"),
        (["cello", "theta.state"], "did you mean celo?"),
        (["celo", "theta.state", "a.safetensors", "b"], "too many words"),
        (["celo", "theta.state", "a.pt"], "must end in .safetensors"),
        (["celo", "theta.state", "there.safetensors"], "there.safetensors exists already"),
        (["celo", "none.state"], "none.state cannot be read"),
        (["celo", "damaged.state"], "is damaged"),
        (["small_fc", "theta.state"], "has no array momentum_decays"),
    ):
        ran = l2lgd("convert", *words, cwd=tmp_path)
        assert ran.returncode == 2, words
        assert message in ran.stderr
        assert len(ran.stderr.splitlines()) == 1
    assert "usage: l2lgd convert celo" in l2lgd("convert", "--help", cwd=tmp_path).stdout
