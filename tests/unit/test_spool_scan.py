"""What the spool lists, and what it leaves alone."""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
from pathlib import Path

import pytest

from dataserver.errors import SpoolError
from dataserver.spool import directory as listing
from dataserver.spool.directory import Listing, Spool
from dataserver.spool.files import is_packet_name
from dataserver.spool.rejected import Rejected

WHOLE = b"<agent_data agent_name='a'></agent_data>"


@pytest.fixture
def data_in(tmp_path: Path) -> Path:
    path = tmp_path / "data_in"
    path.mkdir()
    return path


@pytest.fixture
def spool(tmp_path: Path, data_in: Path):
    rejected = Rejected(tmp_path / "var" / "rejected")
    with Spool(data_in, max_packet=10_000, checksum="ignore", rejected=rejected) as spool:
        yield spool


def put(directory: Path, name: str | bytes, content: bytes = WHOLE, mtime_ns: int | None = None):
    path = os.path.join(os.fsencode(directory), os.fsencode(name))
    with open(path, "wb") as file:
        file.write(content)
    if mtime_ns is not None:
        os.utime(path, ns=(mtime_ns, mtime_ns))


def names(spool: Spool) -> list[str]:
    return [file.name for file in spool.scan()]


def test_a_stem_a_separator_and_a_number_make_a_packet_name() -> None:
    names = [
        "a.1.data", "a_1.data", "a.b_c.17.data", "0123456789abcdef.1700000000.data", "ä b.1.data",
        "a\n.1.data", "a..1.data", "x.00.data", "_1.data", "a." + "9" * 240 + ".data",
    ]  # fmt: skip
    assert [name for name in names if not is_packet_name(name)] == []


def test_every_other_name_is_foreign() -> None:
    names = [
        "a.data", "a.1.data.tmp", ".a.1.data", "1.data", ".1.data", "a-1.data", "a.1.DATA",
        "a.1x.data", "a.1.data\n", "a.1.checksum", "a.\u0661.data", ".a.1.data.Xy12Ab",
        "a.-1.data",
    ]  # fmt: skip
    assert [name for name in names if is_packet_name(name)] == []


def test_files_are_listed_oldest_first_then_by_number_then_by_name(spool, data_in) -> None:
    put(data_in, "young.1.data", mtime_ns=3_000_000_000)
    put(data_in, "b.10.data", mtime_ns=2_000_000_000)
    put(data_in, "b.9.data", mtime_ns=2_000_000_000)
    put(data_in, "a.10.data", mtime_ns=2_000_000_000)
    put(data_in, "old.7.data", mtime_ns=1_999_999_999)
    assert names(spool) == ["old.7.data", "b.9.data", "a.10.data", "b.10.data", "young.1.data"]


def test_a_listed_file_carries_its_name_its_number_and_its_identity(spool, data_in) -> None:
    put(data_in, "host_1.b_00042.data", b"12345", mtime_ns=1_234_567_890_123_456_789)
    (file,) = spool.scan()
    info = (data_in / file.name).stat()
    assert (file.stem, file.number, file.size) == ("host_1.b", 42, 5)
    assert (file.mtime_ns, file.inode) == (1_234_567_890_123_456_789, info.st_ino)


def test_a_name_that_is_not_utf8_is_listed_and_read(spool, data_in) -> None:
    put(data_in, b"caf\xe9\xff.5.data")
    (file,) = spool.scan()
    assert os.fsencode(file.name) == b"caf\xe9\xff.5.data"
    assert spool.read(file).content == WHOLE
    assert spool.done(file)
    assert os.listdir(data_in) == []


