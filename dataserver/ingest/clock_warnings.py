"""Warnings about wrong clocks: those of agents, each once an hour, and the server's own.

There may be very many agents, and uploaders choose their names: in an hour only a few lines are
logged, and the rest is summed up.
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
#: Seconds for which the server's clock must look right before the trouble is over.
_STEADY = 300.0
#: Agents that are remembered as logged, and characters of a name.
_MOST, _LONGEST = 10_000, 100


class ClockWarnings:
    """Reports what ``clocks`` found: in the log, the status and the metrics."""

    def __init__(self, clocks: Clocks, report: Report) -> None:
        self._clocks = clocks
        self._report = report
        self._until = float("-inf")
        #: The agents of this period, each with whether its clock was put right; and how many of
        #: them were only counted.
        self._noted: set[tuple[str, bool]] = set()
        self._not_logged = 0
        #: When the server's clock last looked wrong (monotonic seconds).
        self._behind_at = float("-inf")

    def run_due(self) -> None:
        """Report what was found since the last call."""
        self._check_own()
        self._report.gauges.agents_ahead = self._clocks.ahead
        now = self._report.monotonic()
        if now >= self._until:
            if self._not_logged:
                log.warning(
                    "the clocks of %d more agents were ahead or put right", self._not_logged
                )
            self._until, self._not_logged = now + PERIOD, 0
            self._noted.clear()
        for note in self._clocks.take():
            self._log(note)

    def _log(self, note: Note) -> None:
        noted = note.agent, note.put_right
        if noted in self._noted or len(self._noted) >= _MOST:
            return
        self._noted.add(noted)
        if len(self._noted) > LINES:
            self._not_logged += 1
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

    def _check_own(self) -> None:
        now = self._report.monotonic()
        if self._clocks.own_is_behind:
            self._behind_at = now
            self._report.clock_behind(self._clocks.ahead, self._clocks.agents)
        elif now - self._behind_at >= _STEADY:
            self._report.clock_right()
