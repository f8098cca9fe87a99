"""Checkpoints: round trips, damage, and disks that are full."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from l2lgd.errors import CheckpointError, UserError
from l2lgd.meta.state import load_last, load_weights
from l2lgd.optimizers.coordinatewise import CoordinatewiseLSTM
from l2lgd.storage import checkpoint

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(7, dtype=torch.int64)}


def test_tensors_and_metadata_come_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "x.safetensors"
    metadata = {"loss": 0.1, "name": "θ", "nested": {"list": [1, None, True]}}
    checkpoint.save(path, TENSORS, metadata)
    tensors, found = checkpoint.load(path)
    assert found == metadata
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert tensors[name].equal(tensor)
    assert [file.name for file in path.parent.iterdir()] == [path.name], "a temporary file is left"


def test_tensors_may_share_memory_or_be_strided(tmp_path: Path) -> None:
    whole = torch.arange(12.0).view(3, 4)
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, {"whole": whole, "row": whole[1], "across": whole.T}, {})
    tensors, _ = checkpoint.load(path)
    assert tensors["row"].equal(whole[1])
    assert tensors["across"].equal(whole.T)


def test_a_new_checkpoint_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    for number in (1, 2):
        checkpoint.save(path, {"a": torch.tensor(number)}, {"number": number})
    tensors, metadata = checkpoint.load(path)
    assert tensors["a"] == metadata["number"] == 2


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_a_truncated_file_is_no_checkpoint(tmp_path: Path, share: float) -> None:
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, {"a": torch.zeros(1000)}, {"a": 1})
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=r"x\.safetensors"):
        checkpoint.load(path)


@pytest.mark.parametrize(
    "content", [b"\x08" + 7 * b"\0" + b"not json", bytes(range(256)) * 8, b"PK\x03\x04 a zip"]
)
def test_random_bytes_are_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.safetensors"):
        checkpoint.load(path)


def test_a_pickle_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save(TENSORS, path)
    with pytest.raises(CheckpointError, match=r"x\.pt"):
        checkpoint.load(path)


def test_neither_a_folder_nor_nothing_is_a_checkpoint(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.safetensors"):
        with pytest.raises(CheckpointError, match=str(path)):
            checkpoint.load(path)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (None, "not a checkpoint of l2lgd"),
        ({"format": "pt"}, "not a checkpoint of l2lgd"),
        ({"format": "l2lgd-checkpoint-1"}, "another version of l2lgd .*use that version"),
        ({"format": "l2lgd-checkpoint-99"}, "another version of l2lgd .*use that version"),
    ],
)
def test_another_format_is_refused_by_name(tmp_path: Path, fields: dict | None, said: str) -> None:
    path = tmp_path / "x.safetensors"
    save_file(TENSORS, path, fields)
    with pytest.raises(CheckpointError, match=said):
        checkpoint.load(path)


@pytest.mark.parametrize("content", [{}, {"content": "{not json"}])
def test_a_file_of_our_format_with_damaged_metadata_is_refused(
    tmp_path: Path, content: dict
) -> None:
    path = tmp_path / "x.safetensors"
    save_file(TENSORS, path, {"format": checkpoint.FORMAT, **content})
    with pytest.raises(CheckpointError, match=r"x\.safetensors"):
        checkpoint.load(path)


@pytest.mark.parametrize("place", ["tensor", "metadata"])
def test_a_flipped_bit_is_found(tmp_path: Path, place: str) -> None:
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, TENSORS, {"licence": "Apache-2.0"})
    content = bytearray(path.read_bytes())
    content[len(content) - 1 if place == "tensor" else content.index(b"Apache")] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.safetensors is damaged"):
        checkpoint.load(path)


def test_weights_of_another_optimizer_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, CoordinatewiseLSTM(hidden_size=3).state_dict(), {})
    with pytest.raises(CheckpointError, match="does not fit"):
        load_weights(path, CoordinatewiseLSTM(hidden_size=4))


def test_best_weights_are_nothing_to_go_on_with(tmp_path: Path) -> None:
    path, learned = tmp_path / "best.safetensors", CoordinatewiseLSTM(hidden_size=3)
    checkpoint.save(path, learned.state_dict(), {})
    with pytest.raises(CheckpointError):
        load_last(path, learned, learned, torch.optim.Adam(learned.parameters()), rank=0)


def test_a_folder_that_cannot_be_made_is_the_users_to_put_right(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="could not write"):
        checkpoint.save(tmp_path / "file" / "x.safetensors", TENSORS, {})


def test_a_full_disk_leaves_the_old_checkpoint_whole(tmp_path: Path) -> None:
    # A limit on the size of files stands in for a full disk; it is set in a process of its own.
    program = """
import resource, sys
from pathlib import Path
import torch
from l2lgd.storage import checkpoint
from l2lgd.errors import UserError

path = Path(sys.argv[1])
checkpoint.save(path, {"a": torch.zeros(10)}, {"number": 1})
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    checkpoint.save(path, {"a": torch.zeros(100000)}, {"number": 2})
except UserError as error:
    print(error)
"""
    path = tmp_path / "x.safetensors"
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.returncode == 0
    assert done.stdout.startswith(f"could not write {path}")
    tensors, metadata = checkpoint.load(path)
    assert metadata == {"number": 1}
    assert tensors["a"].shape == (10,)
    assert list(tmp_path.iterdir()) == [path], "a temporary file is left"


def test_the_metadata_is_plain_json_that_other_tools_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, TENSORS, {"licence": "Apache-2.0"})
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert json.loads(header["__metadata__"]["content"]) == {"licence": "Apache-2.0"}
