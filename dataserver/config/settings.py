"""Every setting in one place: its default, unit, bounds and meaning.

Reading them is the job of :mod:`dataserver.config.load`; ``docs/configuration.md`` is
generated from the fields of :class:`Settings`.
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

from dataserver.config import timezone as zone
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

_MIB = 2**20
_DAY = 86400
_T = TypeVar("_T")


class About(NamedTuple):
    """What a setting is: beside each field, for reading it and for the reference."""

    kind: Kind
    meaning: str
    unit: str
    #: Makes no sense for all instances at once: not in ``dataserver.toml``.
    own: bool
    #: Only in the environment, never shown.
    secret: bool


def _setting(
    default: _T, kind: Kind, meaning: str, unit: str = "", own: bool = False, secret: bool = False
) -> _T:
    # Typed as its default, as dataclasses.field itself is.
    about = About(kind, meaning, unit, own, secret)
    # A database's URL may hold a password.
    shown = not secret and not isinstance(kind, Database)
    return field(default=default, metadata={"about": about}, repr=shown)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set, as one instance sees it.  Durations are in seconds."""

    database: str = _setting(
        "sqlite:///var/dataserver.db",
        Database(),
        "The database. A password does not belong here but into `database_password_file`.",
    )
    database_password_file: Path | None = _setting(
        None, Location(), "File whose first line is the database's password."
    )
    database_password: str | None = _setting(
        None, Text(1000), "The password itself; wins over the file.", secret=True
    )
    database_timeout: float = _setting(
        30.0,
        Number(1, 3600),
        "How long the database may take to answer before it counts as away.",
        "s",
    )
    connect_timeout: float = _setting(
        5.0, Number(1, 300), "How long connecting to the database may take.", "s"
    )
    accept_no_alerts: bool = _setting(
        False,
        Switch(),
        "Use an existing Pandora FMS database although it has alerts defined, "
        "which this server does not evaluate. Off: its first start there is refused, "
        "and alerts that are defined later are warned of.",
    )
    server_name: str = _setting(
        "dataserver", Text(100, 1), "The server's name in the database. Twin hosts share it."
    )
    server_keepalive: int = _setting(
        45,
        Whole(1, 3600),
        "Within so long a server of this name shows in the database that it lives; "
        "after twice that it is shown as down.",
        "s",
    )
    timezone: str = _setting(
        "", Zone(), "The time zone of agents' local times; empty: the system's."
    )
    data_in: Path = _setting(
        Path("data_in"), Location(), "The directory into which agents drop their packets.", own=True
    )
    max_packet: int = _setting(
        64 * _MIB,
        Size(1024, 1024 * _MIB),
        "Larger files are rejected without reading them.",
        "bytes",
    )
    checksum: str = _setting(
        "ignore",
        Choice(("ignore", "verify")),
        "What to do with the `.checksum` files of 1.x agents.",
    )
    incomplete_after: float = _setting(
        60.0,
        Number(1, 7 * _DAY),
        "A packet without its end is rejected after it was quiet for so long.",
        "s",
    )
    settle: float = _setting(
        5.0,
        Number(0, 600),
        "After a gap, an agent's packets are held until none came for so "
        "long, then taken in order.",
        "s",
    )
    settle_max: float = _setting(
        60.0, Number(0, 3600), "Held packets are taken after so long whatever still comes.", "s"
    )
    scan_interval: float = _setting(
        2.0,
        Number(0.1, 60),
        "The drop directory is looked through at least so often, also "
        "when nothing announced a file.",
        "s",
    )
    max_ahead: int = _setting(
        _DAY, Whole(60, 3650 * _DAY), "A packet further in the future is set aside as `clock`.", "s"
    )
    ledger_days: int = _setting(
        7,
        Whole(1, 3650),
        "How long each accepted packet is remembered; a packet more than so "
        "much older than its agent's newest one is set aside as `too-old`.",
        "days",
    )
    autocreate: bool = _setting(True, Switch(), "Create agents that are not known yet.")
    autocreate_group: int = _setting(
        10, Whole(0, 2**31 - 1), "Id of the group of new agents that name no existing one; 0: none."
    )
    autocreate_group_name: str = _setting(
        "", Text(100), "Name of that group; where it is set it wins over the id."
    )
    autocreate_group_force: bool = _setting(
        False, Switch(), "Put new agents into that group whatever group they name."
    )
    update_parent: bool = _setting(
        False, Switch(), "Let packets change the parent of an agent that exists."
    )
    unknown: bool = _setting(
        True,
        Switch(),
        "Modules without a value for twice their interval become unknown, `keep_alive` modules of "
        "silent agents zero, silent agents of mode 2 disabled. One process does it for all that "
        "use the database; off where a Perl server on it does.",
    )
    max_agents: int = _setting(
        100_000, Whole(1, 10_000_000), "With so many agents in the database no more are created."
    )
    max_modules_per_agent: int = _setting(
        10_000, Whole(1, 1_000_000), "With so many modules in an agent no more are created."
    )
    batch_packets: int = _setting(500, Whole(1, 10_000), "Packets per transaction at most.")
    batch_bytes: int = _setting(
        16 * _MIB,
        Size(64 * 1024, 1024 * _MIB),
        "Bytes of packets per transaction at most; one packet may be larger.",
        "bytes",
    )
    cache_seconds: float = _setting(
        60.0,
        Number(1, 3600),
        "What others changed in the database is noticed after so long at most.",
        "s",
    )
    rejected_max_days: int = _setting(
        30, Whole(1, 3650), "Rejected packets are kept so long.", "days"
    )
    rejected_max_bytes: int = _setting(
        1024 * _MIB,
        Size(0, 2**50),
        "Rejected packets take so much space at most; the oldest go first.",
        "bytes",
    )
    self_monitoring: bool = _setting(
        False,
        Switch(),
        "Report on this server itself: every instance gives modules to one agent.",
    )
    self_monitoring_agent: str = _setting("pandora.internals", Text(100, 1), "Name of that agent.")
    self_monitoring_interval: int = _setting(
        300, Whole(10, _DAY), "An instance reports so often.", "s"
    )
    log_level: str = _setting(
        "info",
        Choice(("debug", "info", "warning", "error")),
        "The least important messages that are logged.",
    )
    #: Where each value came from, by key: "default", a file, or the variable's name.
    origins: Mapping[str, str] = field(
        default_factory=lambda: MappingProxyType({}), repr=False, compare=False
    )

    def zone(self, environment: Mapping[str, str]) -> tzinfo:
        """The time zone of agents' local times; ConfigError where the system's is unreadable."""
        return zone.named(self.timezone) if self.timezone else zone.system(environment)

    def fingerprint(self) -> str:
        """A digest of what the hosts of a pair must have in common: no secrets, no paths."""
        keys = (key for key, about in ABOUT.items() if not about.secret and not about.own)
        shared = (key for key in keys if not isinstance(ABOUT[key].kind, Location))
        text = "\n".join(f"{key} = {self.shown(key)}" for key in sorted(shared))
        return hashlib.sha256(text.encode()).hexdigest()

    def shown(self, key: str) -> str:
        """The value of ``key`` for people, as TOML would have it; secrets are hidden."""
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
    """A setting's value as TOML has it, with the password of a URL hidden."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, int):
        return str(value)
    # JSON's strings are TOML's basic strings.
    return json.dumps(masked(str(value)), ensure_ascii=False)
