"""Files of Flax, read without it."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from published import packed

from l2lgd.errors import CheckpointError
from l2lgd.storage import flax_files

# flax.serialization.to_bytes (0.12) of two levels with most kinds of values.
OF_FLAX = bytes.fromhex(
    "8aa16181a177c7260193920203a7666c6f61743332c418000000000000803f0000004000004040000080400000a040"
    "d92f6c6f6e675f6e616d655f6f665f615f6d6f64756c655f776974685f6d6f72655f7468616e5f33315f6c65747465"
    "727381a162d8039390a7666c6f61743332c4040000c03fa16e07a36e6567fda3626967ce00011170a166cb3fe00000"
    "00000000a46e6f6e65c0a174c3a165c70e0193920002a7666c6f61743332c400a169c71301939102a5696e743332c4"
    "080100000002000000"
)


def read(folder: Path, content: bytes) -> dict[str, torch.Tensor]:
    path = folder / "theta.state"
    path.write_bytes(content)
    return flax_files.load(path)


def test_what_flax_has_written_is_read(tmp_path: Path) -> None:
    found = read(tmp_path, OF_FLAX)
    long = "long_name_of_a_module_with_more_than_31_letters/b"
    assert set(found) == {"a/w", long, "e", "i"}
    assert found["a/w"].equal(torch.arange(6.0).reshape(2, 3))
    assert found[long].equal(torch.tensor(1.5))
    assert found["e"].shape == (0, 2)
    assert found["i"].equal(torch.tensor([1, 2], dtype=torch.int32))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64])
def test_types_of_numbers(dtype: torch.dtype, tmp_path: Path) -> None:
    numbers = torch.arange(4).reshape(2, 2).to(dtype)
    found = read(tmp_path, packed({"a": numbers}))["a"]
    assert found.dtype == dtype
    assert found.equal(numbers)


def test_a_file_that_ends_early_is_damaged(tmp_path: Path) -> None:
    for length in range(len(OF_FLAX)):
        with pytest.raises(CheckpointError, match="is damaged, or not a file"):
            read(tmp_path, OF_FLAX[:length])


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(OF_FLAX) - 1), st.binary(min_size=1, max_size=4))
def test_damage_ends_in_one_kind_of_error_or_none(
    tmp_path_factory: pytest.TempPathFactory, place: int, other: bytes
) -> None:
    content = OF_FLAX[:place] + other + OF_FLAX[place + len(other) :]
    path = tmp_path_factory.getbasetemp() / "damaged.state"
    path.write_bytes(content)
    with contextlib.suppress(CheckpointError):
        flax_files.load(path)


DEEP: Any = {}
for _ in range(100):
    DEEP = {"a": DEEP}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it ends too early"),
        (b"\x80\x80", "it is not one mapping"),
        (b"\x90", "it is not one mapping"),
        (b"\xc1", "0xc1"),
        (b"\x81\x01\x01", "a name is no text"),
        (packed(DEEP), "too many within each other"),
        (packed({str(k): 0 for k in range(20_000)}), "too many values"),
        (b"\xdf\xff\xff\xff\xff", "it ends too early"),
        (b"\xc9\xff\xff\xff\xff\x01", "it ends too early"),
        (b"\x81\xa1a\xd4\x05\x00", "an extension of kind 5"),
        (b"\x81\xa1a\xd4\x01\x00", "an array is none"),
        (b"\x81\xa1a\xd4\x01\x93", "it ends too early"),
        (b"\x80\x04\x95pickle", "it is not one mapping"),
    ],
)
def test_other_content_says_what_is_wrong(content: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=said):
        read(tmp_path, content)


def test_an_array_has_the_numbers_of_its_shape(tmp_path: Path) -> None:
    whole = packed({"a": torch.zeros(3)})
    assert whole.count(b"float32") == 1
    for changed in (
        whole.replace(b"float32", b"object_"),
        whole.replace(b"\x00\x03\xdb", b"\x00\x04\xdb"),
    ):
        assert changed != whole
        with pytest.raises(CheckpointError, match="an array"):
            read(tmp_path, changed)


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        flax_files.load(tmp_path / "none")
    with pytest.raises(CheckpointError, match="cannot be read: Is a directory"):
        flax_files.load(tmp_path)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(flax_files.LARGEST + 1)
    with pytest.raises(CheckpointError, match="is larger than"):
        flax_files.load(tmp_path / "large")
