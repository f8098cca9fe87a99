"""Programs that show a run beside its files: Weights & Biases, TensorBoard.

``metrics.jsonl`` and the files of the run folder are the truth. A logger that cannot be had, or
fails on the way, is left behind with a warning: no run is lost for it.
"""

import logging
import math
import os
import re
import shlex
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from l2lgd.errors import ConfigError, one_line
from l2lgd.system.environment import variable
from l2lgd.tracking.console import shown

log = logging.getLogger(__name__)

WANDB_MODES = ("offline", "online", "disabled", "shared")
WANDB_MEANS = {"dryrun": "offline", "run": "online"}  # older names, which W&B still takes
WANDB_LONGEST = 128  # letters of a name
WANDB_REFUSES = {"WANDB_PROJECT": r"[/\\#?%:]+", "WANDB_RUN_ID": r"[/#?:;,']+"}
LOGIN_TIMEOUT = 60  # seconds that W&B waits for an answer at the terminal


@dataclass(frozen=True)
class About:
    """What a logger is told about a run.

    Args:
        folder: the run folder.
        name: for people.
        config: as composed.
        group: name of the sweep that it belongs to, None for a run of its own.
        id: under which the logger knows it already; None for a new one.
        resume_at: the step that it goes on after; None for a new one.
    """

    folder: Path
    name: str
    config: Mapping[str, Any]
    group: str | None = None
    id: str | None = None
    resume_at: int | None = None


class Logger:
    """Shows a run. This one, ``logger=none``, shows nothing."""

    id: str | None = None  # to go on with the same run later

    def begin(self, about: About) -> None:
        """Before anything else."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Named numbers at a step."""

    def picture(self, name: str, path: Path) -> None:
        """A PNG file."""

    def weights(self, name: str, path: Path, metadata: Mapping[str, Any]) -> None:
        """A file of trained weights."""

    def close(self) -> None:
        """Flush and end."""


class Wandb(Logger):
    """Weights & Biases.

    Args:
        project: of W&B.
        mode: offline needs neither login nor network; online; disabled.

    Raises:
        ConfigError: there is no such mode.
    """

    def __init__(self, project: str = "l2lgd", mode: str = "offline") -> None:
        self.project, self.mode = project, WANDB_MEANS.get(mode.lower(), mode.lower())
        if self.mode not in WANDB_MODES:
            raise ConfigError(f"mode={mode}: choose one of {', '.join(WANDB_MODES)}")
        self._run: Any = None

    def begin(self, about: About) -> None:
        import wandb

        # W&B reads these, too, and in one spelling only.
        valid = {"WANDB_MODE": self.mode}
        valid |= {name: _without_refused(name, variable(name)) for name in WANDB_REFUSES}
        os.environ.update({name: value for name, value in valid.items() if variable(name)})
        if self.mode in ("online", "shared") and not wandb.login(timeout=LOGIN_TIMEOUT):
            raise RuntimeError("nobody has logged in; run wandb login, or take logger.mode=offline")
        group = about.group and about.group[:WANDB_LONGEST]
        ours: dict[str, Any] = {
            "dir": str(about.folder),
            "name": about.name[:WANDB_LONGEST],
            "group": group,
        }
        theirs = {"dir": "WANDB_DIR", "name": "WANDB_NAME", "group": "WANDB_RUN_GROUP"}
        self._run = wandb.init(
            project=_without_refused("WANDB_PROJECT", self.project),
            mode=self.mode,  # type: ignore[arg-type]
            config=dict(about.config),
            id=about.id,
            resume="allow",
            settings=wandb.Settings(silent=True),
            **{key: value for key, value in ours.items() if not variable(theirs[key])},
        )
        self.id = self._run.id

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def picture(self, name: str, path: Path) -> None:
        import wandb

        self._run.log({name: wandb.Image(str(path))})

    def weights(self, name: str, path: Path, metadata: Mapping[str, Any]) -> None:
        import wandb

        artifact = wandb.Artifact(wandb_name(name), type="optimizer", metadata=dict(metadata))
        artifact.add_file(str(path))
        self._run.log_artifact(artifact)

    def close(self) -> None:
        folder = Path(self._run.dir).parent
        self._run.finish()
        if self.mode == "offline":
            log.info("to upload it: wandb sync %s", shlex.quote(shown(folder.absolute())))


def _without_refused(variable_name: str, value: str) -> str:
    """What a variable says, or is to say, as W&B takes it."""
    return re.sub(WANDB_REFUSES[variable_name], "-", value)[:WANDB_LONGEST]


def wandb_name(name: str) -> str:
    """A name of weights as W&B wants it: Latin letters, digits, and ``_.-``."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^\w.]+", "-", plain).strip("-")[:WANDB_LONGEST] or "weights"


class TensorBoard(Logger):
    """TensorBoard; its files go to ``tensorboard`` in the run folder.

    Raises:
        ConfigError: it is not installed.
    """

    def __init__(self) -> None:
        try:
            from torch.utils import tensorboard
        except ImportError as error:
            raise ConfigError(
                "logger=tensorboard needs a package: pip install 'l2lgd[tensorboard]'"
            ) from error
        self._writer_of: Any = tensorboard.SummaryWriter
        self._writer: Any = None
        self._step = 0
        self._folder = Path()

    def begin(self, about: About) -> None:
        self._folder = about.folder / "tensorboard"
        resumed = None if about.resume_at is None else about.resume_at + 1
        self._writer = self._writer_of(str(self._folder), purge_step=resumed)
        lines = (f"    {line}" for line in _lines(about.config))
        self._writer.add_text("config", "\n".join(lines))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._step = step
        for name, value in values.items():
            if math.isfinite(value):
                self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def picture(self, name: str, path: Path) -> None:
        import numpy as np
        from PIL import Image

        with Image.open(path) as file:
            pixels = np.asarray(file.convert("RGB"))
        self._writer.add_image(name, pixels, self._step, dataformats="HWC")

    def weights(self, name: str, path: Path, metadata: Mapping[str, Any]) -> None:
        self._writer.add_text("weights", f"{name}: {path}")

    def close(self) -> None:
        self._writer.close()
        where = shlex.quote(shown(self._folder.absolute()))
        log.info("to look at it: tensorboard --logdir %s", where)


class GuardedLogger:
    """A logger that may fail.

    Args:
        logger: told everything until it fails, and nothing after that.
    """

    def __init__(self, logger: Logger) -> None:
        self._logger: Logger = logger

    @property
    def id(self) -> str | None:
        return self._logger.id

    def tell(self, what: Callable[[Logger], None]) -> None:
        """Call it with the logger; after a failure, warn, and tell nothing more."""
        try:
            what(self._logger)
        # W&B raises its own and other errors: no login, no network, no room, a lost process.
        except Exception as error:
            kind = type(self._logger).__name__
            log.warning("%s is off for the rest of this run: %s", kind, one_line(error))
            self._logger = Logger()


def _lines(config: Mapping[str, Any]) -> list[str]:
    """A config as YAML."""
    import yaml

    text: str = yaml.safe_dump(dict(config), sort_keys=False)
    return text.splitlines()
