"""One configuration's worth of work: the drop directory and the database put together.

A step of the loop is :meth:`Session.step`: scan, and take in what is complete.  What one
agent has queued stays together.  Of a backlog, three batches are under way at a time: one is
read and parsed (a process of its own), one is stored (here), and the files of the one before,
committed, are unlinked (some threads: where that waits for the file system's journal, one alone
would take longer than storing).
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal, Self, cast

from sqlalchemy import Engine

from dataserver.config.settings import Settings
from dataserver.errors import (
    SpoolError,
    StoreConflict,
    StoreError,
    StoreLacking,
    StoreRefused,
    StoreUnavailable,
)
from dataserver.ingest.delivery import Delivery, Failing, Stopped
from dataserver.ingest.gaps import PacketHold, has_gap
from dataserver.ingest.periodic import PeriodicJobs
from dataserver.ingest.read import (
    PacketReader,
    ParserThread,
    ReadBatch,
    Reader,
    ReadOptions,
    Rejection,
    batches,
)
from dataserver.ingest.report import HELD, Report
from dataserver.model import Arrival
from dataserver.runtime.heartbeat import Heartbeat, Phase
from dataserver.spool.directory import Spool
from dataserver.spool.files import SpoolFile
from dataserver.spool.incomplete import IncompleteFiles
from dataserver.spool.rejected import Rejected
from dataserver.store.changes import Tally
from dataserver.store.database import on_lock_wait
from dataserver.store.opening import open_recorder
from dataserver.store.processes import ProcessStats

log = logging.getLogger(__name__)

#: Seconds after which a long queue is scanned anew, so that its length is known.
_RESCAN = 5.0
#: Sections that are counted by name, the length of such a name, and the name of all others.
_NAMES, _LONGEST_NAME, _OTHER = 50, 50, "(other)"
#: Threads that unlink.
_UNLINKING = 4


class Session:
    """Everything that depends on the settings; made anew when they are reread.

    ``pause(seconds)`` waits and returns True when the worker is to stop; ``patient`` False
    (``--once``) waits for nothing: no backlog settles, an absent database is an error.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        report: Report,
        heartbeat: Heartbeat,
        pause: Callable[[float], bool],
        *,
        patient: bool,
    ) -> None:
        self._settings = settings
        self._report = report
        self._heartbeat = heartbeat
        self._patient = patient
        self._pause = pause
        paths = report.paths
        self._rejected = Rejected(paths.rejected, server=settings.server_name, clock=report.clock)
        checksum: Literal["ignore", "verify"] = (
            "verify" if settings.checksum == "verify" else "ignore"
        )
        self.spool = Spool(
            Path(settings.data_in),
            max_packet=settings.max_packet,
            checksum=checksum,
            rejected=self._rejected,
        )
        self.waiting = IncompleteFiles(
            settings.incomplete_after, monotonic=report.monotonic, clock=report.clock
        )
        self.holds = PacketHold(settings.settle, settings.settle_max)
        on_lock_wait(engine, report.counters.lock_wait_seconds.observe)
        zone = settings.zone(os.environ)
        intake = PacketReader(self.spool, zone, settings.max_ahead, report.clock)
        self._nearby = ParserThread(intake.load)
        self._recorder = open_recorder(settings, engine, zone, heartbeat.step)
        self._failing = Failing(report.clock, report.monotonic)
        self._delivery = Delivery(
            self._recorder,
            clock=report.clock,
            pause=self._wait_for_database,
            trouble=self._trouble,
            well=self._stored,
            monotonic=report.monotonic,
            failing=self._failing,
            key=lambda arrival: _key(_file(arrival)) if arrival.token is not None else None,
            patient=patient,
        )
        self._upkeep = PeriodicJobs(
            engine,
            settings,
            zone,
            report,
            self._rejected,
            self._recorder,
            self._delivery,
            self._figures,
        )
        self._reader = Reader(
            ReadOptions(
                data_in=str(settings.data_in),
                max_packet=settings.max_packet,
                checksum=checksum,
                max_ahead=settings.max_ahead,
                timezone=settings.timezone,
            ),
            self._nearby.load,
        )
        #: The last scan, when it began (monotonic), and what of it has been dealt with.
        self._listed: list[SpoolFile] = []
        self._scanned = report.monotonic()
        self._handled: set[str] = set()
        #: Files that could not be read, by name, with the reason.
        self._unreadable: dict[str, str] = {}
        self._behind = ThreadPoolExecutor(_UNLINKING, thread_name_prefix="acknowledge")
        self._leaving: list[Future[tuple[int, int]]] = []

    def __enter__(self) -> Self:
        recovered = self.spool.recover()
        if recovered:
            log.info("put back %d files that a crash had left half-way", recovered)
        self._upkeep.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self._upkeep.close()
        self._nearby.close()
        self._reader.close()
        self._behind.shutdown(wait=True)
        self.spool.close()

    def step(self) -> bool:
        """Scan and take in; whether anything was.  Raises SpoolError, Stopped, StoreError."""
        self._heartbeat.enter(Phase.SCANNING)
        scanned = self._report.monotonic()
        files = self.spool.scan()
        self._listed, self._scanned, self._handled = files, scanned, set()
        self.waiting.keep(files)
        self._report.scanned(files)
        self._report.gauges.foreign = self.spool.foreign
        if self._unreadable:
            there = {file.name for file in files}
            self._unreadable = {k: v for k, v in self._unreadable.items() if k in there}
        self._failing.retain({_key(file) for file in files} if self._failing else set())
        progress = self._store(files)
        if not self._patient:
            # What failed before the packets that prove it was stored has had no second try yet.
            while again := self._to_retry(files):
                self._store(again)
            return progress
        self._upkeep.round()
        self._gauges()
        return progress

    def _store(self, files: Sequence[SpoolFile]) -> bool:
        """Take in what of ``files`` is complete; whether anything was."""
        progress = False
        deadline = self._report.monotonic() + _RESCAN
        for load in self._loads(self._groups(files)):
            self._heartbeat.enter(Phase.STORING)
            progress |= self._take(load)
            self._gauges()
            self._report.write(self._settings, self._heartbeat.phase)
            if self._patient and self._report.monotonic() > deadline:
                break
            if self._pause(0):
                raise Stopped
        # All gone before the next scan, so that it finds none of them again.
        progress |= self._gone() > 0
        return progress or bool(self._to_retry(files))

    def _to_retry(self, files: Sequence[SpoolFile]) -> list[SpoolFile]:
        if not self._failing:
            return []
        return [file for file in files if self._failing.deserves_retry(_key(file))]

    def leave(self) -> None:
        """The server stops in good order: tell the database."""
        self._upkeep.leave()

    def idle_for(self) -> float:
        """How long nothing will be due, in seconds."""
        due = [self._settings.scan_interval]
        if self._patient:
            due.append(self._upkeep.idle_for())
        if (waiting := self.waiting.next_due()) is not None:
            due.append(waiting)
        if (failed := self._failing.next_due()) is not None:
            due.append(failed)
        if (held := self.holds.next_due()) is not None:
            due.append(held - self._report.monotonic())
        return max(0.01, min(due))

    # -- from the scan to loaded packets ------------------------------------------

    def _groups(self, files: Iterable[SpoolFile]) -> Iterator[list[SpoolFile]]:
        """The files to read now: those of one stem together, the oldest stem first."""
        stems: dict[str, list[SpoolFile]] = {}
        for file in files:
            if self._failing and not self._failing.is_due(_key(file)):
                continue
            if self.waiting.worth_reading(file) or self.waiting.due(file):
                stems.setdefault(file.stem, []).append(file)
        self.holds.retain(set(stems))
        now = self._report.monotonic()
        for stem, group in stems.items():
            if not self.holds.keeps(stem, len(group), now):
                # Where one batch cannot hold them all, the later ones must not come first.  The
                # number is a time with all agents that buffer.
                yield sorted(group, key=lambda file: file.number) if len(group) > 1 else group

    def _loads(self, groups: Iterator[list[SpoolFile]]) -> Iterator[ReadBatch]:
        """The batches as read and parsed, each while the one before it is being stored.

        A single batch is read here: for a few packets no second process is worth its memory.
        """
        settings = self._settings
        queue = batches(groups, settings.batch_packets, settings.batch_bytes)
        first, second = next(queue, None), next(queue, None)
        if first is None:
            return
        if second is None:
            yield self._nearby.load(first)
            return
        try:
            # The first is read here, while the process for the others starts.
            self._reader.begin(second)
            yield self._nearby.load(first)
            for batch in queue:
                load = self._reader.finish()
                self._reader.begin(batch)
                yield load
            yield self._reader.finish()
        finally:
            self._reader.cancel()

    # -- one batch ----------------------------------------------------------------

    def _take(self, load: ReadBatch) -> bool:
        """Set aside what is none, hold what is to settle, store the rest."""
        counters = self._report.counters
        counters.bytes_read += load.bytes
        self._note_unreadable(load)
        progress = False
        for bad in load.bad:
            progress |= self._reject(bad)
        for file, error in load.incomplete:
            self.waiting.add(file)
            if self.waiting.due(file):
                progress |= self._reject(Rejection(file, error))
        if self.waiting:
            # Complete since, also where the database lets none be stored.
            for arrival in load.arrivals:
                self.waiting.forget(_file(arrival))
            self._report.gauges.waiting = len(self.waiting)
        arrivals = self._settled(load.arrivals)
        if not arrivals:
            return progress
        started = self._report.monotonic()
        delivered = self._delivery.deliver(arrivals)
        counters.commit_seconds.observe(self._report.monotonic() - started)
        counters.repaired.update(load.repairs)
        count_bounded(counters.unstored, load.unstored)
        taken = []
        for arrival, outcome in delivered:
            if outcome is None:
                continue
            if outcome.error is None:
                taken.append(_file(arrival))
                if arrival.packet.remarks:
                    self._report.remark(arrival.packet)
                self._report.last_agent = arrival.packet.agent_name
                self._report.last_time = arrival.time
            else:
                bad = Rejection(_file(arrival), outcome.error, arrival.packet.agent_name)
                progress |= self._reject(bad)
        self._report.storing(self._failing)
        self._handled.update(file.name for file in taken)
        progress |= self._gone() > 0
        parts = (taken[part::_UNLINKING] for part in range(_UNLINKING))
        self._leaving = [self._behind.submit(self._acknowledge, part) for part in parts if part]
        return progress

    def _settled(self, arrivals: list[Arrival]) -> list[Arrival]:
        """Without the packets of agents that are to settle first, which stay where they are."""
        if not self._patient or self._settings.settle == 0:
            return arrivals
        now = self._report.monotonic()
        agents: dict[str, list[Arrival]] = {}
        for arrival in arrivals:
            if not arrival.packet.server_name:
                agents.setdefault(arrival.packet.agent_name, []).append(arrival)
        held = self.holds.agents()
        suspects = {
            name: some for name, some in agents.items() if self._is_suspect(name, some, held, now)
        }
        if not suspects:
            return arrivals
        # The cache may be behind (a twin took some): only the database's word holds a packet.
        try:
            newest = self._delivery.insist(lambda: self._recorder.newest(suspects))
        except (StoreRefused, StoreLacking):
            return arrivals  # one of them may be the cause: which one, storing them will tell
        for name, some in suspects.items():
            if name in held or has_gap(some, *newest.get(name, (None, None))):
                held.add(name)
                for stem, files in Counter(_file(arrival).stem for arrival in some).items():
                    self.holds.hold(stem, name, files, now)
        left = held & suspects.keys()
        return [arrival for arrival in arrivals if arrival.packet.agent_name not in left]

    def _is_suspect(self, agent: str, some: list[Arrival], held: set[str], now: float) -> bool:
        """Whether packets of the agent are held, or seem to be missing around these."""
        if any(self.holds.ready(_file(arrival).stem, now) for arrival in some):
            return False
        return agent in held or has_gap(some, *self._recorder.known(some[0]))

    def _acknowledge(self, files: list[SpoolFile]) -> tuple[int, int]:
        """Unlink files that are committed; how many left, and how many of these were replaced.

        Runs beside the next batch, in several threads: they share no counter.
        """
        left = replaced = 0
        for file in files:
            try:
                if not self.spool.done(file):
                    replaced += 1
            except SpoolError as error:
                # It is stored; the ledger knows it when it is found again.
                self._report.complain(file.name, str(error))
            else:
                self._report.content(file.name)
                left += 1
        return left, replaced

    def _gone(self) -> int:
        """Wait until the batch before has left; how many of its files did."""
        leaving, self._leaving = self._leaving, []
        left = 0
        for future in leaving:
            gone, replaced = future.result()
            left += gone
            self._report.counters.replaced += replaced
        self._report.gauges.queue = max(0, self._report.gauges.queue - left)
        return left

    def _reject(self, bad: Rejection) -> bool:
        error = bad.error
        # Nobody's value waits in it, also if it has to stay where it is (a full disk).
        self._handled.add(bad.file.name)
        try:
            gone = self.spool.reject(bad.file, error.reason, error.message, agent=bad.agent)
        except SpoolError as failure:
            self._report.complain(bad.file.name, str(failure))
            return False
        self._report.content(bad.file.name)
        if gone:
            self.waiting.forget(bad.file)
            self._report.rejected(error.reason, bad.file.size)
            self._upkeep.note_rejected(bad)
            level = logging.DEBUG if bad.is_cut_upload else logging.WARNING
            extra = {"file": bad.file.name, "reason": error.reason.value, "agent": bad.agent}
            log.log(level, "set aside: %s", error.message, extra=extra)
        return True

    # -- the rest -----------------------------------------------------------------

    def _gauges(self) -> None:
        gauges = self._report.gauges
        gauges.held = len(self.holds)
        due = self.holds.last_due()
        left = None if due is None else due - self._report.monotonic()
        gauges.held_until_time_seconds = (
            0 if left is None else round(self._report.clock() + max(0.0, left), 3)
        )
        gauges.waiting = len(self.waiting)
        self._report.storing(self._failing)
        self._report.unreadable = {**self.spool.unreadable, **self._unreadable}
        gauges.unreadable = len(self._report.unreadable)

    def _figures(self) -> ProcessStats:
        """How this process does, for the other ones."""
        report, gauges = self._report, self._report.gauges
        # One that cannot be read, or that is not complete, is nobody's value yet.
        stuck = report.unreadable
        waits = (
            file.mtime_ns / 1e9
            for file in self._listed
            if file.name not in self._handled
            and file.name not in stuck
            # One that is known to be the cause itself may wait for hours.
            and not self._failing.is_proven(_key(file))
            and self.waiting.worth_reading(file)
        )
        oldest = next(waits, None)
        return ProcessStats(
            queue=gauges.queue,
            oldest_age=None if oldest is None else max(0.0, report.clock() - oldest),
            scan_age=report.monotonic() - self._scanned,
            uptime=max(0.0, report.clock() - gauges.start_time_seconds),
            packets_per_second=report.packets_per_second(),
            rejected=gauges.rejected_files,
        )

    def _note_unreadable(self, load: ReadBatch) -> None:
        """Warn of each file the first time that it cannot be read."""
        for name, why in load.unreadable.items():
            if name not in self._unreadable:
                log.warning("%s", why)
        if self._unreadable:
            for arrival in load.arrivals:
                self._unreadable.pop(_file(arrival).name, None)
        self._unreadable.update(load.unreadable)

    def _stored(self, tally: Tally) -> None:
        self._report.add(tally)
        self._upkeep.note_stored(tally)
        self._heartbeat.enter(Phase.STORING)

    def _trouble(self, error: StoreError, seconds: float) -> None:
        """A try failed, ``seconds`` after the first one began."""
        self._report.counters.retries[type(error).__name__] += 1
        # Another program that keeps a lock is no different from a database that is away.
        held = isinstance(error, StoreConflict) and seconds >= HELD
        if held or isinstance(error, StoreUnavailable):
            self._report.away(error)
            self._upkeep.note_outage()
        log.debug("%s", error)

    def _wait_for_database(self, seconds: float) -> bool:
        self._heartbeat.enter(Phase.WAITING_FOR_DATABASE)
        stopping = self._pause(seconds)
        self._report.write(self._settings, self._heartbeat.phase)
        # Away, it stays in this phase until something was stored: each try may take a timeout.
        if self._report.database_error is None:
            self._heartbeat.enter(Phase.STORING)
        return stopping


def count_bounded(counts: Counter[str], more: Mapping[str, int]) -> None:
    """Add ``more`` to ``counts``, whose names are an uploader's: no more than a few of them."""
    for name, count in more.items():
        known = name in counts or len(counts) < _NAMES
        counts[name if known and len(name) <= _LONGEST_NAME else _OTHER] += count


def _key(file: SpoolFile) -> tuple[str, int, int, int]:
    return file.name, file.inode, file.size, file.mtime_ns


def _file(arrival: Arrival) -> SpoolFile:
    return cast(SpoolFile, arrival.token)
