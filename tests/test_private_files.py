"""Files for their owner alone. What stands in the place of one: tests/chaos/test_hostile_projects.py."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from aiotune.errors import StoreUnwritable
from aiotune.private_files import (
    check_directory,
    check_file,
    create_file,
    is_plain,
    make_directories,
    make_directory,
    open_file,
    open_log,
    open_to_read,
    read_bytes,
    require_directory,
    strangers,
)


@pytest.fixture(autouse=True)
def no_umask() -> Iterator[None]:
    former = os.umask(0)
    yield
    os.umask(former)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_made_is_private_and_what_is_there_stays(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    make_directories(tmp_path / "a" / "b")
    make_directory(tmp_path / "a" / "c" / "d")
    os.close(create_file(tmp_path / "a" / "file"))
    os.close(open_file(tmp_path / "a" / "other", os.O_WRONLY | os.O_CREAT))

    assert {mode(tmp_path / "a" / name) for name in ("b", "c", "c/d", "")} == {0o700}
    assert {mode(tmp_path / "a" / name) for name in ("file", "other")} == {0o600}
    (tmp_path / "a" / "file").chmod(0o644)
    os.close(open_file(tmp_path / "a" / "file", os.O_WRONLY | os.O_CREAT))
    make_directories(tmp_path)
    assert (mode(tmp_path / "a" / "file"), mode(tmp_path)) == (0o644, 0o755)


def test_two_may_make_the_same_directory_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = os.path.lexists

    def made_by_another_first(path: Path) -> bool:
        path.mkdir(parents=True, exist_ok=True)
        return look(path)

    monkeypatch.setattr(os.path, "lexists", made_by_another_first)
    make_directories(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


def test_a_project_may_stand_behind_links_of_the_users(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "results").symlink_to(tmp_path / "disk")

    make_directories(tmp_path / "results")
    make_directory(tmp_path / "results" / "trial_0000")

    assert (tmp_path / "disk" / "trial_0000").is_dir()


def test_a_file_in_the_way_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        make_directories(tmp_path / "file" / "a")
    with pytest.raises(NotADirectoryError, match="a file is in the place of a directory"):
        check_directory(tmp_path / "file")
    with pytest.raises(StoreUnwritable, match="cannot be made"):
        require_directory(tmp_path / "file")
    check_directory(tmp_path / "none")


def test_a_log_is_appended_to(tmp_path: Path) -> None:
    for text in (b"one", b"two"):
        fd = open_log(tmp_path / "log")
        os.write(fd, text)
        os.close(fd)
    assert (tmp_path / "log").read_bytes() == b"onetwo"
    with pytest.raises(IsADirectoryError):
        open_log(tmp_path)


def test_a_file_with_two_names_is_read_and_not_written(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"content")
    (tmp_path / "two").hardlink_to(tmp_path / "one")

    with open_to_read(tmp_path / "two") as file:
        assert file.read() == b"content"
    assert is_plain(tmp_path / "two")
    for look in (check_file, lambda path: open_file(path, os.O_WRONLY)):
        with pytest.raises(OSError, match="hard link"):
            look(tmp_path / "two")


def test_more_than_wanted_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_bytes(tmp_path / "file", 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_bytes(tmp_path / "file", 4)


def test_who_else_may_change_a_directory(tmp_path: Path) -> None:
    tmp_path.chmod(0o775)  # a group of one's own is usual
    assert strangers(tmp_path) is None
    tmp_path.chmod(0o777)
    assert strangers(tmp_path) == "every user may write to it"
    if os.geteuid() == 0:
        os.chown(tmp_path, 12345, -1)
        assert strangers(tmp_path) == "it belongs to the user with the number 12345"
