"""Rules that others have published: their options, and files of weights as theirs."""

import struct
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from l2lgd.optimizers.mlp import INPUTS

# Options of MLPRule.
CELO: dict[str, Any] = {
    "inputs": list(INPUTS),
    "outputs": 3,
    "time": False,
    "learned_decays": False,
    "diagonal_epsilon": 0.0,
    "gradient_clip": 1000.0,
    "scale_by_parameter": True,
}
CELO2_BASE = CELO | {
    "hidden_sizes": [8, 8],
    "vector_inputs": 15,
    "second_moment_decay": 0.95,
    "second_moment_epsilon": 1e-8,
    "normalise_over": "matrix",
    "normalisation_epsilon": 1e-9,
    "magnitude": 0.0,
    "scale_by_parameter": False,
    "normalise_update": True,
    "step_size": 1.0,
}
CELO2 = CELO2_BASE | {"orthogonalise": True}
GROUPS = (1, 1, 1, 3, 1, 3, 1, 3, 1, 3, 3, 3, 3, 3)  # numbers of each group of Celo's inputs
UNITS = 64


def packed(value: Any) -> bytes:
    """What Flax makes of nested dicts of arrays; lengths in the longest form."""
    if isinstance(value, dict):
        pairs = (packed(key) + packed(part) for key, part in value.items())
        return struct.pack(">BI", 0xDF, len(value)) + b"".join(pairs)
    if isinstance(value, list):
        return struct.pack(">BI", 0xDD, len(value)) + b"".join(map(packed, value))
    if isinstance(value, str):
        return struct.pack(">BI", 0xDB, len(value.encode())) + value.encode()
    if isinstance(value, bytes):
        return struct.pack(">BI", 0xC6, len(value)) + value
    if isinstance(value, Tensor):
        numbers = value.contiguous().flatten().view(torch.uint8).numpy().tobytes()
        name = str(value.dtype).removeprefix("torch.")
        content = packed([list(value.shape), name, numbers])
        return struct.pack(">BIb", 0xC9, len(content), 1) + content
    return struct.pack(">Bq", 0xD3, value)


def celo(weights: dict[str, Tensor] | None = None) -> dict[str, Any]:
    """The tree of Celo's ``theta.state``.

    Args:
        weights: of the authors, named as in the traces; None for random ones.
    """
    w = random_celo() if weights is None else weights
    mlp = {f"w0__{k}": part for k, part in enumerate(w["mlp.w0"].split(GROUPS))}
    mlp |= {f"w{k}": w[f"mlp.w{k}"] for k in (1, 2)} | {f"b{k}": w[f"mlp.b{k}"] for k in range(3)}
    modules = {"linear": "dead", "linear_1": "mix", "linear_2": "inp", "rnn/linear": "lstm"}
    rnn = {
        name: {"w": w[f"lstm.{theirs}.w"], "b": w[f"lstm.{theirs}.b"]}
        for name, theirs in (modules | {"step_size": "out"}).items()
    }
    rnn["rnn_to_controls"] = {"w": torch.zeros(UNITS, 1), "b": torch.zeros(1)}
    return {
        "lstm_init_state": {"hidden": w["lstm.h0"], "cell": w["lstm.c0"]},
        "rnn_params": rnn,
        "ff_mod_stack": {"~": {k: mlp[k].unsqueeze(0) for k in sorted(mlp)}},
    }


def random_celo() -> dict[str, Tensor]:
    h = UNITS
    shapes = {"mlp.w0": (30, 4), "mlp.w1": (4, 4), "mlp.w2": (4, 3)}
    shapes |= {"mlp.b0": (4,), "mlp.b1": (4,), "mlp.b2": (3,), "lstm.h0": (1, h), "lstm.c0": (1, h)}
    for name in ("dead", "mix", "inp"):
        shapes |= {f"lstm.{name}.w": (18, h), f"lstm.{name}.b": (h,)}
    shapes |= {"lstm.lstm.w": (2 * h, 4 * h), "lstm.lstm.b": (4 * h,)}
    shapes |= {"lstm.out.w": (h, 1), "lstm.out.b": (1,)}
    draw = torch.Generator().manual_seed(0)
    return {name: 0.2 * torch.randn(shape, generator=draw) for name, shape in shapes.items()}


def small_fc() -> dict[str, Any]:
    """The tree of a checkpoint of small_fc."""
    draw = torch.Generator().manual_seed(0)
    shapes = {"w0": (39, 4), "w1": (4, 4), "w2": (4, 2), "b0": (4,), "b1": (4,), "b2": (2,)}
    mlp = {name: 0.2 * torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    sizes = {"momentum_decays": 3, "rms_decays": 1, "adafactor_decays": 3}
    decays = {name: 0.01 * torch.randn(size, generator=draw) for name, size in sizes.items()}
    return {"params": {"nn": {"~": mlp}, **decays}, "gen_id": "a", "step": 100}


TREES = {"celo": celo, "small_fc": small_fc}


def write(kind: str, path: Path) -> Path:
    """A file of such weights."""
    path.write_bytes(packed(TREES[kind]()))
    return path
