"""Checkpoints: safetensors files with JSON metadata, written so that a crash leaves them whole."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from l2lgd.errors import CheckpointError
from l2lgd.storage.files import disk_error, write_atomically
from l2lgd.storage.nesting import parsed

FORMAT = "l2lgd-checkpoint-2"


def save(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and JSON-able metadata; the file at ``path`` is the old or the new one, whole.

    Raises:
        UserError: the folder cannot be written to, or the disk is full.
    """
    from safetensors.torch import save as serialize

    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    content = json.dumps(metadata, sort_keys=True)
    fields = {"format": FORMAT, "content": content, "sha256": _digest(own, content)}
    write_atomically(path, serialize(own, fields))


def _digest(tensors: Mapping[str, Tensor], content: str) -> str:
    """A hash of tensors (on the CPU, contiguous) and metadata."""
    digest = hashlib.sha256(content.encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def keep_previous(path: Path) -> None:
    """Let ``previous`` beside a file be what that file is now; one of them is whole at any time.

    Raises:
        UserError: the folder cannot be written to, or the disk is full.
    """
    if not path.exists():
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.unlink(missing_ok=True)
        try:
            temporary.hardlink_to(path)
        except OSError:  # a file system without links
            shutil.copyfile(path, temporary)
        temporary.replace(previous(path))
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise disk_error(path, error) from error


def previous(path: Path) -> Path:
    """Where :func:`keep_previous` keeps it."""
    return path.with_name(f"previous{path.suffix}")


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors on the CPU and metadata of a file written by :func:`save`.

    Raises:
        CheckpointError: missing, unreadable, or not ours.
    """
    from safetensors import SafetensorError, safe_open

    if path.is_dir():
        inside = path / "checkpoints" / "best.safetensors"
        hint = f"give {inside}" if inside.is_file() else "give a .safetensors file"
        raise CheckpointError(f"{path} is a folder; {hint}")
    if not path.is_file():
        raise CheckpointError(
            f"no checkpoint at {path}; give the path of a .safetensors file that l2lgd "
            "meta-train wrote"
        )
    try:
        with safe_open(str(path), framework="pt") as file:
            fields = file.metadata() or {}
            names = list(file.keys())
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a readable checkpoint ({error}); give the path of a .safetensors file "
            "that l2lgd meta-train wrote"
        ) from error
    found = fields.get("format", "")
    if found != FORMAT:
        raise CheckpointError(
            f"{path} was written by another version of l2lgd ({found}, this one reads {FORMAT}); "
            "use that version, or meta-train again"
            if found.startswith(FORMAT.rstrip("0123456789"))
            else f"{path} is not a checkpoint of l2lgd; give the path of a file that l2lgd "
            "meta-train wrote"
        )
    try:
        content = fields["content"]
        if _digest(tensors, content) != fields["sha256"]:
            raise CheckpointError(f"{path} is damaged: its content is not what was written")
        return tensors, dict(parsed(content))
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged: its metadata cannot be read") from error
