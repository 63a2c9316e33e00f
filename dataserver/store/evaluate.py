"""Evaluates values: each one changes its module's cache entry, each new one becomes a row.

This is the hot path of the server: a few hundred thousand values a second pass through it.
"""

from __future__ import annotations

import re
from collections.abc import Container
from datetime import tzinfo

from dataserver.errors import StoreRefused
from dataserver.model import Arrival, Module
from dataserver.rules.due import DEFAULT_INTERVAL, expected_interval
from dataserver.rules.events import number_text, status_event, text_data
from dataserver.rules.refusals import Refusal
from dataserver.rules.status import PLAIN, Status, advance, given, judge_number, judge_text
from dataserver.rules.times import SLACK, is_auto_time, past_doubled_hour, sample_time
from dataserver.rules.values import (
    DAY,
    Kind,
    TypeRule,
    limited,
    number,
    parse_number,
    reading,
    type_rule,
)
from dataserver.store.cache import AgentEntry, ModuleEntry
from dataserver.store.changes import CHANGED, REMEMBERED, RUN, SEEN, STATUS, TRIED, Changes
from dataserver.store.refused import stored_name

_KEEP_ALIVE = type_rule("keep_alive")
#: Where a value's time comes from: its packet; the value itself; the value itself, and it gets a
#: row of its own, since its time is ahead of the clock or the packet and may be corrected later.
_PACKETS, _OWN, _ALONE = 0, 1, 2
#: Later than any time.
_NEVER = float("inf")
_ESCAPED = re.compile(r"""['"\\\n\r\0\x1a]""")


