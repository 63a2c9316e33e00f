"""The files of each host of a pair: from the pair to texts; only a command writes them.

One folder per host, named after it.  Where each file belongs on that host is :data:`INSTALLED`.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from dataserver.config.load import Settings, load
from dataserver.config.paths import Home
from dataserver.errors import ConfigError, UsageError
from dataserver.templates import File, render
from dataserver.vrrp.health import STATE_DIR
from dataserver.vrrp.model import Host, Interface, Pair

#: Where keepalived's configuration and the scripts are on the hosts.
CONFIG_DIR = PurePosixPath("/etc/keepalived")
SCRIPTS = CONFIG_DIR / "dataserver"
CONFIG = "keepalived.conf"
#: What keepalived calls what it does for this pair.
VRRP_INSTANCE = "dataserver"

#: Each file of a host's folder but its README, and where it belongs on that host.
INSTALLED = MappingProxyType(
    {
        CONFIG: CONFIG_DIR / CONFIG,
        "check-health": SCRIPTS / "check-health",
        "check-drop": SCRIPTS / "check-drop",
        "notify": SCRIPTS / "notify",
        "keepalived.service.conf": PurePosixPath(
            "/etc/systemd/system/keepalived.service.d/dataserver.conf"
        ),
    }
)
README = "README.md"
_PROGRAMS = frozenset({"check-health", "check-drop", "notify"})


@dataclass(frozen=True, slots=True)
class Watched:
    """An instance without which a host is not well: where it is on both hosts (absolute)."""

    name: str
    var: Path
    data_in: Path


def render_pair(home: Home, pair: Pair, watched: Sequence[Watched]) -> list[File]:
    """All files of both hosts, with paths relative to the folder of the pair.

    ``home`` is where templates may lie that win over the packaged ones.  Raises ConfigError where
    a template cannot be used.
    """
    return [file for host in pair.hosts for file in _host(home, pair, host, watched)]


def _host(home: Home, pair: Pair, host: Host, watched: Sequence[Watched]) -> Iterator[File]:
    for name in (README, *INSTALLED):
        text = render(
            home,
            f"keepalived/templates/{name}.j2",
            pair=pair,
            host=host,
            twin=pair.twin(host),
            instances=watched,
            disk_warn_percent=pair.check.disk_warn_percent,
            disk_ok_percent=pair.check.disk_ok_percent,
            state_dir=str(STATE_DIR),
            home=str(pair.home),
            scripts=str(SCRIPTS),
            vrrp_instance=VRRP_INSTANCE,
            lifetime=_lifetime,
            quote=shlex.quote,
            words=_words(pair, host),
        )
        yield File(Path(host.name) / name, text, 0o755 if name in _PROGRAMS else 0o644)


def _lifetime(address: Interface) -> str:
    # Deprecated from the start (RFC 4862, 5.5.4): it answers, but what this host itself begins
    # does not come from it, and so does not break when the address moves on.
    return " preferred_lft 0" if address.version == 6 else ""


def _words(pair: Pair, host: Host) -> dict[str, str]:
    """What the README says of this pair in words."""
    twin = pair.twin(host)
    group = "224.0.0.18" if pair.talks == 4 else "ff02::12"
    own = [each.with_prefixlen for each in (host.address, host.address6) if each]
    check = pair.check
    if pair.preempt:
        first = max(pair.hosts, key=lambda each: each.priority).name
        wait = f", {pair.preempt_delay} s later" if pair.preempt_delay else ""
        after_start = f"{first} takes it back when it is well{wait}"
    else:
        after_start = "nothing moves: who has it keeps it"
    return {
        "own": " and ".join(f"`{each}`" for each in own),
        "virtual": ", ".join(str(each.ip) for each in pair.virtual_addresses),
        "names": ", ".join(f"`{each}`" for each in pair.instances),
        "from_whom": f"from `{twin.address.ip}`"
        if pair.unicast
        else f"from `{twin.address.ip}` to `{group}`",
        "after_start": after_start,
        "patience": f"{check.interval * check.fall} to {check.interval * (check.fall + 1) + 5}",
    }


# -- what of a home its pair depends on: its instances, and a database that both hosts can reach


def watched(home: Home, pair: Pair, environment: Mapping[str, str]) -> list[Watched]:
    """The pair's instances, as they are in ``home``, at the places they have on the hosts.

    What lies in ``home`` lies in ``pair.home`` there.  Raises UsageError where ``home`` has no
    such instance, ConfigError where its settings are wrong or its database is SQLite.
    """
    return [_watched(home, pair, name, environment) for name in pair.instances]


def _watched(home: Home, pair: Pair, name: str, environment: Mapping[str, str]) -> Watched:
    if name not in home.instance_names():
        there = ", ".join(home.instance_names()) or "none"
        raise UsageError(
            f"pair.toml names the instance {name!r}, which {home.root} does not have",
            hint=f"there is: {there}; `dataserver instances spawn {name}` makes one",
        )
    settings = load(home.instance(name), environment)
    _refuse_sqlite(settings, name)
    data_in = Path(os.path.normpath(settings.data_in))
    root = home.root.resolve()
    if data_in.is_relative_to(root):
        data_in = pair.home / data_in.relative_to(root)
    if not str(data_in).isprintable():
        raise ConfigError(
            f"data_in of instance {name} has characters that cannot be printed: {data_in}",
            hint="the checks could not name it; choose another directory",
        )
    return Watched(name, pair.home / "var" / name, data_in)


def _refuse_sqlite(settings: Settings, name: str) -> None:
    if settings.database.startswith("sqlite:"):
        raise ConfigError(
            f"{settings.origins['database']}: database = {settings.shown('database')} cannot be "
            f"a pair's (instance {name}): SQLite's file is on one host only",
            hint="set a MariaDB or MySQL that both hosts reach: mysql://USER@HOST:PORT/NAME",
        )
