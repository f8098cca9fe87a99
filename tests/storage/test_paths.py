"""Whose folder a relative path is of."""

from pathlib import Path

import pytest

from l2lgd.storage.paths import as_typed, typed_in


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Where a run was begun, and where its command is typed now; the process is in a third."""
    begun, now, elsewhere = (tmp_path / name for name in ("begun", "now", "elsewhere"))
    for folder in (begun, now, elsewhere):
        folder.mkdir()
    monkeypatch.chdir(elsewhere)
    return begun, now


def test_a_relative_path_is_of_the_first_folder_that_has_it(folders: tuple[Path, Path]) -> None:
    begun, now = folders
    (now / "moved").touch()
    with typed_in(begun, now):
        assert as_typed("moved") == now / "moved"
        (begun / "moved").touch()
        assert as_typed("moved") == begun / "moved"
        assert as_typed("new") == begun / "new"
        assert as_typed("/absolute") == Path("/absolute")
        assert as_typed("~/x") == Path.home() / "x"
    assert as_typed("moved") == Path("moved")


def test_a_folder_that_is_gone_does_not_count(folders: tuple[Path, Path]) -> None:
    begun, now = folders
    begun.rmdir()
    with typed_in(begun, now):
        assert as_typed("new") == now / "new"


def test_paths_stay_as_they_were_typed_where_that_is_right(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folders[0])
    with typed_in(*folders):
        assert as_typed("a/b") == Path("a/b")
