"""What most made-up agents have in common."""

from __future__ import annotations

from collections.abc import Callable

from dataserver.demo.kit import Burst, Kit, World, above
from dataserver.demo.model import Agent, Module
from dataserver.demo.noise import DAY

#: Seconds between packets of all but the quick one.
INTERVAL = 300
MINUTE = 60

#: Groups of modules, as Pandora's database spells them.
NETWORK, APPLICATION, DATABASE = "Networking", "Application", "Database"
ENVIRONMENT, PERFORMANCE = "Enviromental", "Performance"

_LINUX = ("Linux", "Debian GNU/Linux 12 (bookworm)")


def made(
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
    attributes = {
        "agent_alias": alias,
        "description": description,
        "group": group,
        "os_name": system[0],
        "os_version": system[1],
        "version": "7.0NG.777",
        # Of RFC 5737: addresses for documentation.
        "address": f"192.0.2.{host}",
    }
    phase = Kit(world, name).key("phase") % interval
    return Agent(name, attributes, interval, phase, tuple(modules), sends)


def machine(kit: Kit, *, load: float = 0.6) -> list[Module]:
    """What every server has."""
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
    return kit.text(name, lambda time: after if time >= changed else before, group=APPLICATION)
