"""Where compiled kernels are kept, which of them are loaded, and compilers that fail."""

import logging
import os
import stat
from pathlib import Path

import pytest

from l2lgd.kernels import build as kernels

COMPILER = """#!/bin/sh
# Stands for a compiler: what it makes is the number of times that it was asked for it.
{trouble}
out=
for word; do
    case $before in -o) out=$word;; esac
    before=$word
done
case "$*" in
    *-dM*) echo '#define MACRO 1';;
    *) echo x >> {counter}; wc -l < {counter} > "$out";;
esac
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the user, which XDG_CACHE_HOME names."""
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def compiler(folder: Path, trouble: str = "") -> str:
    path = folder / "c++"
    text = COMPILER.format(counter=folder / "counter", trouble=trouble)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def build(folder: Path) -> Path:
    return kernels.build("coordinatewise", compiler(folder), openmp=False)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("value", ["", " ", "cache", "./cache", "~/cache"])
def test_a_cache_that_is_no_whole_path_counts_for_nothing(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert kernels.cache_folder() == tmp_path / ".cache" / "l2lgd-kernels"


@pytest.mark.parametrize("home", ["", " "])
def test_without_a_home_there_is_no_cache(home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", home)
    with pytest.raises(RuntimeError, match="HOME is empty"):
        kernels.cache_folder()


def test_kernels_have_a_folder_of_their_own_that_nobody_else_reads(
    cache: Path, tmp_path: Path
) -> None:
    before = os.umask(0)
    try:
        path = build(tmp_path)
    finally:
        os.umask(before)
    assert path.parent == cache / "l2lgd-kernels"  # the folder of data is l2lgd
    assert (mode(path.parent), mode(path)) == (0o700, 0o700)
    assert build(tmp_path) == path
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert path.read_text() == "2\n"  # compiled and linked, once


def test_a_folder_of_ours_that_others_can_write_to_is_closed(cache: Path, tmp_path: Path) -> None:
    (cache / "l2lgd-kernels").mkdir()
    (cache / "l2lgd-kernels").chmod(0o777)
    assert mode(build(tmp_path).parent) == 0o700


@pytest.mark.parametrize("content", [b"", b"2", b"3\n", b"2\n" + bytes(4096)])
def test_half_a_library_is_compiled_anew(content: bytes, cache: Path, tmp_path: Path) -> None:
    path = build(tmp_path)
    path.write_bytes(content)
    again = build(tmp_path)
    assert again.read_text() == "4\n"
    assert build(tmp_path) == again


def test_a_library_that_is_not_ours_alone_is_compiled_anew(cache: Path, tmp_path: Path) -> None:
    path = build(tmp_path)
    path.chmod(0o722)
    again = build(tmp_path)
    assert again.read_text() == "4\n"
    again.rename(tmp_path / "elsewhere.so")
    again.symlink_to(tmp_path / "elsewhere.so")
    another = build(tmp_path)
    assert another.read_text() == "6\n"
    if os.geteuid() == 0:
        os.chown(another, 12345, 12345)
        assert build(tmp_path).read_text() == "8\n"


def test_a_cache_of_others_is_not_used(
    cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    planted = build(tmp_path)
    cache.chmod(0o777)
    path = build(tmp_path)
    assert not path.is_relative_to(cache)
    assert (mode(path.parent), path.read_text()) == (0o700, "4\n")
    assert f"{planted.parent} can be changed by other users" in caplog.text
    cache.chmod(0o1777)  # as /tmp: nobody renames what is others'
    assert build(tmp_path) == planted
    if os.geteuid() == 0:
        os.chown(planted.parent, 12345, 12345)
        assert not build(tmp_path).is_relative_to(cache)


def said_of(caplog: pytest.LogCaptureFixture) -> str:
    """The one line of the log about a compiler of which nothing came."""
    (record,) = (r for r in caplog.records if "no compiled" in r.message)
    assert record.levelno == logging.WARNING
    assert "\n" not in record.message
    return record.message


@pytest.fixture
def fails(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Ask for a library of a compiler with some trouble; there is none, and nothing is left."""

    def ask(trouble: str) -> None:
        monkeypatch.setenv("CXX", compiler(tmp_path, trouble))
        for cached in (kernels.library, kernels.find_compiler):
            monkeypatch.setattr(kernels, cached.__name__, cached.__wrapped__)
        assert kernels.library("coordinatewise") is None
        assert list((cache / "l2lgd-kernels").glob("*")) == []

    return ask


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("kill -9 $$", "was killed by signal 9"),
        ('case "$*" in *" -c "*) kill -9 $$;; esac', "was killed by signal 9"),
        ('printf "In x:\\na.cpp:1: error: z\\n^\\n" >&2; exit 1', "failed: a.cpp:1: error: z"),
        ("exit 3", "failed: no reason"),
        ('printf "\\377\\n" >&2; exit 1', "failed: \ufffd"),
    ],
)
def test_a_compiler_that_fails_leaves_one_line_and_nothing_else(
    trouble: str, said: str, fails: object, caplog: pytest.LogCaptureFixture
) -> None:
    fails(trouble)
    assert said in said_of(caplog)


@pytest.mark.parametrize("asked", [" -dM ", " -c "])
def test_a_compiler_that_hangs_is_stopped_with_all_it_has_started(
    asked: str,
    fails: object,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(kernels, "TIMEOUT", 5)
    monkeypatch.setattr(kernels, "TIMEOUT_OF_MACROS", 5)
    pids = tmp_path / "pids"
    hang = f"sleep 1000 & echo $$ $! > {pids}; wait"
    fails(f'case "$*" in *"{asked}"*) {hang};; esac')
    assert "was stopped after 5 s" in said_of(caplog)
    for pid in pids.read_text().split():
        with pytest.raises(ProcessLookupError):
            wait_for_end(int(pid))


def wait_for_end(pid: int) -> None:
    """Raises ProcessLookupError when there is no such process any more."""
    state = Path(f"/proc/{pid}/stat")
    while True:
        os.kill(pid, 0)
        if state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z":
            raise ProcessLookupError  # whose parent has not looked yet
