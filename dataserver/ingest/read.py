"""From files to packets: what a batch's files hold, and which of them are none.

It changes nothing, so it can be done anywhere: in the worker for a few files, in a process of
its own (:mod:`.reader`) for a backlog.
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

from dataserver.config import timezone as zone
from dataserver.errors import IncompletePacket, PacketError, Reason, SpoolError
from dataserver.failpoints import reach
from dataserver.model import Arrival, Module, Packet
from dataserver.packet.parse import parse
from dataserver.rules.times import packet_time
from dataserver.spool.directory import Spool
from dataserver.spool.files import SpoolFile, Unreadable, Vanished
from dataserver.spool.rejected import Rejected

log = logging.getLogger(__name__)


class Rejection(NamedTuple):
    """A file that is to be set aside; ``agent`` is its agent's name where it got that far."""

    file: SpoolFile
    error: PacketError
    agent: str | None = None

    @property
    def is_cut_upload(self) -> bool:
        """An upload that ended early, maybe before its first byte: nobody's mistake."""
        return self.error.reason is Reason.INCOMPLETE or not self.file.size


@dataclass(slots=True)
class ReadBatch:
    """What the files of one batch turned out to be."""

    arrivals: list[Arrival] = field(default_factory=list)
    bad: list[Rejection] = field(default_factory=list)
    incomplete: list[tuple[SpoolFile, IncompletePacket]] = field(default_factory=list)
    #: Files that cannot be read now, by name, with the reason.
    unreadable: dict[str, str] = field(default_factory=dict)
    repairs: Counter[str] = field(default_factory=Counter)
    unstored: Counter[str] = field(default_factory=Counter)
    bytes: int = 0

    def add(self, other: ReadBatch) -> None:
        """Take over what ``other`` holds."""
        self.arrivals += other.arrivals
        self.bad += other.bad
        self.incomplete += other.incomplete
        self.unreadable |= other.unreadable
        self.repairs += other.repairs
        self.unstored += other.unstored
        self.bytes += other.bytes


class PacketReader:
    """Reads and parses; ``clock`` gives epoch seconds, ``max_ahead`` is in seconds."""

    def __init__(
        self, spool: Spool, zone: tzinfo, max_ahead: int, clock: Callable[[], float]
    ) -> None:
        self._spool = spool
        self._zone = zone
        self._max_ahead = max_ahead
        self._clock = clock

    def load(self, files: Iterable[SpoolFile]) -> ReadBatch:
        """Everything that ``files`` hold."""
        found = ReadBatch()
        for file in files:
            try:
                reading = self._spool.read(file)
            except Vanished:
                continue
            except Unreadable as error:
                found.unreadable[file.name] = str(error)
                continue
            except PacketError as error:
                found.bad.append(Rejection(file, error))
                continue
            if reading.content is not None:
                found.bytes += len(reading.content)
                self._take(found, reading.file, reading.content)
        return found

    def _take(self, found: ReadBatch, file: SpoolFile, content: bytes) -> None:
        reach(f"inside-read {file.name}")
        modified = file.mtime_ns // 1_000_000_000
        try:
            packet = parse(content)
            time = packet_time(packet, zone=self._zone, number=file.number, modified=modified)
        except IncompletePacket as error:
            found.incomplete.append((file, error))
            return
        except PacketError as error:
            found.bad.append(Rejection(file, error))
            return
        except Exception as error:
            log.exception("reading %a", file.name)
            why = f"reading it fails with {error!r:.200}: please report it"
            found.bad.append(Rejection(file, PacketError(Reason.REFUSED, why)))
            return
        if time is not None and time > self._clock() + self._max_ahead:
            found.bad.append(Rejection(file, self._ahead(packet), packet.agent_name))
            return
        if packet.repairs:
            found.repairs.update(packet.repairs)
        if packet.unstored:
            found.unstored.update(dict(packet.unstored))
        found.arrivals.append(Arrival(packet, time, file.number, modified, file))

    def _ahead(self, packet: Packet) -> PacketError:
        whose = f"the packet's time {packet.timestamp}" if packet.timestamp else "the file's time"
        return PacketError(
            Reason.CLOCK,
            f"{whose} is more than {self._max_ahead} s ahead of the "
            "server's clock: set one of the two, then retry",
        )


