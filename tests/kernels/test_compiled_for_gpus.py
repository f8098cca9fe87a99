"""The Triton kernels compile for GPUs that are not here, and fit their shared memory."""

import json
from pathlib import Path

import pytest
from helpers import python

from l2lgd.kernels import coordinatewise_triton

COMPILE = """
import json
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from l2lgd.kernels import coordinatewise_triton as module
from l2lgd.kernels.coordinatewise import Settings

found = []


class Compiled:
    # In the place of a kernel: it is compiled for the arguments of a launch, and not launched.
    def __init__(self, kernel):
        self.kernel = kernel

    def __getitem__(self, grid):
        return self

    def __call__(self, *arguments, **options):
        types, constants = {}, {}
        for parameter, value in zip(self.kernel.params, arguments, strict=True):
            if parameter.is_constexpr:
                types[parameter.name], constants[parameter.name] = "constexpr", value
            elif isinstance(value, torch.Tensor):
                types[parameter.name] = "*fp32"
            else:
                types[parameter.name] = "i32" if isinstance(value, int) else "fp32"
        for capability in (80, 90):
            made = triton.compile(
                ASTSource(self.kernel, types, constants),
                target=GPUTarget("cuda", capability, 32),
                options=options,
            )
            found.append([self.kernel.__name__, capability, made.metadata.shared])


for name in ("forward", "backward"):
    setattr(module.triton_layers, name, Compiled(getattr(module.triton_layers, name)))
settings = Settings(2, 20, "log_sign", 10.0, 0.1, 1.0)
weights, state = torch.zeros(settings.num_weights), [[torch.zeros(20, 64)] * 2] * 2
module.replay(settings, weights, torch.zeros(3, 64), torch.zeros(3, 64), state, weights.clone())
print(json.dumps(found))
"""


@pytest.mark.skipif(not coordinatewise_triton.is_available(), reason="there is no Triton here")
def test_kernels_compile_for_gpus_that_are_not_here(tmp_path: Path) -> None:
    ran = python("-c", COMPILE, TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path))
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    layers = 2
    assert len(found) == 2 * 2 * layers
    assert {(name, capability) for name, capability, _ in found} == {
        (name, capability) for name in ("forward", "backward") for capability in (80, 90)
    }
    assert max(shared for *_, shared in found) <= 48 * 1024  # what every program can have
