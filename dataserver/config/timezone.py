"""The time zone in which agents' local times are read: by name, or the system's own."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dataserver.errors import ConfigError

#: The system's own zone, as glibc reads it.
LOCALTIME = Path("/etc/localtime")


def zone_named(name: str) -> tzinfo:
    """The zone ``name`` (IANA, like "Europe/Madrid"); raises ConfigError if it is unknown."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise ConfigError(
            f"there is no time zone {name!r}",
            hint='use an IANA name such as "Europe/Madrid", or "" for the system\'s',
        ) from exc


def system_zone(environment: Mapping[str, str], localtime: Path = LOCALTIME) -> tzinfo:
    """The system's zone: $TZ if set (a name or a file), else /etc/localtime, else UTC.

    Raises ConfigError if it is unreadable, or a POSIX rule ("CET-1CEST,..."), not a zone's name.
    """
    setting = environment.get("TZ")
    if setting == "":
        return UTC
    if setting is None:
        return _from_file(localtime) if localtime.is_file() else UTC
    wanted = setting.removeprefix(":")
    if wanted.startswith("/"):
        return _from_file(Path(wanted))
    try:
        return zone_named(wanted)
    except ConfigError as exc:
        raise ConfigError(
            f"$TZ is {setting!r}, which is not the name of a time zone", hint="set `timezone`"
        ) from exc


def _from_file(path: Path) -> tzinfo:
    try:
        with path.open("rb") as file:
            return ZoneInfo.from_file(file, key=str(path))
    except (OSError, ValueError) as exc:
        raise ConfigError(
            f"cannot read a time zone from {path}: {exc}", hint="set `timezone`"
        ) from exc
