"""Telling of clocks that are wrong: agents', each once an hour, and the server's own.

Names are the uploaders', and there may be very many of them: of an hour no more than a few lines
are written, the rest is told as a sum.
"""

from __future__ import annotations

import logging

from dataserver.ingest.report import Report
from dataserver.rules import entities
from dataserver.rules.moments import duration_text
from dataserver.store.clocks import Clocks, Note

log = logging.getLogger(__name__)

#: Agents named in one period, and its length in seconds.
LINES, PERIOD = 20, 3_600.0
#: Seconds for which the own clock must look right before it is said to be.
_STEADY = 300.0
#: Agents that are remembered as told, and characters of a name.
_MOST, _LONGEST = 10_000, 100


class ClockWarnings:
    """Says what ``clocks`` found, in the log, the status and the metrics."""

    def __init__(self, clocks: Clocks, report: Report) -> None:
        self._clocks = clocks
        self._report = report
        self._until = float("-inf")
        #: Who was told in this period, by name and what was told; and how many were only counted.
        self._told: set[tuple[str, bool]] = set()
        self._more = 0
        #: When the own clock last looked wrong (monotonic seconds).
        self._behind_at = float("-inf")

    def run_due(self) -> None:
        """Tell what was found since the last call."""
        self._own()
        self._report.gauges.agents_ahead = self._clocks.ahead
        now = self._report.monotonic()
        if now >= self._until:
            if self._more:
                log.warning("the clocks of %d more agents were ahead or put right", self._more)
            self._until, self._more = now + PERIOD, 0
            self._told.clear()
        for note in self._clocks.take():
            self._agent(note)

    def _agent(self, note: Note) -> None:
        told = note.agent, note.put_right
        if told in self._told or len(self._told) >= _MOST:
            return
        self._told.add(told)
        if len(self._told) > LINES:
            self._more += 1
            return
        name, ahead = entities.decode(note.agent)[:_LONGEST], duration_text(note.seconds)
        if note.put_right:
            log.info(
                "agent %a: its clock, %s ahead until now, was put right;"
                " its packets count as present again",
                name,
                ahead,
            )
        else:
            log.warning(
                "agent %a: its packet's time is %s ahead of this server's clock;"
                " set the agent's clock or time zone",
                name,
                ahead,
            )

    def _own(self) -> None:
        now = self._report.monotonic()
        if self._clocks.own_is_behind:
            self._behind_at = now
            self._report.clock_behind(self._clocks.ahead, self._clocks.agents)
        elif now - self._behind_at >= _STEADY:
            self._report.clock_right()