def batches(
    groups: Iterable[Sequence[SpoolFile]], packets: int, size: int
) -> Iterator[list[SpoolFile]]:
    """Cut the queue into batches of about ``packets`` files and at most ``size`` bytes.

    What one agent has queued (a group) stays together up to four times ``packets``, so that
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


# -- reading a backlog in a process of its own, one batch ahead of the database
#
# Parsing holds Python's interpreter lock, so a thread could not do it while the worker
# evaluates and writes; a process can.  It only reads: whatever happens to it, nothing is lost.
# It ends with its input, that is with the worker, however that ends.  When it dies, it is
# replaced and its batch read file by file; a file over which it dies twice, having answered just
# before, is set aside.  Where no process can be kept at all, the worker reads itself.
#
# Between the processes travel plain tuples: pickling them takes a fifth of the time that the
# records themselves would take.

#: lxml remembers every tag name it has met for as long as its thread lives, and names are the
#: uploaders' choice: a process that takes so much memory (bytes) is replaced by a fresh one.
LARGEST = 256 * 2**20

_FIELDS = tuple(each.name for each in fields(Packet))
_MODULES = _FIELDS.index("modules")
_fields_of = attrgetter(*_FIELDS)


class ReaderDied(Exception):
    """The process ended before it answered."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What reading needs to know; see the settings of the same names."""

    data_in: str
    max_packet: int
    checksum: Literal["ignore", "verify"]
    max_ahead: int
    timezone: str


class _Process:
    """One reading process and the connections to it."""

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
            # Closed by their connections, also where there is no process.
            self._into = Connection(into, readable=False)
            self._out = Connection(out, writable=False)
        self.pid = self._popen.pid
        self.send(options)

    def send(self, what: object) -> None:
        """Send one message; that the process died is found out by ``receive``."""
        with contextlib.suppress(OSError):
            self._into.send_bytes(pickle.dumps(what))

    def receive(self) -> tuple[ReadBatch, int]:
        """Its answer, and the memory that it takes in bytes.

        Raises ReaderDied where there is none, SpoolError where the directory cannot be used.
        """
        try:
            answer, size = pickle.loads(self._out.recv_bytes())
        except (EOFError, OSError) as error:
            raise ReaderDied from error
        if isinstance(answer, str):
            raise SpoolError(answer)
        return _unpacked(answer), size

    def close(self) -> None:
        """End it; it only reads, and it may be in the middle of a large answer."""
        self._popen.kill()
        self._popen.wait()
        self._into.close()
        self._out.close()


class Reader:
    """The worker's end: ``begin`` a batch, do something else, ``finish`` it.

    ``here`` reads files in the worker; ``largest`` is in bytes, see :data:`LARGEST`.
    """

    def __init__(
        self,
        options: ReadOptions,
        here: Callable[[Sequence[SpoolFile]], ReadBatch],
        largest: int = LARGEST,
    ) -> None:
        self._options = options
        self._here = here
        self._largest = largest
        self._process: _Process | None = None
        self._batch: Sequence[SpoolFile] | None = None
        self._usable = True

    @property
    def pid(self) -> int | None:
        """The process, where there is one."""
        return self._process.pid if self._process is not None else None

    def begin(self, files: Sequence[SpoolFile]) -> None:
        """Have ``files`` read."""
        assert self._batch is None
        self._batch = files
        if self._usable:
            self._send(files)

    def finish(self) -> ReadBatch:
        """What the files of the batch hold.  Raises SpoolError."""
        assert self._batch is not None
        batch, self._batch = self._batch, None
        if not self._usable:
            return self._here(batch)
        try:
            return self._receive()
        except ReaderDied:
            log.warning("the reading process died; reading its %d files one by one", len(batch))
        return self._one_by_one(batch)

    def cancel(self) -> None:
        """Forget the batch under way, if there is one."""
        if self._batch is not None:
            self._batch = None
            self.close()

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.close()

    def _one_by_one(self, batch: Sequence[SpoolFile]) -> ReadBatch:
        found = ReadBatch()
        for place, file in enumerate(batch):
            load = self._try([file]) or (self._answers() and self._try([file])) or None
            if load is None and not self._answers():
                log.error("no reading process can be kept; the worker reads by itself")
                self._usable = False
                found.add(self._here(batch[place:]))
                break
            if load is None:
                error = PacketError(Reason.MALFORMED, "the process that reads it dies of it")
                load = ReadBatch(bad=[Rejection(file, error)])
            found.add(load)
        return found

    def _answers(self) -> bool:
        """Whether a process can be kept that has nothing to do."""
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
            log.warning("no process to read the backlog: %s", error)
        else:
            self._process.send([tuple(file) for file in files])

    def _receive(self) -> ReadBatch:
        if self._process is None:
            raise ReaderDied
        try:
            load, size = self._process.receive()
        except ReaderDied:
            self.close()
            raise
        if size > self._largest:
            self.close()
        return load


