"""Reading packet files: from the drop directory to parsed packets, in batches.

:class:`PacketReader` reads and parses files and changes nothing, so it can run anywhere.  A few
packets are parsed in the worker's process, by :class:`ParserThread`.  A backlog is read in a
process of its own, one batch ahead of the database, by :class:`BacklogReader`: parsing holds
Python's interpreter lock, so a thread could not parse while the worker evaluates and writes.

That process (``python -m dataserver.ingest.read``) only reads, so nothing is lost whatever happens
to it, and it ends when its input is closed, however the worker ends.  If it dies, it is replaced
and its batch is read file by file.  A file that kills it twice, although it answered in between,
is rejected.  If no process can be kept running, the worker reads the files itself.

lxml keeps every tag name that it has seen for the lifetime of its thread, and uploaders choose
the names.  So both the thread and the process are replaced before they have grown too much.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from datetime import tzinfo
from multiprocessing.connection import Connection
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from dataserver.config.timezone import system_zone, zone_named
from dataserver.errors import IncompletePacket, PacketError, Reason, SpoolError
from dataserver.failpoints import reach
from dataserver.model import Arrival, Module, Packet
from dataserver.packet.parse import parse
from dataserver.rules.times import packet_time
from dataserver.spool.directory import Spool
from dataserver.spool.files import SpoolFile, Unreadable, Vanished
from dataserver.spool.rejected import Rejected

log = logging.getLogger(__name__)

#: A parser thread is replaced after this many bytes of packets.  A name takes about ten times as
#: much memory as it takes space in a packet.
BYTES_PER_THREAD = 4 * 2**20
#: A reader process that uses more memory than this (bytes) is replaced.
MEMORY_LIMIT = 256 * 2**20


class Rejection(NamedTuple):
    """A file to reject; ``agent`` is its agent's name, or None if that could not be read."""

    file: SpoolFile
    error: PacketError
    agent: str | None = None

    @property
    def is_cut_upload(self) -> bool:
        """Whether the upload ended early, maybe before its first byte, which is no mistake."""
        return self.error.reason is Reason.INCOMPLETE or not self.file.size


@dataclass(slots=True)
class ReadBatch:
    """The contents of the files of one batch."""

    arrivals: list[Arrival] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    incomplete: list[tuple[SpoolFile, IncompletePacket]] = field(default_factory=list)
    #: Files that cannot be read now, by name, with the reason.
    unreadable: dict[str, str] = field(default_factory=dict)
    repairs: Counter[str] = field(default_factory=Counter)
    unstored: Counter[str] = field(default_factory=Counter)
    bytes: int = 0

    def add(self, other: ReadBatch) -> None:
        """Append the contents of ``other``."""
        self.arrivals += other.arrivals
        self.rejections += other.rejections
        self.incomplete += other.incomplete
        self.unreadable |= other.unreadable
        self.repairs += other.repairs
        self.unstored += other.unstored
        self.bytes += other.bytes


def batches(
    groups: Iterable[Sequence[SpoolFile]], packets: int, size: int
) -> Iterator[list[SpoolFile]]:
    """Cut the queue into batches of about ``packets`` files and at most ``size`` bytes.

    The queued files of one agent (a group) stay together up to four times ``packets``, so that
    its packets can be put in order and its state is written once.
    """
    batch: list[SpoolFile] = []
    filled = 0
    for group in groups:
        for index, file in enumerate(group):
            full = len(batch) >= (packets if index == 0 else 4 * packets)
            if batch and (full or filled + file.size > size):
                yield batch
                batch, filled = [], 0
            batch.append(file)
            filled += file.size
    if batch:
        yield batch


class PacketReader:
    """Reads and parses files; ``clock`` gives epoch seconds, ``max_ahead`` is in seconds."""

    def __init__(
        self, spool: Spool, zone: tzinfo, max_ahead: int, clock: Callable[[], float]
    ) -> None:
        self._spool = spool
        self._zone = zone
        self._max_ahead = max_ahead
        self._clock = clock

    def read(self, files: Iterable[SpoolFile]) -> ReadBatch:
        """Read and parse ``files``; files that have vanished are left out.  Raises SpoolError."""
        batch = ReadBatch()
        for file in files:
            try:
                reading = self._spool.read(file)
            except Vanished:
                continue
            except Unreadable as error:
                batch.unreadable[file.name] = str(error)
                continue
            except PacketError as error:
                batch.rejections.append(Rejection(file, error))
                continue
            if reading.content is not None:
                batch.bytes += len(reading.content)
                self._parse(batch, reading.file, reading.content)
        return batch

    def _parse(self, batch: ReadBatch, file: SpoolFile, content: bytes) -> None:
        """Parse the content of one file and add the result to ``batch``."""
        reach(f"inside-read {file.name}")
        modified = file.mtime_ns // 1_000_000_000
        try:
            packet = parse(content)
            time = packet_time(packet, zone=self._zone, number=file.number, modified=modified)
        except IncompletePacket as error:
            batch.incomplete.append((file, error))
            return
        except PacketError as error:
            batch.rejections.append(Rejection(file, error))
            return
        except Exception as error:
            log.exception("internal error while reading %a: please report it", file.name)
            why = f"internal error while reading it: {error!r:.200}: please report it"
            batch.rejections.append(Rejection(file, PacketError(Reason.REFUSED, why)))
            return
        if time is not None and time > self._clock() + self._max_ahead:
            batch.rejections.append(Rejection(file, self._ahead(packet), packet.agent_name))
            return
        if packet.repairs:
            batch.repairs.update(packet.repairs)
        if packet.unstored:
            batch.unstored.update(dict(packet.unstored))
        batch.arrivals.append(Arrival(packet, time, file.number, modified, file))

    def _ahead(self, packet: Packet) -> PacketError:
        whose = f"the packet's time {packet.timestamp}" if packet.timestamp else "the file's time"
        return PacketError(
            Reason.CLOCK,
            f"{whose} is more than {self._max_ahead} s ahead of the "
            "server's clock: set one of the two, then retry",
        )


