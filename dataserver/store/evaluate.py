"""Evaluating values: each one seen changes its module's entry, each new one becomes a row.

The hot path of the server: a few hundred thousand values a second pass here.
"""

from __future__ import annotations

import re
from collections.abc import Container
from datetime import tzinfo

from dataserver.errors import StoreRefused
from dataserver.model import Arrival, Module
from dataserver.store.batch import CHANGED, REMEMBERED, SEEN, TRIED, Batch, LateSample
from dataserver.store.catalog import AgentEntry, ModuleEntry
from dataserver.times import sample_time
from dataserver.values import (
    DAY,
    Kind,
    TypeRule,
    limited,
    number,
    parse_number,
    reading,
    type_rule,
)

_ESCAPED = re.compile(r"""['"\\\n\r\0\x1a]""")


class Evaluator:
    """Turns modules of packets into entries' new states and a batch's rows."""

    def __init__(self, zone: tzinfo, longest_text: int, max_ahead: int) -> None:
        """``longest_text``: bytes that the database takes in a value; ``max_ahead`` in seconds."""
        self._zone = zone
        self._max_ahead = max_ahead
        self._longest_text = longest_text

    def refuse_all(self, batch: Batch, module: Module) -> None:
        """Count the values of a module that could not be created."""
        if module.name:
            count = len(module.samples) or 1
            batch.tally.samples += count
            batch.tally.refused += count

    def module(
        self,
        batch: Batch,
        agent: AgentEntry,
        entry: ModuleEntry,
        module: Module,
        arrival: Arrival,
        types: Container[str],
    ) -> None:
        """Evaluate the values that ``module`` carries."""
        if entry.disabled:
            return
        if entry.rule[0] != module.type:
            if module.type and module.type not in types:
                self.refuse_all(batch, module)
                return
            entry.rule = (module.type, type_rule(module.type or "generic_data"))
        rule = entry.rule[1]
        stamp = module.tags.get("timestamp")
        if not module.samples and stamp is None:
            self._value(batch, agent, entry, rule, module.value, arrival.time, False)
            return
        if not entry.own_times:
            entry.own_times = True
            batch.own_times.add(entry.id)
        for text, written in module.samples or ((module.value, stamp),):
            time = self._own_time(batch, arrival, written)
            self._value(batch, agent, entry, rule, text, time, True)

    def _own_time(self, batch: Batch, arrival: Arrival, written: str | None) -> int | None:
        """The time of a value that came with its own; None: it has none that can be used."""
        offset = arrival.packet.timezone_offset
        time = sample_time(written, packet_time=arrival.time, offset=offset, zone=self._zone)
        if time is None or not 0 < time <= batch.now + self._max_ahead:
            return None
        return time

    def _value(
        self,
        batch: Batch,
        agent: AgentEntry,
        entry: ModuleEntry,
        rule: TypeRule,
        raw: str | None,
        time: int | None,
        own_time: bool,
    ) -> None:
        tally = batch.tally
        tally.samples += 1
        kind = rule.kind
        if not raw or time is None:
            self._refuse(batch, agent, entry, time)
            return
        kept: tuple[str, float | str] | None
        if kind is Kind.NUMBER:
            kept = number(raw, entry.bounds)
            if kept is None:
                self._refuse(batch, agent, entry, time)
        elif kind is Kind.TEXT:
            if len(raw) * 4 > self._longest_text:
                self._check_length(raw)
            kept = raw, raw
        else:
            kept = self._counter(batch, agent, entry, kind, raw, time)
        if kept is not None:
            self._accept(batch, agent, entry, rule, kept, time, own_time)

    def _accept(
        self,
        batch: Batch,
        agent: AgentEntry,
        entry: ModuleEntry,
        rule: TypeRule,
        kept: tuple[str, float | str],
        time: int,
        own_time: bool,
    ) -> None:
        """A value as it is kept: into the state, and into history where it is new."""
        kind, is_async, _ = rule
        text, value = kept
        if time < entry.time:
            if is_async or entry.history:
                is_text = kind is Kind.TEXT
                batch.late.append(
                    LateSample(agent, entry, is_text, is_async, time, value, own_time)
                )
            return
        changed = text != entry.value
        if changed or entry.saved < time - DAY:
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

    def _counter(
        self, batch: Batch, agent: AgentEntry, entry: ModuleEntry, kind: Kind, raw: str, time: int
    ) -> tuple[str, float] | None:
        """The rate or difference since the last reading; None: there is none to be had."""
        parsed = parse_number(raw)
        if parsed is None:
            self._refuse(batch, agent, entry, time)
            return None
        read = reading(kind, parsed, time, entry.counter)
        if read.late:
            batch.tally.late_counters_dropped += 1
            return None
        if read.remember:
            entry.counter = (parsed, time)
            batch.counters[entry.id] = entry
        if read.amount is None:
            entry.tried = batch.now
            batch.touch(agent, entry, REMEMBERED)
            return None
        kept = limited(read.amount, entry.bounds)
        if kept is None:
            self._refuse(batch, agent, entry, time)
        return kept

    def _refuse(
        self, batch: Batch, agent: AgentEntry, entry: ModuleEntry, time: int | None
    ) -> None:
        batch.tally.refused += 1
        if time is None or time >= entry.time:
            entry.tried = batch.now
            batch.touch(agent, entry, TRIED)

    def _check_length(self, text: str) -> None:
        # Quotes, backslashes and line ends travel as two bytes each.
        length = len(text.encode("utf-8", "replace")) + len(_ESCAPED.findall(text))
        if length > self._longest_text:
            raise StoreRefused(
                f"a value of {length} bytes is longer than the database takes"
                f" ({self._longest_text})"
            )
