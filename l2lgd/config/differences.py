"""Options in which two configs differ."""

import re
from collections.abc import Iterable
from typing import Any

from omegaconf import DictConfig, OmegaConf

from l2lgd.config.old_names import upgraded
from l2lgd.config.options import RECOMMENDED

NO_EFFECT = rf"task\.(tasks\.[^.]+\.)?{RECOMMENDED}\."  # of its own


def differences(stored: DictConfig, now: DictConfig, ignore: Iterable[str]) -> list[str]:
    """``key: stored → now`` for every option that differs, those in ``ignore`` left out.

    Names of earlier versions are those of today. An option that is null is as good as absent: new
    ones are null where all is as it was before there were any.
    """
    flat = []
    for config in (stored, now):
        plain: Any = OmegaConf.to_container(config, resolve=True)
        kept = {k: v for k, v in upgraded(plain).items() if k not in set(ignore)}
        options = flattened(kept).items()
        flat.append({k: v for k, v in options if not re.match(NO_EFFECT, k)})
    before, after = flat
    return [
        f"{key}: {before.get(key, 'absent')} → {after.get(key, 'absent')}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def flattened(node: Any, prefix: str = "") -> dict[str, Any]:
    """The values of a plain config by their dotted names; an empty mapping is a value."""
    if not isinstance(node, dict) or not node:
        return {prefix: node}
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= flattened(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