class Evaluator:
    """Turns the modules of packets into new states of cache entries and rows of a batch."""

    def __init__(self, zone: tzinfo, longest_text: int, max_ahead: int) -> None:
        """``longest_text``: maximum bytes of a value in the database; ``max_ahead`` in seconds."""
        self._zone = zone
        self._max_ahead = max_ahead
        self._longest_text = longest_text

    def refuse_all(
        self, batch: Changes, agent: AgentEntry, module: Module, reason: Refusal
    ) -> None:
        """Refuse the values of a module that could not be created, or whose type is unknown."""
        count = len(module.samples) or 1
        value = module.samples[-1].value if module.samples else module.value
        if reason is Refusal.UNKNOWN_TYPE:
            value = module.type
        batch.refuse(agent, stored_name(module.name), reason, value, count)
        if module.name:
            batch.tally.samples += count
            batch.tally.refused += count

    def module(
        self,
        batch: Changes,
        agent: AgentEntry,
        entry: ModuleEntry,
        module: Module,
        arrival: Arrival,
        types: Container[str],
        late: bool,
    ) -> None:
        """Evaluate the values of ``module``; those of a ``late`` packet make no events."""
        if entry.disabled:
            return
        if entry.rule[0] != module.type:
            if module.type and module.type not in types:
                self.refuse_all(batch, agent, module, Refusal.UNKNOWN_TYPE)
                return
            entry.rule = (module.type, type_rule(module.type or "generic_data"))
            entry.judged = None
        rule = entry.rule[1]
        # A value from this time on is current, whatever the state's time.
        since = _NEVER if late else agent.newest
        tags = module.tags
        status = None
        if "status" in tags:
            status = given(tags["status"])
            if status is None and tags["status"].strip():
                batch.refuse(agent, entry.name, Refusal.STATUS, tags["status"])
        hushed = late or agent.quiet or entry.quiet
        stamp = tags.get("timestamp")
        if not module.samples and stamp is None:
            value, time = module.value, arrival.time
            self._value(batch, agent, entry, rule, value, time, _PACKETS, status, hushed, since)
            return
        if not entry.own_times:
            entry.own_times = True
            batch.own_times.add(entry.id)
        limit = batch.now + SLACK
        packet_time = batch.now if arrival.time is None else arrival.time
        # The latest time that is possible and does not contradict the packet's time.
        likely = -1 if packet_time > limit else min(limit, packet_time + SLACK)
        for text, written in module.samples or ((module.value, stamp),):
            time = self._own_time(batch, arrival, written)
            if time is None:
                batch.tally.samples += 1
                self._refuse_time(batch, agent, entry, arrival, written)
                continue
            own_time = _ALONE if time > likely else _OWN
            self._value(batch, agent, entry, rule, text, time, own_time, status, hushed, since)
            if since < time <= limit:
                since = time

    def contact(self, batch: Changes, agent: AgentEntry, text: str) -> None:
        """Give ``text`` to the agent's keep_alive modules: 1 if it is heard, 0 if not.

        Their time is that of the contact, by the server's clock.  Disabled modules get it too, as
        with the Perl server.
        """
        for entry in agent.keep_alives:
            hushed, now = agent.quiet or entry.quiet, batch.now
            self._value(batch, agent, entry, _KEEP_ALIVE, text, now, _PACKETS, None, hushed, 0)

    def _own_time(self, batch: Changes, arrival: Arrival, written: str | None) -> int | None:
        """The usable time of a value that came with its own, or None."""
        offset = arrival.packet.timezone_offset
        time = sample_time(written, packet_time=arrival.time, offset=offset, zone=self._zone)
        if time is None or not 0 < time <= batch.now + self._max_ahead:
            return None
        return time

    def _value(
        self,
        batch: Changes,
        agent: AgentEntry,
        entry: ModuleEntry,
        rule: TypeRule,
        raw: str | None,
        time: int | None,
        own_time: int,
        status: Status | None,
        hushed: bool,
        since: float,
    ) -> None:
        tally = batch.tally
        tally.samples += 1
        kind = rule.kind
        if not raw or time is None:
            # A packet without a time is reported once, not with each of its values.
            reason = None if time is None else Refusal.NO_VALUE
            self._refuse(batch, agent, entry, time, reason, raw)
            return
        kept: tuple[str, float | str] | None
        if kind is Kind.NUMBER:
            kept = number(raw, entry.bounds)
            if kept is None:
                is_number = parse_number(raw) is not None
                reason = Refusal.OUT_OF_BOUNDS if is_number else Refusal.NOT_A_NUMBER
                self._refuse(batch, agent, entry, time, reason, raw)
        elif kind is Kind.TEXT:
            if len(raw) * 4 > self._longest_text:
                self._check_length(raw)
            kept = raw, raw
        else:
            kept = self._counter(batch, agent, entry, kind, raw, time, since)
        if kept is not None:
            if entry.cron or not entry.interval:
                self._expect(batch, entry, agent.interval)
            self._accept(batch, agent, entry, rule, kept, time, own_time, status, hushed, since)

    def _accept(  # noqa: PLR0912 - the hot path: a call costs as much as the rest of a branch
        self,
        batch: Changes,
        agent: AgentEntry,
        entry: ModuleEntry,
        rule: TypeRule,
        kept: tuple[str, float | str],
        time: int,
        own_time: int,
        status: Status | None,
        hushed: bool,
        since: float,
    ) -> None:
        """Put a value into the state, and into history if it is new."""
        kind, is_async, _ = rule
        text, value = kept
        if time < entry.time:
            if not since <= time <= batch.now + SLACK < entry.time:
                own, has_row = own_time > _PACKETS, own_time == _ALONE
                batch.late_sample(agent, entry, rule, time, value, own, has_row=has_row)
                return
            self._reset_ahead(batch, agent, entry, time)
        changed = text != entry.value
        if changed or status is not None or entry.judged is None:
            status = self._judge(entry, rule, text, value, status)
        else:
            status = entry.judged
        if status is not entry.settled:
            grown = entry.grown
            if grown is not None and status is grown.status:
                batch.touch(agent, entry, RUN)
                entry.standing, entry.settled, entry.grown = grown, status, None
            else:
                self._advance(batch, agent, entry, is_async, status, value, time, hushed)
        if entry.saved > entry.time:
            self._store_among(batch, agent, entry, rule, time, value, own_time)
            entry.value = text
            how = CHANGED
        elif changed or own_time == _ALONE or entry.saved < time - DAY:
            if entry.history or is_async:
                batch.point(entry, kind, time, value)
            if entry.history:
                entry.saved = time
            entry.value = text
            how = CHANGED
        else:
            if is_async:
                batch.point(entry, kind, time, value)
            how = SEEN
        entry.time = time
        entry.tried = 0
        if not entry.dirty:
            batch.touched.append((agent, entry))
        entry.dirty |= how

    def _reset_ahead(
        self, batch: Changes, agent: AgentEntry, entry: ModuleEntry, time: int
    ) -> None:
        """Reset a state whose time lies ahead, for a value of ``time``: its clock was corrected.

        ``saved`` stays later than the state's time until a value reaches it, which marks that
        history has rows up to then.
        """
        # The database stores it as a local time.
        entry.saved = past_doubled_hour(max(entry.saved, entry.time) + 1, self._zone)
        entry.time = 0
        limit, before = batch.now + SLACK, entry.standing
        changed_at = time if before.changed_at > limit else before.changed_at
        run_start = time if before.run_start > limit else before.run_start
        standing = before._replace(changed_at=changed_at, run_start=run_start)
        if standing != before:
            entry.stand(standing)
            batch.touch(agent, entry, STATUS)

    def _store_among(
        self,
        batch: Changes,
        agent: AgentEntry,
        entry: ModuleEntry,
        rule: TypeRule,
        time: int,
        value: float | str,
        own_time: int,
    ) -> None:
        """Put a value into history that has rows later than the state, before ``entry.saved``."""
        kind, is_async, _ = rule
        if time < entry.saved:
            own = own_time > _PACKETS
            batch.late_sample(agent, entry, rule, time, value, own, has_row=own, is_among=True)
            return
        # The last of those rows holds until now, so this value is stored even if it is equal.
        if entry.history or is_async:
            batch.point(entry, kind, time, value)
        if entry.history:
            entry.saved = time

    def _judge(
        self,
        entry: ModuleEntry,
        rule: TypeRule,
        text: str,
        value: float | str,
        by_packet: Status | None,
    ) -> Status:
        """The status of the value by itself: that of the packet, else by thresholds."""
        rules = entry.rules
        if by_packet is not None:
            status = by_packet
        elif rules is PLAIN and not rule.is_proc:
            status = Status.NORMAL
        elif isinstance(value, str):
            status = judge_text(rules, text)
        else:
            status = judge_number(rules, value, rule.is_proc, entry.value)
        # An equal value need not be judged again, unless more than the value decides.
        entry.judged = None if by_packet is not None or rules.relative else status
        return status

    def _advance(
        self,
        batch: Changes,
        agent: AgentEntry,
        entry: ModuleEntry,
        is_async: bool,
        status: Status,
        value: float | str,
        time: int,
        hushed: bool,
    ) -> None:
        """Update the module's status for a value of ``status``, with its event."""
        before = entry.standing
        step = advance(entry.rules, before, status, time, is_async)
        if step.standing != before:
            entry.standing = step.standing
            entry.settled, entry.grown = step.shortcut
            batch.touch(agent, entry, RUN if step.grew else STATUS)
            if step.standing.status is not before.status:
                batch.recount[agent.id] = agent
        if step.event_status is None or batch.storm:
            return
        returned = before.status is Status.UNKNOWN and step.event_status is step.previous
        if returned and not entry.tells_unknown:
            return
        if entry.open_events:
            batch.overtaken.add(entry.id)
            entry.open_events = False
        if hushed:
            return
        data = text_data(value) if isinstance(value, str) else number_text(value)
        ids = agent.id, entry.id
        known = agent.group_id, entry.about
        event = status_event(step.previous, step.event_status, *ids, entry.name, data, *known)
        if event is not None:
            entry.open_events = not event.closed
            batch.events.append(event)

    def _counter(
        self,
        batch: Changes,
        agent: AgentEntry,
        entry: ModuleEntry,
        kind: Kind,
        raw: str,
        time: int,
        since: float,
    ) -> tuple[str, float] | None:
        """The rate or difference since the last reading, or None if it cannot be computed."""
        parsed = parse_number(raw)
        if parsed is None:
            self._refuse(batch, agent, entry, time, Refusal.NOT_A_NUMBER, raw)
            return None
        last = entry.counter
        if last and kind is Kind.RATE and since <= time <= batch.now + SLACK < last[1]:
            last = None  # stored while the clock was ahead: start again
        read = reading(kind, parsed, time, last)
        if read.late:
            batch.tally.late_counters_dropped += 1
            return None
        is_reset = read.remember and entry.counter is not None
        if read.remember:
            entry.counter = (parsed, time)
            batch.counters[entry.id] = entry
        if read.amount is None:
            self._tried(batch, agent, entry, REMEMBERED if is_reset else TRIED)
            return None
        kept = limited(read.amount, entry.bounds)
        if kept is None:
            self._refuse(batch, agent, entry, time, Refusal.OUT_OF_BOUNDS, raw)
        return kept

    def _refuse_time(
        self,
        batch: Changes,
        agent: AgentEntry,
        entry: ModuleEntry,
        arrival: Arrival,
        written: str | None,
    ) -> None:
        """Refuse a value whose own time, as ``written``, cannot be used."""
        offset = arrival.packet.timezone_offset
        time = sample_time(written, packet_time=None, offset=offset, zone=self._zone)
        reason: Refusal | None = Refusal.TIME_AHEAD if time else Refusal.TIME
        if is_auto_time(written):
            reason = None  # it has the packet's time, which is reported already
        self._refuse(batch, agent, entry, None, reason, written)

    def _refuse(
        self,
        batch: Changes,
        agent: AgentEntry,
        entry: ModuleEntry,
        time: int | None,
        reason: Refusal | None,
        raw: str | None,
    ) -> None:
        """Count a value as refused; report the ``reason`` unless that is done elsewhere (None)."""
        if reason is not None:
            batch.refuse(agent, entry.name, reason, raw)
        batch.tally.refused += 1
        if time is None or time >= entry.time or entry.time > batch.now + SLACK:
            self._tried(batch, agent, entry, TRIED)

    def _tried(self, batch: Changes, agent: AgentEntry, entry: ModuleEntry, how: int) -> None:
        """Note an attempt that gave no value, or no value yet."""
        entry.tried = batch.now
        if entry.cron or not entry.interval:
            self._expect(batch, entry, 0)
        batch.touch(agent, entry, how)

    def _expect(self, batch: Changes, entry: ModuleEntry, agent_interval: int) -> None:
        """Set when the next value of a module with a cron expression or no interval is due."""
        interval = entry.interval or agent_interval or DEFAULT_INTERVAL
        entry.expected = expected_interval(entry.cron, batch.now, interval, self._zone)

    def _check_length(self, text: str) -> None:
        # Quotes, backslashes and line ends are sent as two bytes each.
        length = len(text.encode("utf-8", "replace")) + len(_ESCAPED.findall(text))
        if length > self._longest_text:
            raise StoreRefused(
                f"a value of {length} bytes is longer than the database accepts"
                f" ({self._longest_text})"
            )
