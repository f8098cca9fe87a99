"""``l2lgd new``: a module and a YAML file to begin a task or an optimizer of one's own with."""

import keyword
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from l2lgd.errors import ConfigError, UserError, nearest

USAGE = """usage: l2lgd new task NAME [FOLDER]
       l2lgd new optimizer NAME [FOLDER]

FOLDER is a Python package of yours in this folder, by default mine. Its configs
go to FOLDER/conf."""
GROUPS = {"task": "task", "optimizer": "opt"}
DEFAULT_FOLDER = "mine"


def new(words: Sequence[str]) -> str:
    """Write the two files; returns their names, and the command that uses them.

    Raises:
        ConfigError: a word is missing, no name, or taken.
        UserError: the files cannot be written.
    """
    kind, name, package = (*words, *[""] * 3)[:3]
    usage = f"l2lgd new {kind if kind in GROUPS else 'task'} NAME [FOLDER]"
    if kind not in GROUPS:
        problem = (
            f"there is no new {kind}{nearest(kind, GROUPS)}" if kind else "new needs two words"
        )
        raise ConfigError(f"{problem}; usage: l2lgd new task|optimizer NAME [FOLDER]")
    if not name:
        raise ConfigError(f"new {kind}: its NAME is missing; usage: {usage}")
    if len(words) > 3:
        raise ConfigError(f"new {kind} {name}: too many words; usage: {usage}")
    folder = Path(package or DEFAULT_FOLDER)
    group, package = GROUPS[kind], folder.as_posix()
    for word, what in ((name, "NAME"), (package, "FOLDER")):
        if not re.fullmatch(r"[a-z][a-z0-9_]*", word) or keyword.iskeyword(word):
            raise ConfigError(f"{what} {word}: must be small letters, digits and underscores")
    if (files("l2lgd.conf") / group / f"{name}.yaml").is_file():
        raise ConfigError(f"there is a {group}={name} in l2lgd already; choose another name")
    module, config = folder / f"{name}.py", folder / "conf" / group / f"{name}.yaml"
    for path in (module, config):
        if path.exists():
            raise ConfigError(f"{path} exists already; choose another name, or remove it")
    title = "".join(part.capitalize() for part in name.split("_"))
    written = [module, config]
    values = {"name": name, "Name": title, "package": package}
    for path, template in ((module, f"{kind}.py.txt"), (config, f"{kind}.yaml.txt")):
        text = (files("l2lgd.cli") / "templates" / template).read_text("utf-8")
        _write(path, Template(text).substitute(values))
    init = folder / "__init__.py"
    if not init.exists():
        _write(init, "")
        written.append(init)
    uses = f"task={name}" if kind == "task" else f"opt={name}"
    where = f"--config-dir {folder / 'conf'} {uses} 'allow_targets=[{package}]'"
    said = [*map(str, written), "", "to try it, from this folder:"]
    return "\n".join([*said, f"l2lgd meta-train {where}"])


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"could not write {path}: {error.strerror or error}") from error
