"""Devices and threads, and seeds that depend on their purpose alone."""

import pytest
import torch
from helpers import python

from l2lgd.config.messages import explanation
from l2lgd.errors import ConfigError
from l2lgd.seeding import derive_seed, generator
from l2lgd.system.runtime import (
    left_as_found,
    pick_device,
    set_deterministic,
    set_precision,
    set_threads,
)


def test_auto_takes_cuda_where_there_is_one() -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert pick_device("auto").type == expected
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:x", "meta", "mps", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^device={name}"):
        pick_device(name)


def test_threads_are_set_or_left_alone() -> None:
    before = torch.get_num_threads()
    assert set_threads(None) == before
    try:
        assert set_threads(2) == torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    with pytest.raises(ConfigError, match=r"^threads=0"):
        set_threads(0)


def test_a_seed_depends_on_every_name_and_its_place() -> None:
    names = [(), ("a",), ("b",), ("a", "b"), ("b", "a"), ("ab",), ("a", 1), ("a", 11), ("a1", 1)]
    seeds = {derive_seed(seed, *name) for seed in (0, 1, 10) for name in names}
    assert len(seeds) == 3 * len(names)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive_seed(3, "train", 5) == derive_seed(3, "train", 5)


def test_generators_of_one_purpose_draw_the_same_numbers() -> None:
    first, same, other = (torch.rand(5, generator=generator(0, name)) for name in "aab")
    assert first.equal(same)
    assert not first.equal(other)


def test_deterministic_kernels_are_asked_for_and_a_lack_of_them_is_explained() -> None:
    set_deterministic(True)
    try:
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        set_deterministic(False)
    assert not torch.are_deterministic_algorithms_enabled()
    error = RuntimeError("f does not have a deterministic implementation, but you set. More.")
    assert "leave deterministic=true out" in str(explanation(error))


def test_precision_is_that_of_products_and_convolutions() -> None:
    with left_as_found():
        for name, coarser in (("highest", False), ("high", True), ("medium", True)):
            set_precision(name)
            assert torch.get_float32_matmul_precision() == name
            assert torch.backends.cudnn.allow_tf32 is coarser
        with pytest.raises(ConfigError, match="choose one of highest, high, medium"):
            set_precision("low")
    assert torch.get_float32_matmul_precision() == "highest"


def test_what_is_not_asked_for_imports_nothing() -> None:
    program = "from l2lgd.system import runtime; runtime.set_deterministic(False)"
    ran = python("-c", f"import sys; {program}; sys.exit('torch._inductor' in sys.modules)")
    assert ran.returncode == 0, ran.stderr
