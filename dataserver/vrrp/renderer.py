"""The files of each host of a pair, as texts; a command writes them.

Each host has a folder of its name.  :data:`INSTALLED` has the place of each file on the host.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from dataserver.config.load import load
from dataserver.config.paths import Home
from dataserver.config.settings import Settings
from dataserver.errors import ConfigError, UsageError
from dataserver.templates import File, render
from dataserver.vrrp.health import STATE_DIR
from dataserver.vrrp.model import Host, Interface, Pair

#: The folders of keepalived's configuration and of the scripts on the hosts.
CONFIG_DIR = PurePosixPath("/etc/keepalived")
SCRIPTS = CONFIG_DIR / "dataserver"
CONFIG = "keepalived.conf"
#: The name of the vrrp_instance in keepalived's configuration.
VRRP_INSTANCE = "dataserver"

#: Each file of a host's folder, except its README, and its place on the host.
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
    """An instance that a healthy host must run, with its paths on both hosts (absolute)."""

    name: str
    var: Path
    data_in: Path


def render_pair(home: Home, pair: Pair, watched: Sequence[Watched]) -> list[File]:
    """All files of both hosts, with paths relative to the folder of the pair.

    Templates in ``home`` override the packaged ones.  Raises ConfigError for an invalid template.
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
    # Deprecated from the start (RFC 4862, 5.5.4): it answers, but this host does not use it for
    # its own connections, which therefore do not break when the address moves.
    return " preferred_lft 0" if address.version == 6 else ""


def _words(pair: Pair, host: Host) -> dict[str, str]:
    """The words of the README that depend on the pair."""
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


# -- the instances of the pair --


def watched(home: Home, pair: Pair, environment: Mapping[str, str]) -> list[Watched]:
    """The pair's instances according to ``home``, with their paths on the hosts.

    Paths in ``home`` become paths in ``pair.home``.  Raises UsageError if ``home`` has no such
    instance, ConfigError if its settings are invalid or its database is SQLite.
    """
    return [_watched(home, pair, name, environment) for name in pair.instances]


def _watched(home: Home, pair: Pair, name: str, environment: Mapping[str, str]) -> Watched:
    if name not in home.instance_names():
        there = ", ".join(home.instance_names()) or "none"
        raise UsageError(
            f"pair.toml names the instance {name!r}, which {home.root} does not have",
            hint=f"there is: {there}; create it with `dataserver instances spawn {name}`",
        )
    settings = load(home.instance(name), environment)
    _refuse_sqlite(settings, name)
    data_in = Path(os.path.normpath(settings.data_in))
    root = home.root.resolve()
    if data_in.is_relative_to(root):
        data_in = pair.home / data_in.relative_to(root)
    if not str(data_in).isprintable():
        raise ConfigError(
            f"data_in of instance {name} contains unprintable characters: {data_in}",
            hint="the checks cannot handle it; choose another directory",
        )
    return Watched(name, pair.home / "var" / name, data_in)


def _refuse_sqlite(settings: Settings, name: str) -> None:
    if settings.database.startswith("sqlite:"):
        raise ConfigError(
            f"{settings.origins['database']}: database = {settings.shown('database')} cannot be "
            f"used by a pair (instance {name}): a SQLite file is on one host only",
            hint="use a MariaDB or MySQL that both hosts can reach: mysql://USER@HOST:PORT/NAME",
        )