class ParserThread:
    """Calls ``read`` in a thread that is replaced now and then; for one caller at a time."""

    def __init__(
        self,
        read: Callable[[Iterable[SpoolFile]], ReadBatch],
        bytes_per_thread: int = BYTES_PER_THREAD,
    ) -> None:
        self._read = read
        self._bytes_per_thread = bytes_per_thread
        self._thread: ThreadPoolExecutor | None = None
        self._bytes = 0

    def read(self, files: Iterable[SpoolFile]) -> ReadBatch:
        """Read ``files`` in the thread."""
        if self._bytes >= self._bytes_per_thread:
            self.close()
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="parser")
        batch = self._thread.submit(self._read, files).result()
        self._bytes += batch.bytes
        return batch

    def close(self) -> None:
        """End the thread; the next call of ``read`` starts another one."""
        thread, self._thread, self._bytes = self._thread, None, 0
        if thread is not None:
            thread.shutdown()


# -- the worker's side of the reader process --


class ReaderDied(Exception):
    """The reader process ended before it answered."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """The settings that reading depends on; see the settings of the same names."""

    data_in: str
    max_packet: int
    checksum: Literal["ignore", "verify"]
    max_ahead: int
    timezone: str


class BacklogReader:
    """Reads batches in a process: ``begin`` a batch, do something else, ``finish`` it.

    ``here`` reads files in the worker's process; ``memory_limit`` is in bytes.
    """

    def __init__(
        self,
        options: ReadOptions,
        here: Callable[[Sequence[SpoolFile]], ReadBatch],
        memory_limit: int = MEMORY_LIMIT,
    ) -> None:
        self._options = options
        self._here = here
        self._memory_limit = memory_limit
        self._process: _Process | None = None
        self._files: Sequence[SpoolFile] | None = None
        self._usable = True

    @property
    def pid(self) -> int | None:
        """The id of the process, or None if none is running."""
        return self._process.pid if self._process is not None else None

    def begin(self, files: Sequence[SpoolFile]) -> None:
        """Start reading ``files``."""
        assert self._files is None
        self._files = files
        if self._usable:
            self._send(files)

    def finish(self) -> ReadBatch:
        """Wait for the batch under way and return it.  Raises SpoolError."""
        assert self._files is not None
        files, self._files = self._files, None
        if not self._usable:
            return self._here(files)
        try:
            return self._receive()
        except ReaderDied:
            log.warning("the reader process died; reading its %d files one by one", len(files))
        return self._one_by_one(files)

    def cancel(self) -> None:
        """Forget the batch under way, if there is one."""
        if self._files is not None:
            self._files = None
            self.close()

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.close()

    def _one_by_one(self, files: Sequence[SpoolFile]) -> ReadBatch:
        found = ReadBatch()
        for place, file in enumerate(files):
            batch = self._try([file]) or (self._answers() and self._try([file])) or None
            if batch is None and not self._answers():
                log.error("the reader process keeps crashing; reading in the main process instead")
                self._usable = False
                found.add(self._here(files[place:]))
                break
            if batch is None:
                error = PacketError(
                    Reason.MALFORMED, "parsing this file crashes the reader process"
                )
                batch = ReadBatch(rejections=[Rejection(file, error)])
            found.add(batch)
        return found

    def _answers(self) -> bool:
        """Whether a process that has nothing to read answers."""
        return self._try([]) is not None

    def _try(self, files: Sequence[SpoolFile]) -> ReadBatch | None:
        self._send(files)
        try:
            return self._receive()
        except ReaderDied:
            return None

    def _send(self, files: Sequence[SpoolFile]) -> None:
        try:
            if self._process is None:
                self._process = _Process(self._options)
        except OSError as error:
            log.warning("cannot start the process that reads a backlog: %s", error)
        else:
            self._process.send([tuple(file) for file in files])

    def _receive(self) -> ReadBatch:
        if self._process is None:
            raise ReaderDied
        try:
            batch, memory = self._process.receive()
        except ReaderDied:
            self.close()
            raise
        if memory > self._memory_limit:
            self.close()
        return batch


class _Process:
    """One reader process and the connections to it."""

    def __init__(self, options: ReadOptions) -> None:
        its_input, into = os.pipe()
        out, its_output = os.pipe()
        try:
            self._popen = subprocess.Popen(
                [sys.executable, "-P", "-m", "dataserver.ingest.read"],
                stdin=its_input,
                stdout=its_output,
            )
        finally:
            os.close(its_input)
            os.close(its_output)
            # The connections close these, also if the process could not be started.
            self._into = Connection(into, readable=False)
            self._out = Connection(out, writable=False)
        self.pid = self._popen.pid
        self.send(options)

    def send(self, message: object) -> None:
        """Send one message; if the process has died, ``receive`` notices."""
        with contextlib.suppress(OSError):
            self._into.send_bytes(pickle.dumps(message))

    def receive(self) -> tuple[ReadBatch, int]:
        """Wait for the answer; returns the batch and the memory of the process in bytes.

        Raises ReaderDied, and SpoolError if the directory cannot be used.
        """
        try:
            answer, memory = pickle.loads(self._out.recv_bytes())
        except (EOFError, OSError) as error:
            raise ReaderDied from error
        if isinstance(answer, str):
            raise SpoolError(answer)
        return _unpacked(answer), memory

    def close(self) -> None:
        """Kill the process: it only reads, and it may be in the middle of a large answer."""
        self._popen.kill()
        self._popen.wait()
        self._into.close()
        self._out.close()


# -- the reader process --


def main() -> None:
    """Read batches until the input ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # for the worker, which then closes the input
    into = Connection(os.dup(0), writable=False)
    out = Connection(os.dup(1), readable=False)
    os.dup2(2, 1)  # anything that prints must not print into an answer
    try:
        options = cast("ReadOptions", pickle.loads(into.recv_bytes()))
        reader = reader_for(options)
        while True:
            files = [SpoolFile._make(each) for each in pickle.loads(into.recv_bytes())]
            try:
                answer: object = _packed(reader.read(files))
            except SpoolError as error:
                answer = str(error)
            out.send_bytes(pickle.dumps((answer, resident_memory()), pickle.HIGHEST_PROTOCOL))
    except (EOFError, BrokenPipeError):
        return


