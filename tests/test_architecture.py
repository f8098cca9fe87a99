"""Who may know whom."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import l2lgd

PACKAGE = Path(l2lgd.__file__).parent
# From the top: a room imports from those below it. Rooms on one line do not know each other.
ROOMS = """
cli
verbs
figures benchmark
evaluation testing
runs pretrained
meta
results tracking
tasks optimizers
data kernels
config system
storage
errors seeding
"""
LEVEL = {room: k for k, line in enumerate(ROOMS.split("\n")) for room in line.split()}
ROOT = {"__init__", "__main__", "errors", "seeding"}
FOR_NEITHER = ("hydra", "wandb", "rich", "omegaconf")  # tasks and optimizers


def modules() -> list[Path]:
    return sorted(PACKAGE.glob("**/*.py"))


def module_of(path: Path) -> str:
    return ".".join(("l2lgd", *path.relative_to(PACKAGE).with_suffix("").parts))


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it."""
    for part in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(part, ast.Import):
            yield from (alias.name for alias in part.names)
        elif isinstance(part, ast.ImportFrom):
            assert part.level == 0, f"{path} imports relatively, which this test cannot follow"
            for alias in part.names:
                inner = f"{part.module}.{alias.name}"
                ours = inner.startswith("l2lgd.") and _is_module(inner)
                yield inner if ours else part.module or ""


def _is_module(name: str) -> bool:
    path = PACKAGE.joinpath(*name.split(".")[1:])
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def room_of(module: str) -> str:
    return module.split(".")[1]


def test_only_the_ground_lies_outside_the_rooms() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == ROOT
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms | ROOT >= set(LEVEL) - {"benchmark"} >= rooms - {"benchmark"}


@pytest.mark.parametrize("path", modules(), ids=module_of)
def test_imports_run_downwards(path: Path) -> None:
    here = room_of(module_of(path))
    if here.startswith("__"):
        return
    for name in imports(path):
        if not name.startswith("l2lgd."):
            continue
        there = room_of(name)
        below = LEVEL[there] > LEVEL[here]
        assert there == here or below, name


def test_no_module_imports_itself_by_way_of_others() -> None:
    known = {module_of(path): set(imports(path)) for path in modules()}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, " → ".join((*way, name))
        if name not in done and name in known:
            for other in known[name]:
                visit(other, (*way, name))
            done.add(name)

    for name in known:
        visit(name, ())


def test_no_two_public_classes_share_a_name() -> None:
    names = Counter(
        part.name
        for path in modules()
        for part in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(part, ast.ClassDef) and not part.name.startswith("_")
    )
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize(
    "path", [p for p in modules() if "tasks" in p.parts or "optimizers" in p.parts], ids=module_of
)
def test_tasks_and_optimizers_do_not_know_the_command_line(path: Path) -> None:
    for name in imports(path):
        assert name.split(".")[0] not in FOR_NEITHER, name


def test_only_the_command_line_prints() -> None:
    for path in modules():
        calls = [
            part.lineno
            for part in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(part, ast.Call) and isinstance(part.func, ast.Name)
            if part.func.id == "print"
        ]
        allowed = module_of(path).startswith("l2lgd.cli.") or path.name == "terminal.py"
        assert allowed or not calls, f"{path}: line {calls}"