# -- the process ---------------------------------------------------------------


def main() -> None:
    """Read batches until the input ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the worker's business: it closes the input
    into = Connection(os.dup(0), writable=False)
    out = Connection(os.dup(1), readable=False)
    os.dup2(2, 1)  # whatever prints something must not print into an answer
    try:
        options = cast("ReadOptions", pickle.loads(into.recv_bytes()))
        intake = reader_for(options)
        while True:
            files = [SpoolFile._make(each) for each in pickle.loads(into.recv_bytes())]
            try:
                answer: object = _packed(intake.load(files))
            except SpoolError as error:
                answer = str(error)
            out.send_bytes(pickle.dumps((answer, resident_memory()), pickle.HIGHEST_PROTOCOL))
    except (EOFError, BrokenPipeError):
        return


def resident_memory() -> int:
    """The memory of this process in bytes (proc(5)).

    Not getrusage's peak: that one is inherited from the process that started this one.
    """
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * resource.getpagesize()


def reader_for(options: ReadOptions) -> PacketReader:
    """What reads files as ``options`` say."""
    path = Path(options.data_in)
    spool = Spool(
        path,
        max_packet=options.max_packet,
        checksum=options.checksum,
        rejected=Rejected(path),  # reading sets nothing aside
    )
    where = zone.named(options.timezone) if options.timezone else zone.system(os.environ)
    return PacketReader(spool, where, options.max_ahead, time.time)


# -- what travels ----------------------------------------------------------------


def _packed(load: ReadBatch) -> tuple[Any, ...]:
    return (
        [_plain(arrival) for arrival in load.arrivals],
        [(tuple(bad.file), bad.error.reason, bad.error.message, bad.agent) for bad in load.bad],
        [(tuple(file), error.message, error.reason) for file, error in load.incomplete],
        load.unreadable,
        load.repairs,
        load.unstored,
        load.bytes,
    )


def _plain(arrival: Arrival) -> tuple[Any, ...]:
    packet = list(_fields_of(arrival.packet))
    packet[_MODULES] = [tuple(module) for module in packet[_MODULES]]
    file = tuple(cast("SpoolFile", arrival.token))
    return packet, arrival.time, arrival.number, arrival.arrived, file


def _unpacked(answer: tuple[Any, ...]) -> ReadBatch:
    arrivals, bad, incomplete, unreadable, repairs, unstored, size = answer
    return ReadBatch(
        [_arrival(*each) for each in arrivals],
        [
            Rejection(SpoolFile._make(f), PacketError(why, text), agent)
            for f, why, text, agent in bad
        ],
        [(SpoolFile._make(f), IncompletePacket(text, reason=why)) for f, text, why in incomplete],
        unreadable,
        repairs,
        unstored,
        size,
    )


def _arrival(
    packet: list[Any], time: int | None, number: int, arrived: int, file: tuple[Any, ...]
) -> Arrival:
    packet[_MODULES] = tuple(map(Module._make, packet[_MODULES]))
    return Arrival(Packet(*packet), time, number, arrived, SpoolFile._make(file))


if __name__ == "__main__":
    main()


# -- reading a few packets in the worker's own process, without growing by what they hold
#
# lxml remembers every tag name that it has met for as long as its thread lives, and names are
# the uploaders' choice.  So packets are parsed in a thread that is replaced now and then.

#: Bytes of packets after which the thread is replaced.  A name takes some ten times the memory
#: that it takes in a packet.
LIFETIME = 4 * 2**20


class ParserThread:
    """Does what ``load`` does, in a thread of its own; for one caller at a time."""

    def __init__(
        self, load: Callable[[Iterable[SpoolFile]], ReadBatch], lifetime: int = LIFETIME
    ) -> None:
        self._load = load
        self._lifetime = lifetime
        self._thread: ThreadPoolExecutor | None = None
        self._read = 0

    def load(self, files: Iterable[SpoolFile]) -> ReadBatch:
        """Everything that ``files`` hold."""
        if self._read >= self._lifetime:
            self.close()
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="intake")
        found = self._thread.submit(self._load, files).result()
        self._read += found.bytes
        return found

    def close(self) -> None:
        """End the thread; the next use starts another."""
        thread, self._thread, self._read = self._thread, None, 0
        if thread is not None:
            thread.shutdown()
