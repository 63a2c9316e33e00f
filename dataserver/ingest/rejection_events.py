"""Telling the console's operator of rejected packets, however many there are.

Of each reason the first few packets of a period are told at once, one by one, and all that
follow in one event at its end; only after a period without any does it begin anew.  So a storm
costs some :data:`FIRST` events and then one for each :data:`PERIOD`, whatever its strength, and
memory holds a count for each reason.  Cut uploads are everyday business where hosts take over
from each other: they are told in sums only.

A start remembers what was set aside just before it, so that neither does a server that crashes
again and again tell of the first few each time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import NamedTuple

from sqlalchemy import Engine

from dataserver.errors import Reason, StoreError, StoreRefused
from dataserver.ingest.report import Report
from dataserver.rules.events import MAINTENANCE, Event
from dataserver.rules.times import local_text
from dataserver.store.errors import translating
from dataserver.store.events import EventLog
from dataserver.store.layout import Layout
from dataserver.store.read.agents import agent_ids
from dataserver.store.sql import Sql

log = logging.getLogger(__name__)

#: Packets of one reason that are told one by one, and seconds of a period.
FIRST, PERIOD = 3, 300.0
#: Told in sums only.
_IN_SUMS = frozenset({Reason.INCOMPLETE})
#: Events that wait for the database at most, and seconds until it is tried again.
_WAITING, _AGAIN = 100, 10.0
#: Characters of a file's name and of an error's text in an event.
_LONGEST_NAME, _LONGEST_TEXT = 120, 300


class RejectionMessage(NamedTuple):
    """What an event is to say; ``agent`` is the agent's name as its packet has it, if any."""

    text: str
    agent: str | None


@dataclass(slots=True)
class _ReasonSummary:
    """What is to be told of one reason; times are monotonic seconds."""

    since: float
    #: How many more are told at once.
    at_once: int
    #: How many were not told yet, and the last of them.
    count: int = 0
    last: str = ""
    #: Whose they are, where all are of one agent.
    agent: str | None = None


class RejectionThrottle:
    """Decides what is told and when; knows no database.

    ``monotonic`` gives seconds.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._tales: dict[Reason, _ReasonSummary] = {}
        self._due: list[RejectionMessage] = []
        self._not_before = float("-inf")

    def remember(self, told: Mapping[Reason, int]) -> None:
        """So many packets were set aside in the last period, before this start."""
        for reason, count in told.items():
            self._tale(reason).at_once = max(0, _first(reason) - count)

    def note(self, reason: Reason, name: str, message: str, agent: str | None) -> None:
        """The file ``name`` was set aside because of ``reason``, and ``message`` in words."""
        tale = self._tale(reason)
        if not tale.count and self._monotonic() - tale.since >= PERIOD:
            tale.since, tale.at_once = self._monotonic(), _first(reason)
        file, why = _quoted(name), _printable(message, _LONGEST_TEXT)
        if tale.at_once and len(self._due) < _WAITING:
            tale.at_once -= 1
            text = f"Unable to process XML data file {file}: {why} ({reason})"
            self._due.append(RejectionMessage(text, agent))
            return
        tale.agent = agent if not tale.count or tale.agent == agent else None
        tale.count += 1
        tale.last = f"{file}: {why}"

    def due(self) -> bool:
        """Whether there is anything to tell."""
        now = self._monotonic()
        ripe = self._due or any(_is_ripe(tale, now) for tale in self._tales.values())
        return bool(ripe) and now >= self._not_before

    def take(self, *, everything: bool = False) -> list[RejectionMessage]:
        """What is to be told now; ``everything``: also sums whose period is not over."""
        now = self._monotonic()
        taken, self._due = self._due, []
        for reason, tale in self._tales.items():
            if tale.count and (everything or _is_ripe(tale, now)):
                taken.append(RejectionMessage(_sum(reason, tale, now), tale.agent))
                tale.since, tale.at_once, tale.count, tale.last = now, 0, 0, ""
        return taken

    def put_back(self, complaints: Sequence[RejectionMessage]) -> None:
        """These could not be told now; of very many the newest are dropped."""
        self._due = [*complaints, *self._due][:_WAITING]
        self._not_before = self._monotonic() + _AGAIN

    def _tale(self, reason: Reason) -> _ReasonSummary:
        tale = self._tales.get(reason)
        if tale is None:
            tale = self._tales[reason] = _ReasonSummary(self._monotonic(), _first(reason))
        return tale


class RejectionEvents:
    """Writes what :class:`RejectionThrottle` decides as events; whatever fails, packets go on."""

    def __init__(self, engine: Engine, layout: Layout, zone: tzinfo, report: Report) -> None:
        self.throttle = RejectionThrottle(report.monotonic)
        self._engine = engine
        self._events = EventLog(Sql(engine.dialect), layout)
        self._zone = zone
        self._report = report

    def run_due(self, *, everything: bool = False) -> None:
        """Write what is due, or ``everything``; what cannot be written now is kept for later."""
        # An absent database is not asked: that takes time, and somebody waits for it already.
        if not self._report.gauges.database_up or not (everything or self.throttle.due()):
            return
        complaints = self.throttle.take(everything=everything)
        try:
            try:
                self._write(complaints)
            except StoreRefused:
                # A name may have characters that the database's character set cannot hold.
                self._write([_plain(each) for each in complaints])
        except StoreRefused as error:
            log.error("events of rejected packets are lost: %s", error)
        except StoreError as error:
            log.debug("events of rejected packets put off: %s", error)
            self.throttle.put_back(complaints)

    def _write(self, complaints: Sequence[RejectionMessage]) -> None:
        if not complaints:
            return
        now = int(self._report.clock())
        with translating("write events of rejected packets"), self._engine.begin() as conn:
            agents = agent_ids(conn, {each.agent for each in complaints if each.agent})
            events = [
                Event("error", MAINTENANCE, each.text, agents.get(each.agent or "", 0))
                for each in complaints
            ]
            self._events.write(conn, events, now, local_text(now, self._zone))


def _plain(each: RejectionMessage) -> RejectionMessage:
    """The same in ASCII; an agent of another name is not looked for."""
    text = each.text.encode("ascii", "backslashreplace").decode("ascii")
    return RejectionMessage(text, each.agent if each.agent and each.agent.isascii() else None)


def _first(reason: Reason) -> int:
    return 0 if reason in _IN_SUMS else FIRST


def _is_ripe(tale: _ReasonSummary, now: float) -> bool:
    return tale.count > 0 and now - tale.since >= PERIOD


def _sum(reason: Reason, tale: _ReasonSummary, now: float) -> str:
    minutes = max(1, round((now - tale.since) / 60))
    span = "minute" if minutes == 1 else f"{minutes} minutes"
    more = "" if reason in _IN_SUMS else "more "
    packets = "packet" if tale.count == 1 else "packets"
    return (
        f"{tale.count} {more}{packets} rejected as {reason} in the last {span}, "
        f"the last one {tale.last}"
    )


def _quoted(name: str) -> str:
    text = ascii(name[:_LONGEST_NAME])
    return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 4]}...'"


def _printable(text: str, longest: int) -> str:
    """``text`` as ASCII, which every column of every charset takes; control characters told."""
    # Cut first as well: an uploader's text may be of any length.
    text = text[:longest].encode("ascii", "backslashreplace").decode("ascii")
    text = "".join(char if char.isprintable() else " " for char in text)
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
