"""All settings: default, unit, bounds and meaning of each.

:mod:`dataserver.config.load` reads them; ``docs/configuration.md`` is generated from the fields of
:class:`Settings`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import tzinfo
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, TypeVar

from dataserver.config.kinds import (
    Choice,
    Database,
    Kind,
    Location,
    Number,
    Size,
    Switch,
    Text,
    Whole,
    Zone,
    masked,
)
from dataserver.config.timezone import system_zone, zone_named

_MIB = 2**20
_DAY = 86400
_T = TypeVar("_T")


class About(NamedTuple):
    """The description of a setting, in its field's metadata: for reading it and for the docs."""

    kind: Kind
    meaning: str
    unit: str
    #: It must differ between instances, so it is not allowed in ``dataserver.toml``.
    own: bool
    #: Only allowed in the environment, never shown.
    secret: bool


def _setting(
    default: _T, kind: Kind, meaning: str, unit: str = "", own: bool = False, secret: bool = False
) -> _T:
    # Typed as its default, like dataclasses.field itself.
    about = About(kind, meaning, unit, own, secret)
    # A database's URL may hold a password.
    shown = not secret and not isinstance(kind, Database)
    return field(default=default, metadata={"about": about}, repr=shown)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one instance.  Durations are in seconds."""

    database: str = _setting(
        "sqlite:///var/dataserver.db",
        Database(),
        "URL of the database. Put the password into `database_password_file`, not here.",
    )
    database_password_file: Path | None = _setting(
        None, Location(), "File with the database's password in its first line."
    )
    database_password: str | None = _setting(
        None, Text(1000), "The password itself; overrides the file.", secret=True
    )
    database_timeout: float = _setting(
        30.0,
        Number(1, 3600),
        "How long the database may take to answer before it counts as unavailable.",
        "s",
    )
    connect_timeout: float = _setting(
        5.0, Number(1, 300), "Timeout for connecting to the database.", "s"
    )
    accept_no_alerts: bool = _setting(
        False,
        Switch(),
        "Use an existing Pandora FMS database even if alerts are defined in it, "
        "which this server does not evaluate. If off, the server refuses its first start there, "
        "and logs a warning about alerts that are defined later.",
    )
    server_name: str = _setting(
        "dataserver",
        Text(100, 1),
        "The server's name in the database. Both hosts of a pair use the same name.",
    )
    server_keepalive: int = _setting(
        45,
        Whole(1, 3600),
        "Interval at which a server of this name reports in the database that it is alive; after "
        "twice this time without a report it is shown as down.",
        "s",
    )
    timezone: str = _setting(
        "", Zone(), "Time zone of agents' local times; empty means the system's."
    )
    data_in: Path = _setting(
        Path("data_in"),
        Location(),
        "Drop directory: agents' packets are uploaded into it.",
        own=True,
    )
    max_packet: int = _setting(
        64 * _MIB,
        Size(1024, 1024 * _MIB),
        "Maximum size of a packet; larger files are rejected without being read.",
        "bytes",
    )
    checksum: str = _setting(
        "ignore",
        Choice(("ignore", "verify")),
        "Whether to verify the `.checksum` files of 1.x agents.",
    )
    incomplete_after: float = _setting(
        60.0,
        Number(1, 7 * _DAY),
        "How long an incomplete file may stay unchanged before it is rejected.",
        "s",
    )
    settle: float = _setting(
        5.0,
        Number(0, 600),
        "After a gap, an agent's packets are held until no further one has arrived for this "
        "time, then stored in order.",
        "s",
    )
    settle_max: float = _setting(
        60.0, Number(0, 3600), "Longest time for which packets are held, even if more arrive.", "s"
    )
    scan_interval: float = _setting(
        2.0,
        Number(0.1, 60),
        "Longest time between two scans of the drop directory. New files are usually found at "
        "once, by inotify.",
        "s",
    )
    max_ahead: int = _setting(
        _DAY, Whole(60, 3650 * _DAY), "A packet further in the future is rejected as `clock`.", "s"
    )
    ledger_days: int = _setting(
        7,
        Whole(1, 3650),
        "How long each stored packet is remembered. A packet that is older than its agent's "
        "newest one by more than this is rejected as `too-old`.",
        "days",
    )
    autocreate: bool = _setting(True, Switch(), "Create agents that are not in the database yet.")
    autocreate_group: int = _setting(
        10,
        Whole(0, 2**31 - 1),
        "Id of the group for new agents that name no existing group; 0 means none.",
    )
    autocreate_group_name: str = _setting(
        "", Text(100), "Name of that group; if set, it overrides the id."
    )
    autocreate_group_force: bool = _setting(
        False, Switch(), "Put new agents into that group even if they name another one."
    )
    update_parent: bool = _setting(
        False, Switch(), "Let packets change the parent of an existing agent."
    )
    unknown: bool = _setting(
        True,
        Switch(),
        "Set modules without a value for twice their interval to unknown, `keep_alive` modules of "
        "silent agents to zero, and disable silent agents of mode 2. One process does this for "
        "all servers of the database; turn it off if a Perl server on the same database does it.",
    )
    max_agents: int = _setting(
        100_000,
        Whole(1, 10_000_000),
        "Maximum number of agents in the database; beyond it, no new ones are created.",
    )
    max_modules_per_agent: int = _setting(
        10_000,
        Whole(1, 1_000_000),
        "Maximum number of modules of an agent; beyond it, no new ones are created.",
    )
    batch_packets: int = _setting(
        500, Whole(1, 10_000), "Maximum number of packets per transaction."
    )
    batch_bytes: int = _setting(
        16 * _MIB,
        Size(64 * 1024, 1024 * _MIB),
        "Maximum size of all packets in one transaction; a single packet may be larger.",
        "bytes",
    )
    cache_seconds: float = _setting(
        60.0,
        Number(1, 3600),
        "Longest time until changes that others make in the database take effect.",
        "s",
    )
    rejected_max_days: int = _setting(
        30, Whole(1, 3650), "How long rejected packets are kept.", "days"
    )
    rejected_max_bytes: int = _setting(
        1024 * _MIB,
        Size(0, 2**50),
        "Maximum size of all rejected packets; the oldest are deleted first.",
        "bytes",
    )
    self_monitoring: bool = _setting(
        False,
        Switch(),
        "Monitor this server itself: every instance reports modules of one agent.",
    )
    self_monitoring_agent: str = _setting("pandora.internals", Text(100, 1), "Name of that agent.")
    self_monitoring_interval: int = _setting(
        300, Whole(10, _DAY), "How often each instance reports.", "s"
    )
    log_level: str = _setting(
        "info",
        Choice(("debug", "info", "warning", "error")),
        "Minimum level of the messages that are logged.",
    )
    #: The source of each value, by key: "default", a file, or "environment".
    origins: Mapping[str, str] = field(
        default_factory=lambda: MappingProxyType({}), repr=False, compare=False
    )

    def zone(self, environment: Mapping[str, str]) -> tzinfo:
        """The time zone of agents' local times; ConfigError if the system's is unreadable."""
        return zone_named(self.timezone) if self.timezone else system_zone(environment)

    def fingerprint(self) -> str:
        """A digest of the settings that the hosts of a pair must share: no secrets, no paths."""
        keys = (key for key, about in ABOUT.items() if not about.secret and not about.own)
        shared = (key for key in keys if not isinstance(ABOUT[key].kind, Location))
        text = "\n".join(f"{key} = {self.shown(key)}" for key in sorted(shared))
        return hashlib.sha256(text.encode()).hexdigest()

    def shown(self, key: str) -> str:
        """The value of ``key`` for display, in TOML syntax; secrets are hidden."""
        value = getattr(self, key)
        if value is None:
            return '""'
        if ABOUT[key].secret:
            return '"***"'
        return value_text(value)


ABOUT: Mapping[str, About] = MappingProxyType(
    {f.name: f.metadata["about"] for f in fields(Settings) if "about" in f.metadata}
)


def value_text(value: object) -> str:
    """A setting's value in TOML syntax, with the password of a URL hidden."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, int):
        return str(value)
    # JSON's strings are TOML's basic strings.
    return json.dumps(masked(str(value)), ensure_ascii=False)
