"""A file is read only if it is one, and of a size that it may have; nothing is written over a device."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from scope_edge.errors import AssetError
from scope_edge.storage.files import expand_user, read_whole, write_atomically

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows has no such files")


def test_a_file_is_read_up_to_a_size(tmp_path: Path) -> None:
    path = tmp_path / "one"
    path.write_bytes(b"12345")
    assert read_whole(path, 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_whole(path, 4)
    with pytest.raises(IsADirectoryError):
        read_whole(tmp_path, 5)


def test_what_never_ends_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for path in (tmp_path / "pipe", tmp_path / "link", Path("/dev/zero")):
        with pytest.raises(OSError, match="not a regular file"):
            read_whole(path, 5)


def test_nothing_replaces_a_device_or_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(AssetError, match="not a regular file"):
        write_atomically(pipe, b"text")
    assert stat.S_ISFIFO(pipe.stat().st_mode) and list(tmp_path.iterdir()) == [pipe]


def test_the_home_of_an_unknown_user_is_a_name() -> None:
    assert expand_user("~no-such-user/x") == Path("~no-such-user/x")
    assert expand_user("~/x") == Path.home() / "x"
