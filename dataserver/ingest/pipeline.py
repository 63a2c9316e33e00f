"""The work under one configuration: from the drop directory into the database.

:meth:`Pipeline.step` is one round: scan, read, hold packets whose predecessors are missing, store,
acknowledge or reject.  The queued files of one agent stay together.

Of a backlog, three batches are under way at a time: one is read and parsed (in a process of its
own), one is stored (in the main thread), and the files of the one before, which is committed, are
unlinked (in a few threads: where unlinking waits for the file system's journal, a single thread
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
from dataserver.ingest.delivery import Delivery, FailingPackets, Stopped
from dataserver.ingest.gaps import PacketHold, has_gap
from dataserver.ingest.periodic import PeriodicJobs
from dataserver.ingest.read import (
    BacklogReader,
    PacketReader,
    ParserThread,
    ReadBatch,
    ReadOptions,
    Rejection,
    batches,
)
from dataserver.ingest.report import LOCK_OUTAGE, Report
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

#: Seconds after which a long queue is scanned again, so that its length is known.
_RESCAN = 5.0
#: Threads that unlink.
_UNLINK_THREADS = 4
#: Sections that are counted by name, the length of such a name, and the name of all others.
_NAMES, _LONGEST_NAME, _OTHER = 50, 50, "(other)"


class Pipeline:
    """Everything that depends on the settings; created again when they are reread.

    ``pause(seconds)`` waits and returns True if the worker is to stop.  With ``patient`` False
    (``--once``) nothing is waited for: no backlog settles, an unavailable database is an error.
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
        reader = PacketReader(self.spool, zone, settings.max_ahead, report.clock)
        self._parser = ParserThread(reader.read)
        self._recorder = open_recorder(settings, engine, zone, heartbeat.step)
        self._failing = FailingPackets(report.clock, report.monotonic)
        self._delivery = Delivery(
            self._recorder,
            clock=report.clock,
            pause=self._wait_for_database,
            on_failure=self._on_failure,
            on_success=self._on_success,
            monotonic=report.monotonic,
            failing=self._failing,
            key=lambda arrival: _key(_file(arrival)) if arrival.token is not None else None,
            patient=patient,
        )
        self._jobs = PeriodicJobs(
            engine,
            settings,
            zone,
            report,
            self._rejected,
            self._recorder,
            self._delivery,
            self._stats,
        )
        self._reader = BacklogReader(
            ReadOptions(
                data_in=str(settings.data_in),
                max_packet=settings.max_packet,
                checksum=checksum,
                max_ahead=settings.max_ahead,
                timezone=settings.timezone,
            ),
            self._parser.read,
        )
        #: The files of the last scan, when it began (monotonic), and the names of those that have
        #: been stored or rejected since.
        self._listed: list[SpoolFile] = []
        self._scanned = report.monotonic()
        self._handled: set[str] = set()
        #: Files that could not be read, by name, with the reason.
        self._unreadable: dict[str, str] = {}
        self._unlinkers = ThreadPoolExecutor(_UNLINK_THREADS, thread_name_prefix="unlink")
        self._unlinking: list[Future[tuple[int, int]]] = []

    def __enter__(self) -> Self:
        recovered = self.spool.recover()
        if recovered:
            log.info("put back %d files that were being unlinked at a crash", recovered)
        self._jobs.begin()
        if self._patient:
            # The server's row exists before the first values refer to it (running_by).
            self._jobs.database.announce()
        return self

    def __exit__(self, *_: object) -> None:
        self._jobs.close()
        self._parser.close()
        self._reader.close()
        self._unlinkers.shutdown(wait=True)
        self.spool.close()

    def leave(self) -> None:
        """The server stops regularly: tell the database."""
        self._jobs.leave()

    def step(self) -> bool:
        """Scan, store what is complete, and run the jobs that are due.

        Returns whether any file was stored or rejected.  Raises SpoolError, Stopped, StoreError.
        """
        self._heartbeat.enter(Phase.SCANNING)
        files = self._scan()
        progress = self._store(files)
        if not self._patient:
            # Packets that failed before the ones that prove them were stored need a second try.
            while again := self._to_retry(files):
                self._store(again)
            return progress
        self._jobs.run_due()
        self._update_gauges()
        return progress

    def idle_for(self) -> float:
        """Seconds until something is due, unless a file arrives."""
        due = [self._settings.scan_interval]
        if self._patient:
            due.append(self._jobs.database.idle_for())
        if (waiting := self.waiting.next_due()) is not None:
            due.append(waiting)
        if (failed := self._failing.next_due()) is not None:
            due.append(failed)
        if (held := self.holds.next_due()) is not None:
            due.append(held - self._report.monotonic())
        return max(0.01, min(due))

    # -- from the scan to parsed packets --

    def _scan(self) -> list[SpoolFile]:
        """List the drop directory, and forget what was remembered of files that are gone."""
        scanned = self._report.monotonic()
        files = self.spool.scan()
        self._listed, self._scanned, self._handled = files, scanned, set()
        self.waiting.keep(files)
        self._report.scanned(files)
        self._report.gauges.foreign = self.spool.foreign
        if self._unreadable:
            there = {file.name for file in files}
            self._unreadable = {k: v for k, v in self._unreadable.items() if k in there}
        self._failing.forget_missing({_key(file) for file in files} if self._failing else set())
        return files

    def _store(self, files: Sequence[SpoolFile]) -> bool:
        """Store what of ``files`` is complete; returns whether any was stored or rejected."""
        progress = False
        deadline = self._report.monotonic() + _RESCAN
        for batch in self._batches(self._groups(files)):
            self._heartbeat.enter(Phase.STORING)
            progress |= self._process(batch)
            self._update_gauges()
            self._report.write(self._settings, self._heartbeat.phase)
            if self._patient and self._report.monotonic() > deadline:
                break
            if self._pause(0):
                raise Stopped
        # All are unlinked before the next scan, which would find them again.
        progress |= self._wait_for_unlinking() > 0
        return progress or bool(self._to_retry(files))

    def _to_retry(self, files: Sequence[SpoolFile]) -> list[SpoolFile]:
        if not self._failing:
            return []
        return [file for file in files if self._failing.deserves_retry(_key(file))]

    def _groups(self, files: Iterable[SpoolFile]) -> Iterator[list[SpoolFile]]:
        """The files to read now: those of one stem together, the oldest stem first."""
        stems: dict[str, list[SpoolFile]] = {}
        for file in files:
            if self._failing and not self._failing.is_due(_key(file)):
                continue
            if self.waiting.worth_reading(file) or self.waiting.due(file):
                stems.setdefault(file.stem, []).append(file)
        self.holds.forget_missing(set(stems))
        now = self._report.monotonic()
        for stem, group in stems.items():
            if not self.holds.is_held(stem, len(group), now):
                # If one batch cannot hold them all, the later ones must not come first.  The
                # number is a time with all agents that buffer.
                yield sorted(group, key=lambda file: file.number) if len(group) > 1 else group

    def _batches(self, groups: Iterator[list[SpoolFile]]) -> Iterator[ReadBatch]:
        """Read and parse the files in batches, each while the one before it is being stored.

        A single batch is read in this process: for a few packets a second one would be a waste of
        memory.
        """
        settings = self._settings
        queue = batches(groups, settings.batch_packets, settings.batch_bytes)
        first, second = next(queue, None), next(queue, None)
        if first is None:
            return
        if second is None:
            yield self._parser.read(first)
            return
        try:
            # The first one is read in this process while the other process starts.
            self._reader.begin(second)
            yield self._parser.read(first)
            for files in queue:
                batch = self._reader.finish()
                self._reader.begin(files)
                yield batch
            yield self._reader.finish()
        finally:
            self._reader.cancel()

    def _note_unreadable(self, batch: ReadBatch) -> None:
        """Warn about each file the first time that it cannot be read."""
        for name, why in batch.unreadable.items():
            if name not in self._unreadable:
                log.warning("%s", why)
        if self._unreadable:
            for arrival in batch.arrivals:
                self._unreadable.pop(_file(arrival).name, None)
        self._unreadable.update(batch.unreadable)

    # -- one batch --

    def _process(self, batch: ReadBatch) -> bool:
        """Reject the bad files, hold packets that are to settle, and store the others.

        Returns whether any file was stored or rejected.
        """
        counters = self._report.counters
        counters.bytes_read += batch.bytes
        self._note_unreadable(batch)
        progress = False
        for rejection in batch.rejections:
            progress |= self._reject(rejection)
        for file, error in batch.incomplete:
            self.waiting.add(file)
            if self.waiting.due(file):
                progress |= self._reject(Rejection(file, error))
        if self.waiting:
            # They are complete now, even if the database does not let them be stored.
            for arrival in batch.arrivals:
                self.waiting.forget(_file(arrival))
            self._report.gauges.waiting = len(self.waiting)
        arrivals = self._without_held(batch.arrivals)
        if not arrivals:
            return progress
        started = self._report.monotonic()
        delivered = self._delivery.deliver(arrivals)
        counters.commit_seconds.observe(self._report.monotonic() - started)
        counters.repaired.update(batch.repairs)
        count_bounded(counters.unstored, batch.unstored)
        stored = []
        for arrival, outcome in delivered:
            if outcome is None:
                continue
            if outcome.error is None:
                stored.append(_file(arrival))
                if arrival.packet.remarks:
                    self._report.log_remarks(arrival.packet)
                self._report.last_agent = arrival.packet.agent_name
                self._report.last_time = arrival.time
            else:
                rejection = Rejection(_file(arrival), outcome.error, arrival.packet.agent_name)
                progress |= self._reject(rejection)
        self._report.note_failing(self._failing)
        self._handled.update(file.name for file in stored)
        progress |= self._wait_for_unlinking() > 0
        parts = (stored[part::_UNLINK_THREADS] for part in range(_UNLINK_THREADS))
        self._unlinking = [self._unlinkers.submit(self._unlink, part) for part in parts if part]
        return progress

    def _without_held(self, arrivals: list[Arrival]) -> list[Arrival]:
        """Leave out the packets of agents that are to settle first; their files stay in place."""
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
        # The cache may lag behind (another server stored some): the database decides.
        try:
            newest = self._delivery.retry(lambda: self._recorder.newest(suspects))
        except (StoreRefused, StoreLacking):
            return arrivals  # one of them may be the cause; storing them tells which one
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

    def _unlink(self, files: list[SpoolFile]) -> tuple[int, int]:
        """Unlink files that are committed; returns how many are gone and how many were replaced.

        Runs in several threads beside the next batch, so it changes no counter.
        """
        gone = replaced = 0
        for file in files:
            try:
                if not self.spool.done(file):
                    replaced += 1
            except SpoolError as error:
                # It is stored; when it is found again, the ledger knows it.
                self._report.log_once(file.name, str(error))
            else:
                self._report.clear(file.name)
                gone += 1
        return gone, replaced

    def _wait_for_unlinking(self) -> int:
        """Wait until the files of the batch before are unlinked; returns how many are gone."""
        unlinking, self._unlinking = self._unlinking, []
        total = 0
        for future in unlinking:
            gone, replaced = future.result()
            total += gone
            self._report.counters.replaced += replaced
        self._report.gauges.queue = max(0, self._report.gauges.queue - total)
        return total

    def _reject(self, rejection: Rejection) -> bool:
        """Reject a file; returns whether it is dealt with."""
        file, error, agent = rejection
        # Handled even if it has to stay where it is (on a full disk): no value waits in it.
        self._handled.add(file.name)
        try:
            gone = self.spool.reject(file, error.reason, error.message, agent=agent)
        except SpoolError as failure:
            self._report.log_once(file.name, str(failure))
            return False
        self._report.clear(file.name)
        if gone:
            self.waiting.forget(file)
            self._report.rejected(error.reason, file.size)
            self._jobs.note_rejected(rejection)
            level = logging.DEBUG if rejection.is_cut_upload else logging.WARNING
            extra = {"file": file.name, "reason": error.reason.value, "agent": agent}
            log.log(level, "rejected: %s", error.message, extra=extra)
        return True

    # -- what delivery reports --

    def _on_success(self, tally: Tally) -> None:
        self._report.note_stored(tally)
        self._jobs.refusals.note(tally)
        self._heartbeat.enter(Phase.STORING)

    def _on_failure(self, error: StoreError, seconds: float) -> None:
        """A try failed, ``seconds`` after the first one began."""
        self._report.counters.retries[type(error).__name__] += 1
        # A lock that another program keeps is treated like an unavailable database.
        locked = isinstance(error, StoreConflict) and seconds >= LOCK_OUTAGE
        if locked or isinstance(error, StoreUnavailable):
            self._report.database_down(error)
            self._jobs.database.note_outage()
        log.debug("%s", error)

    def _wait_for_database(self, seconds: float) -> bool:
        self._heartbeat.enter(Phase.WAITING_FOR_DATABASE)
        stopping = self._pause(seconds)
        self._report.write(self._settings, self._heartbeat.phase)
        # During an outage this phase lasts until something was stored: a try may take a timeout.
        if self._report.database_error is None:
            self._heartbeat.enter(Phase.STORING)
        return stopping

    # -- gauges and statistics --

    def _update_gauges(self) -> None:
        gauges = self._report.gauges
        gauges.held = len(self.holds)
        due = self.holds.last_due()
        left = None if due is None else due - self._report.monotonic()
        gauges.held_until_time_seconds = (
            0 if left is None else round(self._report.clock() + max(0.0, left), 3)
        )
        gauges.waiting = len(self.waiting)
        self._report.note_failing(self._failing)
        self._report.unreadable = {**self.spool.unreadable, **self._unreadable}
        gauges.unreadable = len(self._report.unreadable)

    def _stats(self) -> ProcessStats:
        """The statistics of this process, for the other servers."""
        report, gauges = self._report, self._report.gauges
        # A file that cannot be read or is not complete contains no value yet.
        unreadable = report.unreadable
        queued = (
            file.mtime_ns / 1e9
            for file in self._listed
            if file.name not in self._handled
            and file.name not in unreadable
            # A packet that is proven to be the cause of its failure may wait for hours.
            and not self._failing.is_proven(_key(file))
            and self.waiting.worth_reading(file)
        )
        oldest = next(queued, None)
        return ProcessStats(
            queue=gauges.queue,
            oldest_age=None if oldest is None else max(0.0, report.clock() - oldest),
            scan_age=report.monotonic() - self._scanned,
            uptime=max(0.0, report.clock() - gauges.start_time_seconds),
            packets_per_second=report.packets_per_second(),
            rejected=gauges.rejected_files,
        )


def count_bounded(counts: Counter[str], more: Mapping[str, int]) -> None:
    """Add ``more`` to ``counts``; uploaders choose the names, so only a few are kept."""
    for name, count in more.items():
        known = name in counts or len(counts) < _NAMES
        counts[name if known and len(name) <= _LONGEST_NAME else _OTHER] += count


def _key(file: SpoolFile) -> tuple[str, int, int, int]:
    return file.name, file.inode, file.size, file.mtime_ns


def _file(arrival: Arrival) -> SpoolFile:
    return cast(SpoolFile, arrival.token)
