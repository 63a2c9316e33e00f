"""Reading a listed file: whole, bounded, and never through something that is no file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dataserver.errors import PacketError, Reason
from dataserver.spool import directory
from dataserver.spool.directory import Spool
from dataserver.spool.files import Unreadable, Vanished
from dataserver.spool.rejected import Rejected

WHOLE = b"<agent_data agent_name='a'><module/></agent_data>\n"
NOBODY = 65534


@pytest.fixture
def data_in(tmp_path: Path) -> Path:
    path = tmp_path / "data_in"
    path.mkdir()
    path.chmod(0o777)
    return path


def make_spool(data_in: Path, checksum="ignore", max_packet=10_000) -> Spool:
    rejected = Rejected(data_in.with_name("var") / "rejected")
    return Spool(data_in, max_packet=max_packet, checksum=checksum, rejected=rejected)


@pytest.fixture
def spool(data_in: Path) -> Iterator[Spool]:
    with make_spool(data_in) as spool:
        yield spool


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may read everything, so to have no rights is to be somebody else."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(was)


def test_a_file_is_read_whole_with_the_identity_it_had(spool, data_in) -> None:
    path = data_in / "a.1.data"
    path.write_bytes(WHOLE)
    (listed,) = spool.scan()
    path.write_bytes(WHOLE * 3)
    reading = spool.read(listed)
    info = path.stat()
    assert reading.content == WHOLE * 3
    assert (reading.file.size, reading.file.mtime_ns) == (info.st_size, info.st_mtime_ns)


def test_an_empty_file_is_read_as_nothing(spool, data_in) -> None:
    (data_in / "a.1.data").touch()
    (listed,) = spool.scan()
    assert spool.read(listed).content == b""


def test_a_file_larger_than_one_read_gives_is_read_whole(spool, data_in, monkeypatch) -> None:
    (data_in / "a.1.data").write_bytes(WHOLE * 100)
    (listed,) = spool.scan()
    real_read = os.read
    monkeypatch.setattr(directory.os, "read", lambda fd, size: real_read(fd, min(size, 7)))
    assert spool.read(listed).content == WHOLE * 100


def test_a_file_that_is_written_while_it_is_read_has_no_content_yet(
    spool, data_in, monkeypatch
) -> None:
    path = data_in / "a.1.data"
    path.write_bytes(WHOLE)
    (listed,) = spool.scan()

    read_whole = directory.read_whole

    def read_and_append(fd: int, size: int) -> bytes:
        read = read_whole(fd, size)
        with path.open("ab") as file:
            file.write(b"more")
        return read

    with monkeypatch.context() as patch:
        patch.setattr(directory, "read_whole", read_and_append)
        assert spool.read(listed).content is None
    assert spool.read(listed).content == WHOLE + b"more"


def test_a_file_of_exactly_the_limit_is_taken(data_in) -> None:
    (data_in / "a.1.data").write_bytes(WHOLE)
    with make_spool(data_in, max_packet=len(WHOLE)) as spool:
        assert spool.read(spool.scan()[0]).content == WHOLE


def test_a_file_over_the_limit_is_too_large_and_not_read(data_in, monkeypatch) -> None:
    (data_in / "a.1.data").write_bytes(WHOLE)
    monkeypatch.setattr(directory, "read_whole", lambda *_: pytest.fail("it was read"))
    with (
        make_spool(data_in, max_packet=len(WHOLE) - 1) as spool,
        pytest.raises(PacketError) as caught,
    ):
        spool.read(spool.scan()[0])
    assert caught.value.reason is Reason.TOO_LARGE


def test_a_file_that_is_gone_has_vanished(spool, data_in) -> None:
    (data_in / "a.1.data").write_bytes(WHOLE)
    (listed,) = spool.scan()
    (data_in / "a.1.data").unlink()
    with pytest.raises(Vanished):
        spool.read(listed)


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_what_has_become_something_else_has_vanished_and_is_not_read(spool, data_in, kind) -> None:
    path = data_in / "a.1.data"
    path.write_bytes(WHOLE)
    (listed,) = spool.scan()
    path.rename(data_in.with_name("target"))
    match kind:
        case "link":
            path.symlink_to(data_in.with_name("target"))
        case "pipe":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
    with pytest.raises(Vanished):
        spool.read(listed)
    assert not spool.done(listed)
    assert os.path.lexists(path)


def test_an_unreadable_file_stays_is_told_of_once_and_read_when_it_can_be(spool, data_in) -> None:
    path = data_in / "a.1.data"
    path.write_bytes(WHOLE)
    path.chmod(0)
    first = []
    for _ in range(3):
        (listed,) = spool.scan()
        with as_nobody(), pytest.raises(Unreadable, match="Permission denied") as caught:
            spool.read(listed)
        first.append(caught.value.first)
    assert first == [True, False, False]
    assert dict(spool.unreadable) == {"a.1.data": "Permission denied"}
    path.chmod(0o644)
    with as_nobody():
        assert spool.read(listed).content == WHOLE
    assert not spool.unreadable


def test_an_unreadable_file_that_goes_away_is_no_longer_named(spool, data_in) -> None:
    path = data_in / "a.1.data"
    path.write_bytes(WHOLE)
    path.chmod(0)
    (listed,) = spool.scan()
    with as_nobody(), pytest.raises(Unreadable):
        spool.read(listed)
    path.unlink()
    spool.scan()
    assert not spool.unreadable


def md5sum(content: bytes) -> bytes:
    return f"{hashlib.md5(content).hexdigest()}  /tmp/a.1.data\n".encode()


def read_verified(data_in: Path, checksum: bytes | None, data: bytes = WHOLE) -> bytes | None:
    (data_in / "a.1.data").write_bytes(data)
    if checksum is not None:
        (data_in / "a.1.checksum").write_bytes(checksum)
    with make_spool(data_in, "verify") as spool:
        return spool.read(spool.scan()[0]).content


def test_a_packet_whose_checksum_says_nothing_against_it_is_read(data_in) -> None:
    right = md5sum(WHOLE)
    for checksum in (None, right, right.upper(), b"\\" + right, b"No valid checksum", b""):
        assert read_verified(data_in, checksum) == WHOLE, checksum


def test_a_packet_with_another_checksum_is_refused(data_in) -> None:
    with pytest.raises(PacketError) as caught:
        read_verified(data_in, md5sum(b"something else"))
    assert caught.value.reason is Reason.CHECKSUM
    assert len(list(data_in.iterdir())) == 2


def test_an_incomplete_packet_is_not_compared_with_its_checksum(data_in) -> None:
    assert read_verified(data_in, md5sum(WHOLE), WHOLE[:-5]) == WHOLE[:-5]


def test_a_packet_whose_last_line_end_is_still_on_its_way_matches(data_in) -> None:
    assert read_verified(data_in, md5sum(WHOLE), WHOLE[:-1]) == WHOLE[:-1]


def test_a_checksum_that_is_a_pipe_is_not_opened(data_in) -> None:
    os.mkfifo(data_in / "a.1.checksum")
    assert read_verified(data_in, None) == WHOLE


def test_checksums_are_not_looked_at_where_they_are_to_be_ignored(spool, data_in) -> None:
    (data_in / "a.1.data").write_bytes(WHOLE)
    (data_in / "a.1.checksum").write_bytes(md5sum(b"something else"))
    assert spool.read(spool.scan()[0]).content == WHOLE
