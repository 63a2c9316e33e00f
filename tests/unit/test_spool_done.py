"""Acknowledging a file: it leaves if it is the one that was read, and no other does."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataserver.errors import SpoolError
from dataserver.spool import remove
from dataserver.spool.directory import Spool
from dataserver.spool.files import SpoolFile
from dataserver.spool.rejected import Rejected

OLD = b"<agent_data agent_name='old'></agent_data>"
NEW = b"<agent_data agent_name='new'></agent_data>"
SHM = Path("/dev/shm")


@pytest.fixture
def data_in(tmp_path: Path) -> Path:
    path = tmp_path / "data_in"
    path.mkdir()
    return path


@pytest.fixture(params=["one file system", "two file systems"])
def var(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file leaves through it by a rename, which only works within one file system."""
    if request.param == "one file system":
        yield tmp_path / "var"
        return
    with tempfile.TemporaryDirectory(dir=SHM) as far:
        assert os.stat(far).st_dev != tmp_path.stat().st_dev
        yield Path(far) / "var"


@pytest.fixture
def spool(data_in: Path, var: Path) -> Iterator[Spool]:
    rejected = Rejected(var / "rejected")
    with Spool(data_in, max_packet=10_000, checksum="ignore", rejected=rejected) as spool:
        yield spool


def read_one(spool: Spool, path: Path, content: bytes = OLD) -> SpoolFile:
    path.write_bytes(content)
    (listed,) = spool.scan()
    return spool.read(listed).file


def test_a_file_that_is_done_is_gone(spool, data_in, var) -> None:
    file = read_one(spool, data_in / "a.1.data")
    assert spool.done(file)
    assert list(data_in.iterdir()) == []
    assert not any(path.is_file() for path in var.rglob("*"))


def test_a_file_that_is_gone_already_counts_as_done(spool, data_in) -> None:
    file = read_one(spool, data_in / "a.1.data")
    (data_in / "a.1.data").unlink()
    assert spool.done(file)


def test_a_file_replaced_by_a_move_is_left(spool, data_in, tmp_path) -> None:
    path = data_in / "a.1.data"
    path.write_bytes(OLD)
    (tmp_path / "new").write_bytes(NEW)
    for each in (path, tmp_path / "new"):  # only the inode tells one from the other
        os.utime(each, (1_000_000_000, 1_000_000_000))
    (listed,) = spool.scan()
    file = spool.read(listed).file
    (tmp_path / "new").rename(path)
    assert not spool.done(file)
    assert path.read_bytes() == NEW


def test_a_file_rewritten_in_place_at_the_same_length_is_left(spool, data_in) -> None:
    path = data_in / "a.1.data"
    file = read_one(spool, path)
    path.write_bytes(NEW)
    assert not spool.done(file)
    assert path.read_bytes() == NEW


def test_a_file_rewritten_within_one_tick_of_the_file_clock_is_left(
    spool, data_in, monkeypatch
) -> None:
    path = data_in / "a.1.data"
    path.write_bytes(OLD)
    (listed,) = spool.scan()
    monkeypatch.setattr(spool, "_clock_ns", lambda: listed.mtime_ns + 9_000_000)
    file = spool.read(listed).file
    path.write_bytes(NEW)
    # A coarse clock gives the new content the time of the old one.
    os.utime(path, ns=(file.mtime_ns, file.mtime_ns))
    assert file.fresh
    assert not spool.done(file)
    assert path.read_bytes() == NEW


def test_a_new_upload_that_is_only_begun_is_left(spool, data_in) -> None:
    path = data_in / "a.1.data"
    file = read_one(spool, path)
    with path.open("wb"):
        assert not spool.done(file)
    assert path.exists()


def test_a_time_set_after_the_packet_was_read_does_not_make_it_another(spool, data_in) -> None:
    path = data_in / "a.1.data"
    file = read_one(spool, path)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    assert spool.done(file)
    assert not path.exists()


def test_a_line_end_that_came_after_the_packet_was_read_does_not_make_it_another(
    spool, data_in
) -> None:
    path = data_in / "a.1.data"
    file = read_one(spool, path)
    with path.open("ab") as writer:
        writer.write(b"\r\n")
    assert spool.done(file)
    assert not path.exists()


