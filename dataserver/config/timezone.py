"""The time zone in which agents' local times are read: by name, or the system's own."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dataserver.errors import ConfigError

#: The system's own zone, as glibc reads it.
LOCALTIME = Path("/etc/localtime")


def named(name: str) -> tzinfo:
    """The zone called ``name`` (IANA, like "Europe/Madrid"); ConfigError if there is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise ConfigError(
            f"there is no time zone {name!r}",
            hint='use an IANA name such as "Europe/Madrid", or "" for the system\'s',
        ) from exc


def system(environment: Mapping[str, str], localtime: Path = LOCALTIME) -> tzinfo:
    """The system's zone: $TZ if set (a name or a file), else /etc/localtime, else UTC.

    A POSIX rule in $TZ ("CET-1CEST,...") names no zone: ConfigError asks for `timezone`.
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
        return named(wanted)
    except ConfigError as exc:
        raise ConfigError(
            f"$TZ is {setting!r}, which names no time zone", hint="set `timezone`"
        ) from exc


def _from_file(path: Path) -> tzinfo:
    try:
        with path.open("rb") as file:
            return ZoneInfo.from_file(file, key=str(path))
    except (OSError, ValueError) as exc:
        raise ConfigError(
            f"{path} holds no time zone that can be read: {exc}", hint="set `timezone`"
        ) from exc
