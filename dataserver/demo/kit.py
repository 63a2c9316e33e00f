"""The parts of made-up agents: levels, counters, disks, switches, texts, and what most share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from typing import Any

from dataserver.demo.model import Agent, Limits, Module
from dataserver.demo.noise import (
    DAY,
    HOUR,
    chance,
    daylight,
    daylight_since,
    drift,
    incident,
    key,
    rounded,
    weekday,
)

#: Seconds between packets of most agents.
INTERVAL = 300
MINUTE = 60
#: Groups of modules, as Pandora's database spells them.
NETWORK, APPLICATION, DATABASE = "Networking", "Application", "Database"
ENVIRONMENT, PERFORMANCE = "Enviromental", "Performance"
_LINUX = ("Linux", "Debian GNU/Linux 12 (bookworm)")


@dataclass(frozen=True, slots=True)
class World:
    """What all made-up values depend on: ``end`` is the end of the history (epoch seconds).

    What should always be visible (an outage, a silence) is placed relative to it.
    """

    seed: int
    end: int
    zone: tzinfo

    def offset(self) -> int:
        """The zone's offset from UTC in seconds; constant, so that no wave ever jumps."""
        offset = datetime.fromtimestamp(self.end, self.zone).utcoffset()
        return 0 if offset is None else int(offset.total_seconds())


@dataclass(frozen=True, slots=True)
class Burst:
    """Rises of a level by ``height``, as :func:`~dataserver.demo.noise.incident`."""

    height: float
    every: int
    longest: int


class Kit:
    """Makes the modules of one agent; ``about`` are fields of :class:`Module`."""

    def __init__(self, world: World, agent: str) -> None:
        self._world = world
        self._agent = agent
        self._offset = world.offset()

    def key(self, name: str) -> int:
        """The key of the random values of this agent's ``name``."""
        return key(self._world.seed, self._agent, name)

    def local(self, time: int) -> int:
        """``time`` in local seconds."""
        return time + self._offset

    def level(
        self,
        name: str,
        base: float,
        *,
        step: float,
        day: float = 0.0,
        slow: float = 0.0,
        quick: float = 0.0,
        burst: Burst | None = None,
        low: float = 0.0,
        high: float = math.inf,
        **about: Any,
    ) -> Module:
        """A number around ``base``: more by day, less at the weekend, drifting, with bursts."""
        ours = self.key(name)

        def value(time: int) -> str:
            local = self.local(time)
            found = base + slow * drift(ours, time, DAY) + quick * drift(ours + 1, time, HOUR)
            found += day * daylight(local) * (0.4 if weekday(local) > 4 else 1.0)
            if burst is not None:
                part = incident(ours + 2, time, burst.every, burst.longest)
                found += burst.height * math.sin(math.pi * part) if part >= 0 else 0.0
            return rounded(min(max(found, low), high), step)

        return Module(name, "generic_data", value, **about)

    def counter(self, name: str, rate: float, *, booted: int | None = None, **about: Any) -> Module:
        """A counter that grows by about ``rate`` per second, more by day; reset at ``booted``."""
        ours, begin = self.key(name), self._world.end - 400 * DAY

        def total(time: int) -> float:
            # The integral of the rate, so that no reading is less than the one before.
            grown = 0.4 * (time - begin) + daylight_since(self.local(time))
            return rate * (grown + 240 * drift(ours, time, 2 * HOUR))

        def value(time: int) -> str:
            since = booted if booted is not None and time >= booted else begin
            return str(int(total(time) - total(since)))

        return Module(name, "generic_data_inc", value, **about)

    def disk(
        self, name: str, *, least: float, most: float, period: int, now: float, **about: Any
    ) -> Module:
        """A disk that fills from ``least`` to ``most`` percent in each ``period``.

        ``now`` is the part of a period that is over at the end of the history.
        """
        ours, end = self.key(name), self._world.end

        def value(time: int) -> str:
            part = ((time - end) / period + now) % 1.0
            uneven = 0.01 * drift(ours, time, 6 * HOUR)
            return rounded(least + (most - least) * min(max(part + uneven, 0.0), 1.0), 0.1)

        limits = above(80, 90)
        return Module(name, "generic_data", value, **{"unit": "%", "limits": limits, **about})

    def saw(
        self, name: str, *, least: float, most: float, period: int, step: float, **about: Any
    ) -> Module:
        """A number that grows for ``period`` seconds and drops back, to a varying height."""
        ours = self.key(name)

        def value(time: int) -> str:
            place, into = divmod(time + ours % period, period)
            top = most - 0.25 * (most - least) * chance(ours, place)
            return rounded(least + (top - least) * into / period, step)

        return Module(name, "generic_data", value, **about)

    def switch(
        self,
        name: str,
        *,
        every: int = 0,
        longest: int = HOUR,
        down: tuple[int, int] | None = None,
        **about: Any,
    ) -> Module:
        """1, and 0 in outages: one in each ``every`` seconds, and one from and to ``down``.

        ``down`` is in seconds relative to the end of the history.
        """
        ours, end = self.key(name), self._world.end

        def value(time: int) -> str:
            if down is not None and down[0] <= time - end < down[1]:
                return "0"
            return "0" if every and incident(ours, time, every, longest) >= 0 else "1"

        return Module(name, "generic_proc", value, **about)

    def text(self, name: str, text: Callable[[int], str | None], **about: Any) -> Module:
        """A text, by a function of the time."""
        return Module(name, "generic_data_string", text, **about)

    def log(self, name: str, text: Callable[[int], str | None], **about: Any) -> Module:
        """Log lines, each of which is stored."""
        return replace(self.text(name, text, **about), kind="async_string")


# -- what most made-up agents share --


def above(warning: float, critical: float) -> Limits:
    """Thresholds: warning from the first number on, critical from the second."""
    # An end below the beginning means without limit.
    return Limits(warning=(warning, critical), critical=(critical, critical - 1))


def make_agent(
    world: World,
    name: str,
    modules: list[Module],
    *,
    alias: str,
    group: str,
    system: tuple[str, str] = _LINUX,
    description: str,
    host: int,
    interval: int = INTERVAL,
    sends: Callable[[int], bool] = lambda _: True,
) -> Agent:
    """An agent of these modules; ``host`` is the last byte of its address."""
    attributes = {
        "agent_alias": alias,
        "description": description,
        "group": group,
        "os_name": system[0],
        "os_version": system[1],
        "version": "7.0NG.777",
        # RFC 5737: addresses for documentation.
        "address": f"192.0.2.{host}",
    }
    phase = Kit(world, name).key("phase") % interval
    return Agent(name, attributes, interval, phase, tuple(modules), sends)


def machine(kit: Kit, *, load: float = 0.6) -> list[Module]:
    """The modules of every server."""
    return [
        kit.level(
            "Load average",
            load,
            day=1.6 * load,
            slow=0.2 * load,
            quick=0.3 * load,
            step=0.05,
            burst=Burst(7.0, int(1.7 * DAY), 90 * MINUTE),
            limits=above(4, 8),
            group=PERFORMANCE,
        ),
        kit.level(
            "Memory used", 55, day=9, slow=7, quick=2, step=1, unit="%", limits=above(85, 95)
        ),
    ]


def version(kit: Kit, name: str, changed: int, before: str, after: str) -> Module:
    """The text ``before``, and from the time ``changed`` on ``after``."""
    return kit.text(name, lambda time: after if time >= changed else before, group=APPLICATION)
