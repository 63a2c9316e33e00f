"""Events about rejected packets for the console, few of them however many packets are rejected.

For each reason, the first few packets of a period have an event each, written at once; all others
are summed up in one event at the end of the period.  The first few are reported one by one again
only after a period without any.  So a storm costs :data:`FIRST` events and then one for each
:data:`PERIOD`, whatever its strength, and memory holds one count for each reason.  Cut uploads are
normal where hosts take over from each other: they are only summed up.

At a start, the packets that were rejected just before count as reported, so that a server that
crashes again and again does not report the first few each time.
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

#: Packets of one reason that have an event each, and seconds of a period.
FIRST, PERIOD = 3, 300.0
#: Reasons that are only summed up.
_SUMMED_UP = frozenset({Reason.INCOMPLETE})
#: Events that wait for the database at most, and seconds until they are tried again.
_WAITING, _RETRY_AFTER = 100, 10.0
#: Characters of a file's name and of an error's text in an event.
_LONGEST_NAME, _LONGEST_TEXT = 120, 300


class RejectionMessage(NamedTuple):
    """The text of an event; ``agent`` is the agent's name as in its packet, or None."""

    text: str
    agent: str | None


@dataclass(slots=True)
class _ReasonSummary:
    """What is not reported yet of one reason; times are monotonic seconds."""

    since: float
    #: How many more packets may have an event each.
    at_once: int
    #: How many packets are to be summed up, and the last of them.
    count: int = 0
    last: str = ""
    #: The agent of all of them, or None if they are of several.
    agent: str | None = None


class RejectionThrottle:
    """Decides what is reported and when, without a database.

    ``monotonic`` gives seconds.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._summaries: dict[Reason, _ReasonSummary] = {}
        self._due: list[RejectionMessage] = []
        self._not_before = float("-inf")

    def remember(self, rejected: Mapping[Reason, int]) -> None:
        """These numbers of packets were rejected in the last period, before this start."""
        for reason, count in rejected.items():
            self._summary(reason).at_once = max(0, _first(reason) - count)

    def note(self, reason: Reason, name: str, message: str, agent: str | None) -> None:
        """The file ``name`` was rejected because of ``reason``; ``message`` explains it."""
        summary = self._summary(reason)
        if not summary.count and self._monotonic() - summary.since >= PERIOD:
            summary.since, summary.at_once = self._monotonic(), _first(reason)
        file, why = _quoted(name), _printable(message, _LONGEST_TEXT)
        if summary.at_once and len(self._due) < _WAITING:
            summary.at_once -= 1
            text = f"Unable to process XML data file {file}: {why} ({reason})"
            self._due.append(RejectionMessage(text, agent))
            return
        summary.agent = agent if not summary.count or summary.agent == agent else None
        summary.count += 1
        summary.last = f"{file}: {why}"

    def due(self) -> bool:
        """Whether there is anything to report now."""
        now = self._monotonic()
        due = self._due or any(_is_due(summary, now) for summary in self._summaries.values())
        return bool(due) and now >= self._not_before

    def take(self, *, everything: bool = False) -> list[RejectionMessage]:
        """Return what is to be reported now; ``everything``: also sums whose period is not over."""
        now = self._monotonic()
        messages, self._due = self._due, []
        for reason, summary in self._summaries.items():
            if summary.count and (everything or _is_due(summary, now)):
                messages.append(RejectionMessage(_sum_text(reason, summary, now), summary.agent))
                summary.since, summary.at_once, summary.count, summary.last = now, 0, 0, ""
        return messages

    def put_back(self, messages: Sequence[RejectionMessage]) -> None:
        """Keep messages that could not be written; beyond a limit the newest are dropped."""
        self._due = [*messages, *self._due][:_WAITING]
        self._not_before = self._monotonic() + _RETRY_AFTER

    def _summary(self, reason: Reason) -> _ReasonSummary:
        summary = self._summaries.get(reason)
        if summary is None:
            summary = self._summaries[reason] = _ReasonSummary(self._monotonic(), _first(reason))
        return summary


class RejectionEvents:
    """Writes the messages of :class:`RejectionThrottle` as events; an error never stops packets."""

    def __init__(self, engine: Engine, layout: Layout, zone: tzinfo, report: Report) -> None:
        self.throttle = RejectionThrottle(report.monotonic)
        self._engine = engine
        self._events = EventLog(Sql(engine.dialect), layout)
        self._zone = zone
        self._report = report

    def run_due(self, *, everything: bool = False) -> None:
        """Write what is due, or ``everything``; what cannot be written now is retried later."""
        # Not during an outage: a try takes time, and storing packets tries already.
        if not self._report.gauges.database_up or not (everything or self.throttle.due()):
            return
        messages = self.throttle.take(everything=everything)
        try:
            try:
                self._write(messages)
            except StoreRefused:
                # A name may have characters that the database's character set cannot hold.
                self._write([_plain(each) for each in messages])
        except StoreRefused as error:
            log.error("events of rejected packets are lost: %s", error)
        except StoreError as error:
            log.debug("events of rejected packets are retried later: %s", error)
            self.throttle.put_back(messages)

    def _write(self, messages: Sequence[RejectionMessage]) -> None:
        if not messages:
            return
        now = int(self._report.clock())
        with translating("write events of rejected packets"), self._engine.begin() as conn:
            agents = agent_ids(conn, {each.agent for each in messages if each.agent})
            events = [
                Event("error", MAINTENANCE, each.text, agents.get(each.agent or "", 0))
                for each in messages
            ]
            self._events.write(conn, events, now, local_text(now, self._zone))


def _plain(each: RejectionMessage) -> RejectionMessage:
    """The message in ASCII, without an agent whose name has other characters."""
    text = each.text.encode("ascii", "backslashreplace").decode("ascii")
    return RejectionMessage(text, each.agent if each.agent and each.agent.isascii() else None)


def _first(reason: Reason) -> int:
    return 0 if reason in _SUMMED_UP else FIRST


def _is_due(summary: _ReasonSummary, now: float) -> bool:
    return summary.count > 0 and now - summary.since >= PERIOD


def _sum_text(reason: Reason, summary: _ReasonSummary, now: float) -> str:
    minutes = max(1, round((now - summary.since) / 60))
    span = "minute" if minutes == 1 else f"{minutes} minutes"
    more = "" if reason in _SUMMED_UP else "more "
    packets = "packet" if summary.count == 1 else "packets"
    return (
        f"{summary.count} {more}{packets} rejected as {reason} in the last {span}, "
        f"the last one {summary.last}"
    )


def _quoted(name: str) -> str:
    text = ascii(name[:_LONGEST_NAME])
    return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 4]}...'"


def _printable(text: str, longest: int) -> str:
    """``text`` in printable ASCII, which a column of any character set can hold."""
    # Cut before as well: an uploader's text may be of any length.
    text = text[:longest].encode("ascii", "backslashreplace").decode("ascii")
    text = "".join(char if char.isprintable() else " " for char in text)
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
