"""``l2lgd convert``: published weights of learned optimizers, made for JAX, as weights of ours."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from l2lgd.errors import ConfigError, nearest
from l2lgd.pretrained import conversion

USAGE = """usage: l2lgd convert celo FILE [OUTPUT]
       l2lgd convert small_fc FILE [OUTPUT]

FILE was written by Flax, as theta.state of Celo's authors. OUTPUT is by default
celo.safetensors or small_fc.safetensors in this folder."""


def convert(words: Sequence[str]) -> str:
    """Write the weights of a file in our format; returns its name, and what it is good for.

    Raises:
        ConfigError: a word is missing, unknown, or OUTPUT is there already.
        CheckpointError: the file is not readable, or not of that kind.
        UserError: OUTPUT cannot be written.
    """
    kind, file, output = (*words, *[""] * 3)[:3]
    usage = f"l2lgd convert {'|'.join(conversion.KINDS)} FILE [OUTPUT]"
    if not kind:
        raise ConfigError(f"convert needs two words; usage: {usage}")
    if kind not in conversion.KINDS:
        hint = nearest(kind, conversion.KINDS)
        raise ConfigError(f"convert {kind}: it knows no such weights{hint}; usage: {usage}")
    if not file or len(words) > 3:
        problem = "too many words" if file else "its FILE is missing"
        raise ConfigError(f"convert {kind}: {problem}; usage: {usage}")
    made = Path(output or f"{kind}.safetensors")
    if made.suffix != ".safetensors":
        raise ConfigError(f"OUTPUT {made}: must end in .safetensors")
    if made.exists():
        raise ConfigError(f"{made} exists already; choose another OUTPUT, or remove it")
    conversion.convert(kind, Path(file), made, shlex.join(["l2lgd", "convert", *words]))
    opt = conversion.KINDS[kind].opt
    return "\n".join(
        [
            str(made),
            "",
            f"l2lgd evaluate task=mnist opt={opt} {shlex.quote(f'checkpoint={made}')}",
            f'l2lgd.LearnedOptimizer(model.parameters(), weights="{made}", horizon=STEPS)',
        ]
    )
