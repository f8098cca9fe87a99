"""Packages of one's own are found in the working directory, and stand for no others."""

import importlib.util
import sys
from pathlib import Path

import pytest

from l2lgd.config.allowed import allow_packages_of


def test_packages_of_the_working_directory_come_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    for name in ("fractions", "imaplib", "scipy", "package_of_my_own"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('replaced')\n", encoding="utf-8")
    allow_packages_of(["seed=1"], tmp_path)
    assert str(tmp_path) not in sys.path
    allow_packages_of(["+allow_targets=[package_of_my_own]"], tmp_path)
    for name in ("fractions", "imaplib", "scipy"):
        found = importlib.util.find_spec(name)
        assert found is not None
        assert not str(found.origin).startswith(str(tmp_path))
    own = importlib.util.find_spec("package_of_my_own")
    assert own is not None
    assert own.origin == str(tmp_path / "package_of_my_own.py")
