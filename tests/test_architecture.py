"""Who may know whom."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import l2lgd

PACKAGE = Path(l2lgd.__file__).parent
FOR_NEITHER = ("hydra", "wandb", "rich", "omegaconf")


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it."""
    for part in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(part, ast.Import):
            yield from (alias.name for alias in part.names)
        elif isinstance(part, ast.ImportFrom):
            assert part.level == 0, f"{path} imports relatively, which this test cannot follow"
            yield part.module or ""
            yield from (f"{part.module}.{alias.name}" for alias in part.names)


def modules(*rooms: str) -> list[Path]:
    found = [path for room in rooms for path in sorted((PACKAGE / room).glob("**/*.py"))]
    assert len(found) > len(rooms)
    return found


@pytest.mark.parametrize("path", modules("tasks", "optimizers"), ids=lambda path: path.stem)
def test_tasks_and_optimizers_know_neither_each_other_nor_the_command_line(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0]
    sibling = {"tasks": "optimizers", "optimizers": "tasks"}[room]
    # Those rooms stand above these, and importing one of them would be a cycle in disguise.
    above = (
        "cli",
        "verbs",
        "searches",
        "meta_training",
        "run",
        "trainer",
        "contestants",
        "tracking",
        "unroll",
        "config",
    )
    forbidden = (*FOR_NEITHER, f"l2lgd.{sibling}", *(f"l2lgd.{name}" for name in above))
    for name in imports(path):
        assert not any(name == other or name.startswith(f"{other}.") for other in forbidden), name


def test_only_the_command_line_prints() -> None:
    for path in PACKAGE.glob("**/*.py"):
        calls = [
            part.lineno
            for part in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(part, ast.Call) and isinstance(part.func, ast.Name)
            if part.func.id == "print"
        ]
        assert path.name in ("cli.py", "terminal.py") or not calls, f"{path}: line {calls}"
