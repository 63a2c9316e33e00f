"""The reader process: it reads what the worker would, and its death costs nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from dataserver import failpoints
from dataserver.errors import Reason, SpoolError
from dataserver.ingest import read
from dataserver.ingest.read import BacklogReader, ReadBatch, ReadOptions, reader_for
from dataserver.model import Packet
from dataserver.spool.directory import Spool
from dataserver.spool.files import SpoolFile
from dataserver.spool.rejected import Rejected
from tests.support.waiting import PATIENCE

GOOD = (
    "<agent_data agent_name='a{n}' timestamp='2026/01/01 00:0{n}:00' interval='300'>"
    "<module><name>m</name><type>generic_data</type><data>{n}</data></module>"
    "<module><name>l</name><type>generic_data</type><datalist>"
    "<data><value>1</value><timestamp>2026/01/01 00:00:00</timestamp></data></datalist></module>"
    "<inventory><inventory_module><name>S</name><datalist><data>x</data></datalist>"
    "</inventory_module></inventory><cmd_report>c</cmd_report></agent_data>"
)


@pytest.fixture
def options(tmp_path: Path) -> ReadOptions:
    folder = tmp_path / "data_in"
    folder.mkdir()
    return ReadOptions(str(folder), 10_000, "ignore", 86_400, "UTC")


@pytest.fixture
def reader(options: ReadOptions) -> Iterator[BacklogReader]:
    reader = BacklogReader(options, not_here)
    yield reader
    reader.cancel()
    reader.close()


def not_here(files: Sequence[SpoolFile]) -> ReadBatch:
    """Reading in the worker, where it must not be needed."""
    raise AssertionError(f"{len(files)} files were read in the worker")


def put(options: ReadOptions, contents: dict[str, bytes]) -> list[SpoolFile]:
    """Files in the drop directory, as a scan lists them."""
    folder = Path(options.data_in)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    spool = Spool(
        folder, max_packet=options.max_packet, checksum="ignore", rejected=Rejected(folder / "r")
    )
    with spool:
        return sorted(spool.scan(), key=lambda file: file.name)


def names(batch: ReadBatch) -> list[str]:
    return [arrival.packet.agent_name for arrival in batch.arrivals]


def test_the_process_finds_what_reading_here_finds(
    options: ReadOptions, reader: BacklogReader
) -> None:
    files = put(
        options,
        {
            "a1.1.data": GOOD.format(n=1).encode(),
            "a2.2.data": GOOD.format(n=2).encode("utf-16"),
            "bad.3.data": b"no packet",
            "cut.4.data": GOOD.format(n=4).encode()[:-5],
            "empty.5.data": b"",
            "large.6.data": b"x" * 10_001,
            "repaired.7.data": GOOD.format(n=7).replace("a7", "a & b").encode(),
        },
    )
    reader.begin(files)
    there, here = reader.finish(), reader_for(options).read(files)
    assert names(there) == ["a1", "a2", "a & b"]
    # Whether a file is fresh depends on when it is read.
    same = [[each.packet, each.time, each.number, each.arrived] for each in there.arrivals]
    assert same == [[each.packet, each.time, each.number, each.arrived] for each in here.arrivals]
    assert [(bad.file.name, bad.error.reason, bad.error.message) for bad in there.rejections] == [
        (bad.file.name, bad.error.reason, bad.error.message) for bad in here.rejections
    ]
    assert [(file.name, error.reason) for file, error in there.incomplete] == [
        ("cut.4.data", Reason.INCOMPLETE),
        ("empty.5.data", Reason.MALFORMED),
    ]
    assert (there.repairs, there.unstored, there.bytes) == (
        here.repairs,
        here.unstored,
        here.bytes,
    )


def test_a_killed_process_is_replaced_and_its_batch_read_again(
    options: ReadOptions, reader: BacklogReader
) -> None:
    files = put(options, {f"a{n}.{n}.data": GOOD.format(n=n).encode() for n in range(1, 6)})
    reader.begin(files[:1])
    reader.finish()
    first = reader.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
    reader.begin(files)
    assert names(reader.finish()) == ["a1", "a2", "a3", "a4", "a5"]
    assert reader.pid != first


def test_a_file_over_which_it_dies_twice_is_rejected_alone(
    options: ReadOptions, reader: BacklogReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = put(options, {f"a{n}.{n}.data": GOOD.format(n=n).encode() for n in range(1, 6)})
    monkeypatch.setenv(failpoints.VARIABLE, "inside-read a3.3.data")
    reader.begin(files)
    batch = reader.finish()
    assert names(batch) == ["a1", "a2", "a4", "a5"]
    assert [(bad.file.name, bad.error.reason) for bad in batch.rejections] == [
        ("a3.3.data", Reason.MALFORMED)
    ]


def test_a_process_that_took_much_memory_is_replaced(options: ReadOptions) -> None:
    files = put(options, {f"a{n}.{n}.data": GOOD.format(n=n).encode() for n in range(1, 4)})
    reader = BacklogReader(options, not_here, memory_limit=1)
    for _ in range(2):
        reader.begin(files)
        assert reader.pid is not None
        assert len(reader.finish().arrivals) == 3
        assert reader.pid is None
    reader.close()


def test_where_no_process_can_be_kept_no_packet_is_blamed_and_the_worker_reads(
    options: ReadOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = put(options, {f"a{n}.{n}.data": GOOD.format(n=n).encode() for n in range(1, 6)})
    here = reader_for(options)
    reader = BacklogReader(options, here.read)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    for _ in range(2):
        reader.begin(files)
        batch = reader.finish()
        assert names(batch) == ["a1", "a2", "a3", "a4", "a5"]
        assert batch.rejections == []
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    other = BacklogReader(options, here.read)
    other.begin(files)
    assert names(other.finish()) == ["a1", "a2", "a3", "a4", "a5"]


def test_a_directory_that_cannot_be_used_is_no_fault_of_its_files(
    options: ReadOptions, reader: BacklogReader
) -> None:
    files = put(options, {"a1.1.data": GOOD.format(n=1).encode()})
    Path(options.data_in).rename(Path(options.data_in).with_name("elsewhere"))
    reader.begin(files)
    with pytest.raises(SpoolError, match="data_in"):
        reader.finish()


def test_a_packet_over_which_our_own_code_stumbles_is_rejected_alone(
    options: ReadOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = put(options, {f"a{n}.{n}.data": GOOD.format(n=n).encode() for n in range(1, 4)})
    real = read.parse

    def stumbling(content: bytes) -> Packet:
        if b"a2" in content:
            raise RecursionError("too deep")
        return real(content)

    monkeypatch.setattr(read, "parse", stumbling)
    batch = reader_for(options).read(files)
    assert names(batch) == ["a1", "a3"]
    assert [(bad.file.name, bad.error.reason) for bad in batch.rejections] == [
        ("a2.2.data", Reason.REFUSED)
    ]


def test_a_cancelled_batch_leaves_no_process_and_no_answer(
    options: ReadOptions, reader: BacklogReader
) -> None:
    files = put(options, {f"a{n}.{n}.data": GOOD.format(n=n).encode() for n in range(1, 4)})
    reader.begin(files)
    pid = reader.pid
    reader.cancel()
    assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    reader.begin(files[:1])
    assert names(reader.finish()) == ["a1"]


def test_it_ends_with_its_input_and_not_by_the_signals_that_stop_the_worker(
    options: ReadOptions, reader: BacklogReader
) -> None:
    files = put(options, {"a1.1.data": GOOD.format(n=1).encode()})
    reader.begin(files)
    reader.finish()
    pid = reader.pid
    assert pid is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(pid, number)
    reader.begin(files)
    assert names(reader.finish()) == ["a1"]
    assert reader.pid == pid
    process = reader._process
    assert process is not None
    process._into.close()
    assert process._popen.wait(PATIENCE) == 0


def test_the_process_loads_neither_the_store_nor_sqlalchemy() -> None:
    program = "import sys, dataserver.ingest.read; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout.split()
    assert "lxml.etree" in loaded
    assert not {"sqlalchemy", "dataserver.store"} & set(loaded)
