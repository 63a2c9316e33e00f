"""Files that are set aside: whole, with their reason, bounded, and nothing lost on the way."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataserver.config.settings import Settings
from dataserver.errors import Reason, SpoolError, UsageError
from dataserver.ingest.periodic import Maintenance
from dataserver.spool import rejected as aside
from dataserver.spool.directory import Spool
from dataserver.spool.files import SpoolFile
from dataserver.spool.rejected import Rejected, new_id
from tests.support.clock import Clock
from tests.support.failures import failures

CONTENT = b"\x00\xffnot a packet"
SHM = Path("/dev/shm")
ONE, TWO = "one file system", "two file systems"

#: What moves a file from or to the drop directory: a rename or a copy.
on_both = pytest.mark.parametrize("var", [ONE, TWO], indirect=True)


@pytest.fixture
def clock() -> Clock:
    return Clock(1_700_000_000.0)


@pytest.fixture
def data_in(tmp_path: Path) -> Path:
    path = tmp_path / "data_in"
    path.mkdir()
    return path


@pytest.fixture
def var(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """On the file system of the drop directory; for tests of :data:`on_both`, on another too."""
    if getattr(request, "param", ONE) == ONE:
        yield tmp_path / "var"
        return
    with tempfile.TemporaryDirectory(dir=SHM) as far:
        assert os.stat(far).st_dev != tmp_path.stat().st_dev
        yield Path(far) / "var"


@pytest.fixture
def rejected(var: Path, clock: Clock) -> Rejected:
    return Rejected(var / "rejected", server="ingest", clock=clock)


@pytest.fixture
def spool(data_in: Path, rejected: Rejected) -> Iterator[Spool]:
    with Spool(data_in, max_packet=100, checksum="ignore", rejected=rejected) as spool:
        yield spool


def drop_in(spool: Spool, name: str = "a.1.data", content: bytes = CONTENT) -> SpoolFile:
    (spool.path / name).write_bytes(content)
    (file,) = (file for file in spool.scan() if file.name == name)
    return file


def reject(spool: Spool, name: str = "a.1.data", content: bytes = CONTENT) -> str:
    assert spool.reject(drop_in(spool, name, content), Reason.MALFORMED, "no root")
    return spool._rejected.list()[-1].id


@on_both
def test_a_rejected_file_is_kept_whole_with_its_reason(spool, rejected, data_in, clock) -> None:
    file = spool.read(drop_in(spool)).file
    assert spool.reject(file, Reason.CLOCK, "a year ahead", agent="host")
    assert list(data_in.iterdir()) == []
    (record,) = rejected.list()
    assert (record.reason, record.detail, record.agent) == (Reason.CLOCK, "a year ahead", "host")
    assert (record.name, record.size, record.server) == ("a.1.data", len(CONTENT), "ingest")
    assert record.when == clock.now
    assert record.mtime == pytest.approx(file.mtime_ns / 1e9, abs=0.001)
    assert rejected.content(record.id) == CONTENT


def test_the_reason_file_is_json_for_everyone(spool, rejected) -> None:
    rid = reject(spool)
    fields = json.loads((rejected.path / f"{rid}.json").read_text())
    assert fields["reason"] == "malformed"
    assert fields["when"] == "2023-11-14T22:13:20.000+00:00"


@on_both
def test_two_rejected_files_of_one_name_are_both_kept(spool, rejected) -> None:
    reject(spool, content=b"first")
    reject(spool, content=b"second")
    assert sorted(rejected.content(r.id) for r in rejected.list()) == [b"first", b"second"]


@on_both
def test_a_file_that_was_never_read_can_be_rejected(spool, rejected) -> None:
    file = drop_in(spool, content=b"x" * 101)
    assert spool.reject(file, Reason.TOO_LARGE, "101 bytes")
    assert rejected.list()[0].size == 101


@on_both
def test_a_hostile_name_stands_only_inside_the_json(spool, rejected) -> None:
    name = os.fsdecode(b"x..\\\n\xff'\";rm -rf ~.1.data")
    reject(spool, name)
    assert rejected.list()[0].name == name
    assert all(set(path.name) <= set("0123456789abcdefghijklmnopqrstuvwxyz-.")
               for path in rejected.path.iterdir())  # fmt: skip


@on_both
def test_the_checksum_is_kept_with_its_packet(spool, rejected, data_in) -> None:
    (data_in / "a.1.checksum").write_bytes(b"0" * 32)
    rid = reject(spool)
    assert list(data_in.iterdir()) == []
    assert (rejected.path / f"{rid}.checksum").read_bytes() == b"0" * 32


@on_both
def test_a_file_that_was_replaced_is_not_rejected_in_its_place(spool, rejected, data_in) -> None:
    file = drop_in(spool)
    (data_in / "a.1.data").write_bytes(b"a new packet")
    assert not spool.reject(file, Reason.MALFORMED, "no root")
    assert (data_in / "a.1.data").read_bytes() == b"a new packet"
    assert rejected.list() == ()


@on_both
def test_a_file_replaced_at_the_last_moment_is_left(spool, rejected, data_in, monkeypatch) -> None:
    path = data_in / "a.1.data"
    file = drop_in(spool)
    monkeypatch.setattr(aside, "reach", lambda _: path.write_bytes(b"a new packet"))
    spool.reject(file, Reason.MALFORMED, "no root")
    assert path.read_bytes() == b"a new packet"
    assert all(rejected.content(record.id) == CONTENT for record in rejected.list())


@on_both
def test_a_file_that_is_gone_is_not_rejected(spool, rejected, data_in) -> None:
    file = drop_in(spool)
    (data_in / "a.1.data").unlink()
    assert not spool.reject(file, Reason.MALFORMED, "no root")
    assert rejected.list() == ()


@on_both
def test_a_full_disk_leaves_the_file_where_it_is_and_nothing_half_done(
    spool, rejected, data_in, monkeypatch
) -> None:
    def no_space(fd: int) -> None:
        raise OSError(28, "No space left on device")

    file = drop_in(spool)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        with pytest.raises(SpoolError, match="No space left"):
            spool.reject(file, Reason.MALFORMED, "no root")
    assert (data_in / "a.1.data").read_bytes() == CONTENT
    assert list(rejected.path.iterdir()) == []


@on_both
def test_the_content_and_its_reason_are_synced_before_the_file_leaves(
    spool, rejected, data_in, monkeypatch
) -> None:
    synced = set()
    real_fsync = os.fsync

    def fsync(fd: int) -> None:
        if (data_in / "a.1.data").exists():
            synced.add(os.path.splitext(os.readlink(f"/proc/self/fd/{fd}").split("/")[-1])[0])
        real_fsync(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    rid = reject(spool)
    assert {f"{rid}.json", "rejected"} <= synced
    assert {"a.1", rid} & synced


class Died(BaseException):
    """Stands for SIGKILL: nothing in between may catch it."""


@on_both
def test_a_crash_inside_of_a_rejection_loses_nothing_and_leaves_nothing(
    spool, rejected, data_in, monkeypatch
) -> None:
    def die(_: str) -> None:
        raise Died

    file = drop_in(spool)
    (data_in / "a.1.checksum").write_bytes(b"0" * 32)
    with monkeypatch.context() as patch:
        patch.setattr(aside, "reach", die)
        with pytest.raises(Died):
            spool.reject(file, Reason.MALFORMED, "no root")
    assert (data_in / "a.1.data").read_bytes() == CONTENT
    assert rejected.list() == ()
    assert spool.recover() == 1
    assert list(rejected.path.iterdir()) == []
    assert sorted(path.name for path in data_in.iterdir()) == ["a.1.checksum", "a.1.data"]


def test_counts_are_by_reason(spool, rejected) -> None:
    reject(spool)
    reject(spool)
    spool.reject(drop_in(spool), Reason.TOO_OLD, "")
    assert rejected.counts() == {Reason.MALFORMED: 2, Reason.TOO_OLD: 1}


def test_nothing_is_there_before_the_first(rejected) -> None:
    assert rejected.list() == ()
    assert rejected.counts() == {}
    assert rejected.recover() == 0
    assert not rejected.path.exists()


def test_a_damaged_reason_file_does_not_hide_its_packet(spool, rejected, clock) -> None:
    rid = reject(spool)
    (rejected.path / f"{rid}.json").write_bytes(b"{")
    (record,) = rejected.list()
    assert (record.reason, record.size, record.when) == (Reason.MALFORMED, len(CONTENT), clock.now)
    assert rejected.content(rid) == CONTENT


@on_both
def test_a_retried_packet_is_back_under_its_name_with_its_time(spool, rejected, data_in) -> None:
    (data_in / "a.1.checksum").write_bytes(b"0" * 32)
    file = drop_in(spool)
    spool.reject(file, Reason.CLOCK, "ahead")
    assert rejected.retry(rejected.list()[0].id, data_in) == "a.1.data"
    assert (data_in / "a.1.data").read_bytes() == CONTENT
    assert (data_in / "a.1.data").stat().st_mtime_ns == file.mtime_ns
    assert (data_in / "a.1.checksum").read_bytes() == b"0" * 32
    assert list(rejected.path.iterdir()) == []


@on_both
def test_a_retry_never_overwrites_a_packet(spool, rejected, data_in) -> None:
    (data_in / "a.1.checksum").write_bytes(b"0" * 32)
    rid = reject(spool)
    (data_in / "a.1.data").write_bytes(b"a new packet")
    with pytest.raises(UsageError, match=r"has a file 'a\.1\.data' already"):
        rejected.retry(rid, data_in)
    assert [path.name for path in data_in.iterdir()] == ["a.1.data"]
    assert (data_in / "a.1.data").read_bytes() == b"a new packet"
    assert rejected.content(rid) == CONTENT


def test_a_retry_goes_nowhere_but_into_the_drop_directory(spool, rejected, data_in) -> None:
    rid = reject(spool)
    reason = rejected.path / f"{rid}.json"

    def check(name: str) -> None:
        reason.write_text(json.dumps(json.loads(reason.read_text()) | {"name": name}))
        with pytest.raises(UsageError, match="no usable file name"):
            rejected.retry(rid, data_in)
        assert rejected.content(rid) == CONTENT

    assert failures(check, ["../a.1.data", "x/a.1.data", ".bashrc", "a.data", ""]) == {}


def test_what_a_crash_left_of_a_retry_is_removed_at_the_next_start(spool, rejected, data_in):
    (data_in / ".retry-1700000000000-abcdef-clock.data").write_bytes(b"ha")
    assert spool.recover() == 1
    assert list(data_in.iterdir()) == []


HEAD, TAIL = b"<agent_data agent_name='a'>", b"</agent_data>"


def stalled(spool: Spool) -> int:
    """Reject a cut upload; the descriptor of the program that still writes it."""
    file = drop_in(spool, content=HEAD)
    writer = os.open(spool.path / file.name, os.O_WRONLY | os.O_APPEND)
    assert spool.reject(file, Reason.INCOMPLETE, "no closing tag")
    return writer


def test_an_upload_that_goes_on_after_it_was_rejected_comes_back(spool, rejected, data_in, clock):
    writer = stalled(spool)
    assert rejected.return_completed(data_in) == ()
    os.write(writer, b"<!-- more -->")
    assert rejected.return_completed(data_in) == ()
    os.write(writer, TAIL)
    os.close(writer)
    clock.advance(3_600)
    assert rejected.return_completed(data_in) == ("a.1.data",)
    assert (data_in / "a.1.data").read_bytes() == HEAD + b"<!-- more -->" + TAIL
    assert list(rejected.path.iterdir()) == []


def test_a_file_that_did_not_grow_stays_rejected(spool, rejected, data_in) -> None:
    # Its last bytes are the closing tag, but inside of a text: it would be rejected for ever.
    file = drop_in(spool, content=HEAD + b"<![CDATA[" + TAIL)
    assert spool.reject(file, Reason.INCOMPLETE, "no closing tag")
    os.utime(rejected.path / f"{rejected.list()[0].id}.data", (2e9, 2e9))
    assert rejected.return_completed(data_in) == ()


def test_only_cut_uploads_come_back_by_themselves(spool, rejected, data_in) -> None:
    file = drop_in(spool, content=HEAD)
    spool.reject(file, Reason.CLOCK, "ahead")
    (rejected.path / f"{rejected.list()[0].id}.data").write_bytes(HEAD + TAIL)
    assert rejected.return_completed(data_in) == ()


def test_a_completed_upload_waits_while_a_newer_one_has_its_name(spool, rejected, data_in) -> None:
    writer = stalled(spool)
    os.write(writer, TAIL)
    os.close(writer)
    (data_in / "a.1.data").write_bytes(b"newer")
    assert rejected.return_completed(data_in) == ()
    (data_in / "a.1.data").unlink()
    assert rejected.return_completed(data_in) == ("a.1.data",)


def test_maintenance_brings_a_completed_upload_back(
    spool, rejected, data_in, sqlite_database
) -> None:
    sqlite_database.prepare()
    settings = Settings(data_in=str(data_in))
    clocks = (lambda: 0.0, lambda: 0.0)
    maintenance = Maintenance(sqlite_database.engine(), rejected, settings, *clocks)
    writer = stalled(spool)
    os.write(writer, TAIL)
    os.close(writer)
    assert maintenance.run() == 0
    assert (data_in / "a.1.data").exists()


def test_a_dropped_packet_is_gone(spool, rejected) -> None:
    rid = reject(spool)
    rejected.drop(rid)
    assert list(rejected.path.iterdir()) == []


def test_an_id_that_is_none_is_a_usage_error(rejected) -> None:
    def check(rid: str) -> None:
        for use in (rejected.show, rejected.content, rejected.drop):
            with pytest.raises(UsageError, match="no rejected packet"):
                use(rid)

    ids = ["1700000000000-abcdef-clock", "../../etc/passwd", "", "x\0y"]
    assert failures(check, ids) == {}


def test_pruning_removes_what_is_older(spool, rejected, clock) -> None:
    old = reject(spool, content=b"old")
    clock.advance(10 * 86_400)
    young = reject(spool, content=b"young")
    clock.advance(86_400)
    assert rejected.prune(max_age_days=7, max_bytes=10**9) == 1
    assert [record.id for record in rejected.list()] == [young]
    assert not list(rejected.path.glob(f"{old}*"))


def test_pruning_removes_the_oldest_until_the_rest_is_small_enough(spool, rejected, clock) -> None:
    ids = []
    for _ in range(5):
        ids.append(reject(spool, content=b"x" * 100_000))
        clock.advance(1)
    assert rejected.prune(max_age_days=7, max_bytes=250_000) == 3
    assert [record.id for record in rejected.list()] == ids[3:]


def test_pruning_removes_nothing_that_is_within_bounds(spool, rejected) -> None:
    reject(spool)
    assert rejected.prune(max_age_days=7, max_bytes=10_000) == 0


def test_one_packet_larger_than_the_bound_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    rejected = Rejected(tmp_path / "rejected")
    rejected.path.mkdir()
    ids = [new_id(1_000_000.0 + n, Reason.MALFORMED) for n in range(3)]
    for rid, size in zip(ids, (10, 10, 1_000), strict=True):
        (rejected.path / f"{rid}.data").write_bytes(b"x" * size)
    assert rejected.prune(1e9, 100) == 1
    assert sorted(rejected.ids()) == sorted(ids[:2])


def test_a_hole_of_a_terabyte_takes_no_other_packet_with_it(tmp_path: Path) -> None:
    rejected = Rejected(tmp_path / "rejected")
    rejected.path.mkdir()
    ids = [new_id(1_000_000.0 + n, Reason.TOO_LARGE) for n in range(3)]
    for rid in ids:
        (rejected.path / f"{rid}.data").write_bytes(b"x" * 10)
    os.truncate(rejected.path / f"{ids[1]}.data", 1 << 40)
    assert rejected.prune(1e9, 100_000) == 0
    assert rejected.content(ids[1], 12) == b"x" * 10 + bytes(2)
    assert next(rejected.pieces(ids[1])).startswith(b"x" * 10 + bytes(2))
