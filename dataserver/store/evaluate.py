"""Evaluating values: each one seen changes its module's entry, each new one becomes a row.

The hot path of the server: a few hundred thousand values a second pass here.
"""

from __future__ import annotations

import re
from collections.abc import Container
from datetime import tzinfo

from dataserver.errors import StoreRefused
from dataserver.model import Arrival, Module
from dataserver.rules.due import expected_interval
from dataserver.rules.events import number_text, status_event, text_data
from dataserver.rules.refusals import Refusal
from dataserver.rules.status import PLAIN, Status, advance, given, judge_number, judge_text
from dataserver.rules.times import SLACK, past_doubled_hour, sample_time, says_nothing
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
from dataserver.store.cache import INTERVAL, AgentEntry, ModuleEntry
from dataserver.store.changes import CHANGED, REMEMBERED, RUN, SEEN, STATUS, TRIED, Changes
from dataserver.store.refused import stored_name

_KEEP_ALIVE = type_rule("keep_alive")
#: Whose a value's time is: its packet's; its own; its own and to be found in history alone, since
#: it lies ahead of the clock or of its packet, and a clock may be put right.
_PACKETS, _OWN, _ALONE = 0, 1, 2
#: Later than any time.
_NEVER = float("inf")
_ESCAPED = re.compile(r"""['"\\\n\r\0\x1a]""")


class Evaluator:
    """Turns modules of packets into entries' new states and a batch's rows."""

    def __init__(self, zone: tzinfo, longest_text: int, max_ahead: int) -> None:
        """``longest_text``: bytes that the database takes in a value; ``max_ahead`` in seconds."""
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
        """Evaluate the values that ``module`` carries; of a ``late`` packet nobody is told."""
        if entry.disabled:
            return
        if entry.rule[0] != module.type:
            if module.type and module.type not in types:
                self.refuse_all(batch, agent, module, Refusal.UNKNOWN_TYPE)
                return
            entry.rule = (module.type, type_rule(module.type or "generic_data"))
            entry.judged = None
        rule = entry.rule[1]
        # From when on a value is the present, whatever the state's time.
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
        # A time that can be true, and that the packet's own does not contradict.
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
        """Give ``text`` to the agent's keep_alive modules: 1 says that it is heard of, 0 not.

        Their time is that of the contact, which is the server's clock.  Disabled ones have it
        too, as with the Perl server.
        """
        for entry in agent.keep_alives:
            hushed, now = agent.quiet or entry.quiet, batch.now
            self._value(batch, agent, entry, _KEEP_ALIVE, text, now, _PACKETS, None, hushed, 0)

    def _own_time(self, batch: Changes, arrival: Arrival, written: str | None) -> int | None:
        """The time of a value that came with its own; None: it has none that can be used."""
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
            # A packet without a time is noted once, not with each of its values.
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
        """A value as it is kept: into the state, and into history where it is new."""
        kind, is_async, _ = rule
        text, value = kept
        if time < entry.time:
            if not since <= time <= batch.now + SLACK < entry.time:
                own, has_row = own_time > _PACKETS, own_time == _ALONE
                batch.late_sample(agent, entry, rule, time, value, own, has_row=has_row)
                return
            self._put_right(batch, agent, entry, time)
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

    def _put_right(self, batch: Changes, agent: AgentEntry, entry: ModuleEntry, time: int) -> None:
        """Give up a state whose time lies ahead, for a value of ``time``.

        From now on ``saved`` is later than the state's time, until a value is no earlier than that:
        so it stays known that history has rows before then.
        """
        # The database keeps it as a local time.
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
        """Into history, which has rows later than the state, before ``entry.saved``."""
        kind, is_async, _ = rule
        if time < entry.saved:
            own = own_time > _PACKETS
            batch.late_sample(agent, entry, rule, time, value, own, has_row=own, is_among=True)
            return
        # The last of those rows holds until now, so this one is stored also if nothing changed.
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
        told: Status | None,
    ) -> Status:
        """The status of the value by itself: as ``told``, else by thresholds."""
        rules = entry.rules
        if told is not None:
            status = told
        elif rules is PLAIN and not rule.is_proc:
            status = Status.NORMAL
        elif isinstance(value, str):
            status = judge_text(rules, text)
        else:
            status = judge_number(rules, value, rule.is_proc, entry.value)
        # The same value again needs no second look, unless more than the value decides.
        entry.judged = None if told is not None or rules.relative else status
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
        """Let a value of ``status`` change where the module stands."""
        before = entry.standing
        step = advance(entry.rules, before, status, time, is_async)
        if step.standing != before:
            entry.standing = step.standing
            entry.settled, entry.grown = step.rest
            batch.touch(agent, entry, RUN if step.grew else STATUS)
            if step.standing.status is not before.status:
                batch.recount[agent.id] = agent
        if step.told is None or batch.storm:
            return
        returned = before.status is Status.UNKNOWN and step.told is step.was
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
        event = status_event(step.was, step.told, *ids, entry.name, data, *known)
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
        """The rate or difference since the last reading; None: there is none to be had."""
        parsed = parse_number(raw)
        if parsed is None:
            self._refuse(batch, agent, entry, time, Refusal.NOT_A_NUMBER, raw)
            return None
        last = entry.counter
        if last and kind is Kind.RATE and since <= time <= batch.now + SLACK < last[1]:
            last = None  # remembered when the clock was ahead: it begins anew
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
        if says_nothing(written):
            reason = None  # it has the packet's time, which is noted
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
        """Count a value as refused; note it with a ``reason``, None: that is noted elsewhere."""
        if reason is not None:
            batch.refuse(agent, entry.name, reason, raw)
        batch.tally.refused += 1
        if time is None or time >= entry.time or entry.time > batch.now + SLACK:
            self._tried(batch, agent, entry, TRIED)

    def _tried(self, batch: Changes, agent: AgentEntry, entry: ModuleEntry, how: int) -> None:
        """Note that a value was tried that is none, or none yet."""
        entry.tried = batch.now
        if entry.cron or not entry.interval:
            self._expect(batch, entry, 0)
        batch.touch(agent, entry, how)

    def _expect(self, batch: Changes, entry: ModuleEntry, agent_interval: int) -> None:
        """Set how long to wait for the next value of a module with a cron expression or none."""
        interval = entry.interval or agent_interval or INTERVAL
        entry.expected = expected_interval(entry.cron, batch.now, interval, self._zone)

    def _check_length(self, text: str) -> None:
        # Quotes, backslashes and line ends travel as two bytes each.
        length = len(text.encode("utf-8", "replace")) + len(_ESCAPED.findall(text))
        if length > self._longest_text:
            raise StoreRefused(
                f"a value of {length} bytes is longer than the database takes"
                f" ({self._longest_text})"
            )