def reader_for(options: ReadOptions) -> PacketReader:
    """A reader with these options."""
    path = Path(options.data_in)
    spool = Spool(
        path,
        max_packet=options.max_packet,
        checksum=options.checksum,
        rejected=Rejected(path),  # reading rejects no file
    )
    zone = zone_named(options.timezone) if options.timezone else system_zone(os.environ)
    return PacketReader(spool, zone, options.max_ahead, time.time)


def resident_memory() -> int:
    """The resident memory of this process in bytes (proc(5)).

    Not getrusage's peak, which is inherited from the parent process.
    """
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * resource.getpagesize()


# -- batches as plain tuples: pickling these takes a fifth of the time of pickling the records --

_FIELDS = tuple(each.name for each in fields(Packet))
_MODULES = _FIELDS.index("modules")
_fields_of = attrgetter(*_FIELDS)


def _packed(batch: ReadBatch) -> tuple[Any, ...]:
    return (
        [_packed_arrival(arrival) for arrival in batch.arrivals],
        [
            (tuple(each.file), each.error.reason, each.error.message, each.agent)
            for each in batch.rejections
        ],
        [(tuple(file), error.message, error.reason) for file, error in batch.incomplete],
        batch.unreadable,
        batch.repairs,
        batch.unstored,
        batch.bytes,
    )


def _packed_arrival(arrival: Arrival) -> tuple[Any, ...]:
    packet = list(_fields_of(arrival.packet))
    packet[_MODULES] = [tuple(module) for module in packet[_MODULES]]
    file = tuple(cast("SpoolFile", arrival.token))
    return packet, arrival.time, arrival.number, arrival.arrived, file


def _unpacked(answer: tuple[Any, ...]) -> ReadBatch:
    arrivals, rejections, incomplete, unreadable, repairs, unstored, size = answer
    return ReadBatch(
        [_unpacked_arrival(*each) for each in arrivals],
        [
            Rejection(SpoolFile._make(f), PacketError(why, text), agent)
            for f, why, text, agent in rejections
        ],
        [(SpoolFile._make(f), IncompletePacket(text, reason=why)) for f, text, why in incomplete],
        unreadable,
        repairs,
        unstored,
        size,
    )


def _unpacked_arrival(
    packet: list[Any], time: int | None, number: int, arrived: int, file: tuple[Any, ...]
) -> Arrival:
    packet[_MODULES] = tuple(map(Module._make, packet[_MODULES]))
    return Arrival(Packet(*packet), time, number, arrived, SpoolFile._make(file))


if __name__ == "__main__":
    main()
