"""From files to packets: what a batch's files hold, and which of them are none.

It changes nothing, so it can be done anywhere: in the worker for a few files, in a process of
its own (:mod:`.reader`) for a backlog.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import NamedTuple

from dataserver.errors import IncompletePacket, PacketError, Reason
from dataserver.failpoints import reach
from dataserver.model import Arrival, Packet
from dataserver.packet import parse
from dataserver.spool.directory import Spool
from dataserver.spool.files import SpoolFile, Unreadable, Vanished
from dataserver.times import packet_time

log = logging.getLogger(__name__)


class Bad(NamedTuple):
    """A file that is to be set aside; ``agent`` is its agent's name where it got that far."""

    file: SpoolFile
    error: PacketError
    agent: str | None = None

    @property
    def is_cut_upload(self) -> bool:
        """An upload that ended early, maybe before its first byte: nobody's mistake."""
        return self.error.reason is Reason.INCOMPLETE or not self.file.size


@dataclass(slots=True)
class Load:
    """What the files of one batch turned out to be."""

    arrivals: list[Arrival] = field(default_factory=list)
    bad: list[Bad] = field(default_factory=list)
    incomplete: list[tuple[SpoolFile, IncompletePacket]] = field(default_factory=list)
    #: Files that cannot be read now, by name, with the reason.
    unreadable: dict[str, str] = field(default_factory=dict)
    repairs: Counter[str] = field(default_factory=Counter)
    unstored: Counter[str] = field(default_factory=Counter)
    bytes: int = 0

    def add(self, other: Load) -> None:
        """Take over what ``other`` holds."""
        self.arrivals += other.arrivals
        self.bad += other.bad
        self.incomplete += other.incomplete
        self.unreadable |= other.unreadable
        self.repairs += other.repairs
        self.unstored += other.unstored
        self.bytes += other.bytes


class Intake:
    """Reads and parses; ``clock`` gives epoch seconds, ``max_ahead`` is in seconds."""

    def __init__(
        self, spool: Spool, zone: tzinfo, max_ahead: int, clock: Callable[[], float]
    ) -> None:
        self._spool = spool
        self._zone = zone
        self._max_ahead = max_ahead
        self._clock = clock

    def load(self, files: Iterable[SpoolFile]) -> Load:
        """Everything that ``files`` hold."""
        found = Load()
        for file in files:
            try:
                reading = self._spool.read(file)
            except Vanished:
                continue
            except Unreadable as error:
                found.unreadable[file.name] = str(error)
                continue
            except PacketError as error:
                found.bad.append(Bad(file, error))
                continue
            if reading.content is not None:
                found.bytes += len(reading.content)
                self._take(found, reading.file, reading.content)
        return found

    def _take(self, found: Load, file: SpoolFile, content: bytes) -> None:
        reach(f"inside-read {file.name}")
        modified = file.mtime_ns // 1_000_000_000
        try:
            packet = parse(content)
            time = packet_time(packet, zone=self._zone, number=file.number, modified=modified)
        except IncompletePacket as error:
            found.incomplete.append((file, error))
            return
        except PacketError as error:
            found.bad.append(Bad(file, error))
            return
        except Exception as error:
            log.exception("reading %a", file.name)
            why = f"reading it fails with {error!r:.200}: please report it"
            found.bad.append(Bad(file, PacketError(Reason.REFUSED, why)))
            return
        if time is not None and time > self._clock() + self._max_ahead:
            found.bad.append(Bad(file, self._ahead(packet), packet.agent_name))
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
