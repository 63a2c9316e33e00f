"""What of a home its pair depends on: its instances, and a database that both hosts can reach."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from dataserver.config import Settings, load
from dataserver.errors import ConfigError, UsageError
from dataserver.home import Home
from dataserver.vrrp.model import Pair
from dataserver.vrrp.renderer import Watched


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
