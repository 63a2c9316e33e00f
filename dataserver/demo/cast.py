"""Who sends in the demo: a dozen agents, each with something to be seen in its graphs."""

from __future__ import annotations

from dataserver.demo import others, servers
from dataserver.demo.common import APPLICATION, NETWORK, machine, made
from dataserver.demo.kit import Kit, World
from dataserver.demo.model import Agent
from dataserver.demo.noise import DAY, HOUR

#: In this order, so that a few of them show the most different things.
_MAKERS = (
    servers.web1,
    servers.backup,
    others.coldstore,
    others.desk,
    servers.erp,
    others.branch,
    servers.web2,
    servers.db1,
    others.router1,
    others.press,
    servers.shop,
    others.firewall,
)


def cast(world: World, agents: int) -> list[Agent]:
    """The first ``agents`` of them; beyond the dozen, more servers that are all alike."""
    found = [make(world) for make in _MAKERS[:agents]]
    return found + [_more(world, number) for number in range(len(found) + 1, agents + 1)]


def _more(world: World, number: int) -> Agent:
    name = f"node{number:03}"
    kit = Kit(world, name)
    modules = [
        *machine(kit),
        kit.disk("Disk /", least=30, most=85, period=9 * DAY, now=kit.key("disk") % 100 / 100),
        kit.counter("Bytes sent", 50_000.0, unit="B/s", group=NETWORK),
        kit.switch("sshd", every=15 * DAY, longest=HOUR, group=APPLICATION),
    ]
    about, host = "One of many", 120 + number % 130
    return made(world, name, modules, alias=name, group="Servers", description=about, host=host)