def test_what_was_appended_to_a_packet_is_not_unlinked(spool, data_in) -> None:
    path = data_in / "a.1.data"
    file = read_one(spool, path)
    with path.open("ab") as writer:
        writer.write(NEW)
    assert not spool.done(file)
    assert path.read_bytes() == OLD + NEW


def test_a_checksum_leaves_with_its_packet(spool, data_in) -> None:
    (data_in / "a.1.checksum").write_bytes(b"No valid checksum")
    (data_in / "b.1.checksum").write_bytes(b"another's")
    file = read_one(spool, data_in / "a.1.data")
    assert spool.done(file)
    assert [path.name for path in data_in.iterdir()] == ["b.1.checksum"]


def test_the_checksum_of_a_replaced_packet_stays(spool, data_in) -> None:
    (data_in / "a.1.checksum").write_bytes(b"No valid checksum")
    file = read_one(spool, data_in / "a.1.data")
    (data_in / "a.1.data").write_bytes(NEW * 2)
    assert not spool.done(file)
    assert (data_in / "a.1.checksum").exists()


def test_a_directory_without_write_permission_is_an_error_and_keeps_the_file(
    spool, data_in
) -> None:
    file = read_one(spool, data_in / "a.1.data")
    was = os.geteuid()
    data_in.chmod(0o555)
    if was == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(SpoolError, match=r"cannot remove 'a\.1\.data'"):
            spool.done(file)
    finally:
        os.seteuid(was)
        data_in.chmod(0o755)
    assert (data_in / "a.1.data").exists()


class TestReplacedBetweenTheLastLookAndTheUnlink:
    """Within one file system the rename decides; a fail point is where the test steps in."""

    @pytest.fixture
    def var(self, tmp_path: Path) -> Path:
        return tmp_path / "var"

    def test_a_file_moved_over_it_is_put_back(self, spool, data_in, tmp_path, monkeypatch) -> None:
        path = data_in / "a.1.data"
        file = read_one(spool, path)
        (tmp_path / "new").write_bytes(NEW)
        rename_new = remove.rename_new

        def replace_first(*args, **kwargs) -> None:
            (tmp_path / "new").rename(path)
            rename_new(*args, **kwargs)

        monkeypatch.setattr(remove, "rename_new", replace_first)
        assert not spool.done(file)
        assert path.read_bytes() == NEW

    def test_an_upload_that_comes_after_the_rename_is_a_file_of_its_own(
        self, spool, data_in, monkeypatch
    ) -> None:
        path = data_in / "a.1.data"
        file = read_one(spool, path)
        monkeypatch.setattr(
            remove, "reach", lambda name: path.write_bytes(NEW) if name == "inside-done" else None
        )
        assert spool.done(file)
        assert path.read_bytes() == NEW

    def test_both_are_kept_where_the_name_is_taken_again_before_it_is_put_back(
        self, spool, data_in, monkeypatch
    ) -> None:
        path = data_in / "a.77.data"
        file = read_one(spool, path)
        writer = path.open("r+b")

        def write_late_and_upload_again(name: str) -> None:
            writer.write(NEW * 2)
            writer.close()
            path.write_bytes(NEW * 3)

        monkeypatch.setattr(remove, "reach", write_late_and_upload_again)
        assert not spool.done(file)
        listed = spool.scan()
        assert sorted(spool.read(file).content for file in listed) == [NEW * 2, NEW * 3]
        assert {file.number for file in listed} == {77}

    def test_what_a_crash_left_half_way_is_put_back_at_the_next_start(
        self, spool, data_in, var
    ) -> None:
        read_one(spool, data_in / "a.1.data")
        (var / "leaving").mkdir(parents=True)
        (data_in / "a.1.data").rename(var / "leaving" / "a.1.data")
        (data_in / "a.1.data").write_bytes(NEW)
        assert spool.recover() == 1
        assert sorted(spool.read(file).content for file in spool.scan()) == [NEW, OLD]
        assert list((var / "leaving").iterdir()) == []