def test_links_pipes_sockets_devices_and_directories_are_not_listed(spool, data_in, tmp_path):
    put(tmp_path, "elsewhere", WHOLE)
    (data_in / "link.1.data").symlink_to(tmp_path / "elsewhere")
    (data_in / "dangling.1.data").symlink_to(tmp_path / "nothing")
    os.mkfifo(data_in / "pipe.1.data")
    (data_in / "dir.1.data").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        # A relative path: a socket's is short.
        here = os.open(data_in, os.O_RDONLY)
        server.bind(f"/proc/self/fd/{here}/socket.1.data")
        os.close(here)
    if os.geteuid() == 0:  # nobody else may make a device
        os.mknod(data_in / "null.1.data", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    put(data_in, "real.1.data")
    before = sorted(os.listdir(data_in))
    assert names(spool) == ["real.1.data"]
    assert sorted(os.listdir(data_in)) == before


def test_what_only_has_a_packets_name_is_warned_about_once(spool, data_in, caplog) -> None:
    os.mkfifo(data_in / "pipe.1.data")
    spool.scan()
    spool.scan()
    assert [r.getMessage() for r in caplog.records] == [
        "'pipe.1.data' in data_in is named like a packet but is not a regular file: not opened"
    ]


def test_folders_of_agents_dotfiles_and_checksums_are_passed_over_in_silence(
    spool, data_in, caplog
) -> None:
    for name in ("conf", "md5", "collections", "trans", "commands", "netflow", "discovery"):
        (data_in / name).mkdir()
    for name in (".hidden", ".a.1.data.q2W3e4", "README.md", "a.1.checksum"):
        put(data_in, name)
    assert names(spool) == []
    assert caplog.records == []


def test_foreign_names_are_warned_about_once_each(spool, data_in, caplog) -> None:
    put(data_in, "notes.txt")
    spool.scan()
    put(data_in, b"\xff.tmp")
    spool.scan()
    assert [r.args for r in caplog.records] == [("notes.txt",), ("\udcff.tmp",)]
    for record in caplog.records:
        record.getMessage().encode("ascii")


def test_many_foreign_names_do_not_flood_the_log(spool, data_in, caplog) -> None:
    for number in range(300):
        put(data_in, f"foreign-{number}")
    with caplog.at_level(logging.WARNING):
        spool.scan()
        spool.scan()
    assert len(caplog.records) == 101
    assert "further ones are not logged" in caplog.records[-1].getMessage()


def test_packets_that_the_perl_server_renamed_are_counted_and_told_in_one_line(
    spool, data_in, caplog
) -> None:
    for number in range(300):
        put(data_in, f"web.{number}.data_BADXML")
    put(data_in, "notes.txt")
    put(data_in, "web.1.data")
    assert [names(spool), names(spool)] == [["web.1.data"], ["web.1.data"]]
    assert spool.foreign == 301
    told = sorted(record.getMessage() for record in caplog.records)
    assert len(told) == 2
    assert told[1].startswith("300 files in data_in are named *.data_BADXML")


class Listings:
    """A directory of many foreign files, and how often it is listed; the test moves the clock."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for number in range(listing._MANY):
            (folder / f"web.{number}.data_BADXML").touch()
        self.now = 0.0
        self.count = 0
        self._listing = Listing(lambda: self.now)
        self._fd = os.open(folder, os.O_RDONLY)
        real_scandir = os.scandir

        def scandir(fd: int):
            self.count += 1
            return real_scandir(fd)

        monkeypatch.setattr("dataserver.spool.directory.os.scandir", scandir)

    def names(self, after: float = 1.0) -> list[str]:
        self.now += after
        return [file.name for file in self._listing.scan(self._fd)[0]]

    def close(self) -> None:
        os.close(self._fd)


@pytest.fixture
def listings(data_in, monkeypatch):
    made = Listings(data_in, monkeypatch)
    yield made
    made.close()


def test_many_foreign_files_are_not_listed_again_while_nothing_comes_or_goes(
    listings, data_in
) -> None:
    for _ in range(25):
        assert listings.names() == []
    # The first ones prove nothing: a file may have come within one step of the directory's time.
    assert listings.count == 4
    put(data_in, "a.1.data")
    assert listings.names(0.0) == ["a.1.data"]
    (data_in / "a.1.data").unlink()
    (data_in / "web.1.data_BADXML").rename(data_in / "web.1.data")
    assert listings.names(0.0) == ["web.1.data"]


def test_while_a_packet_waits_among_many_foreign_files_each_scan_sees_it_anew(
    listings, data_in
) -> None:
    put(data_in, "a.1.data", b"<half")
    for _ in range(5):
        assert listings.names() == ["a.1.data"]
    assert listings.count == 5


def test_where_a_directory_keeps_no_times_files_are_found_all_the_same(
    listings, data_in, monkeypatch
) -> None:
    frozen = os.stat(data_in)
    monkeypatch.setattr("dataserver.spool.directory.os.fstat", lambda _: frozen)
    for _ in range(10):
        listings.names()
    put(data_in, "a.1.data")
    assert listings.names() == []
    assert listings.names(after=listing._AT_LEAST) == ["a.1.data"]


def test_nothing_foreign_is_touched(spool, data_in) -> None:
    (data_in / "conf").mkdir()
    put(data_in / "conf", "a.1.data", b"inner")
    put(data_in, "x.1.data.part", b"part", mtime_ns=5)
    before = looks(data_in)
    spool.recover()
    spool.scan()
    assert looks(data_in) == before


def looks(folder: Path) -> dict[Path, tuple[int, ...]]:
    """What changes with whatever is done to anything in a folder."""
    found = {}
    for path in folder.rglob("*"):
        info = path.lstat()
        # Of a folder, looking here changes when it was read last.
        read = info.st_atime_ns if path.is_file() else 0
        state = (info.st_mode, info.st_ino, info.st_nlink, info.st_uid, info.st_gid)
        found[path] = (*state, info.st_size, info.st_mtime_ns, info.st_ctime_ns, read)
    return found


def test_a_missing_directory_is_one_clear_error(tmp_path) -> None:
    rejected = Rejected(tmp_path / "rejected")
    spool = Spool(tmp_path / "none", max_packet=1, checksum="ignore", rejected=rejected)
    with pytest.raises(SpoolError, match="No such file or directory"):
        spool.scan()


def test_a_directory_that_appears_later_is_used(tmp_path) -> None:
    path = tmp_path / "later"
    rejected = Rejected(tmp_path / "rejected")
    with Spool(path, max_packet=1, checksum="ignore", rejected=rejected) as spool:
        with pytest.raises(SpoolError):
            spool.scan()
        path.mkdir()
        put(path, "a.1.data")
        assert names(spool) == ["a.1.data"]


def test_a_directory_that_was_replaced_is_not_served(spool, data_in) -> None:
    spool.scan()
    data_in.rename(data_in.with_name("old"))
    data_in.mkdir()
    with pytest.raises(SpoolError, match="was replaced"):
        spool.scan()


def test_a_file_in_place_of_the_directory_is_an_error(tmp_path) -> None:
    put(tmp_path, "file")
    rejected = Rejected(tmp_path / "rejected")
    spool = Spool(tmp_path / "file", max_packet=1, checksum="ignore", rejected=rejected)
    with pytest.raises(SpoolError, match="Not a directory"):
        spool.scan()


@pytest.mark.parametrize("count", [5_000, pytest.param(60_000, marks=pytest.mark.long)])
def test_thousands_of_files_are_listed_whole(spool, data_in, count: int) -> None:
    one = data_in / "host.0.data"
    one.write_bytes(WHOLE)
    for number in range(1, count):
        os.link(one, data_in / f"host.{number}.data")
    listed = spool.scan()
    assert [file.number for file in listed] == list(range(count))


def test_an_entry_of_which_the_disk_knows_nothing_does_not_hide_the_others(
    spool, data_in, monkeypatch
) -> None:
    put(data_in, "bad.1.data")
    put(data_in, "good.1.data")
    real_packet_file = Listing._packet_file

    def judge(self: Listing, entry: os.DirEntry[str]):
        if entry.name.startswith("bad"):
            raise OSError(errno.EIO, "Input/output error")
        return real_packet_file(self, entry)

    with monkeypatch.context() as patch:
        patch.setattr(Listing, "_packet_file", judge)
        assert names(spool) == ["good.1.data"]
    assert dict(spool.unreadable) == {"bad.1.data": "Input/output error"}
    assert names(spool) == ["bad.1.data", "good.1.data"]
