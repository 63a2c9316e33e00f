"""What an existing Perl server's ``pandora_server.conf`` means for our settings.

Pure: text in, settings and one line about each of its keys out.  Only keys that concern
its data server count; where the file is silent, its own default is taken over if ours
differs.  Keys and defaults are facts read from the Perl server's sources of about version
7.0NG.776; another version may have other defaults.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import quote

from dataserver.errors import ConfigError

# A comment has a line of its own; anything after the key is the value.
_LINE = re.compile(r"([A-Za-z0-9_]+)\s+(\S.*)")
_DEFAULTS = {
    "dbengine": "mysql",
    "dbhost": "localhost",
    "dbname": "pandora",
    "dbuser": "pandora",
    "dbpass": "pandora",
    "incomingdir": "/var/spool/pandora/data_in",
    "autocreate": "1",
    "autocreate_group": "-1",
    "autocreate_group_name": "",
    "autocreate_group_force": "1",
    "update_parent": "0",
}
#: Seconds between two reports on itself, at least and at most.
_REPORTS = (10, 86_400)
#: Levels of its verbosity from which on ours is another one.
_VERBOSITY = ((5, "debug"), (1, "info"), (0, "warning"))

_LOGS = "messages go to stderr; whatever runs this server keeps and rotates them"
_TLS = "add ?ssl_ca=FILE to `database` for an encrypted connection"
#: Keys of its data server that have no counterpart here, and why.
_LEFT = {
    "log_file": _LOGS,
    "errorlog_file": _LOGS,
    "max_log_size": _LOGS,
    "max_log_generation": _LOGS,
    "dataserver_threads": "an instance has one worker; more instances take more load",
    "max_queue_files": "the whole drop directory is always looked through",
    "dataserver_lifo": "an agent's packets are always taken in order of time",
    "dataserver_smart_queue": "an agent's packets are always taken in order of time",
    "server_threshold": "new files are noticed at once",
    "use_xml_timestamp": "packets count at their own time; the file's only where they have none",
    "activate_gis": "positions are not stored",
    "dbssl": _TLS,
    "dbsslcafile": _TLS,
    "dbsslcapath": _TLS,
    "verify_mysql_ssl_cert": _TLS,
    "user": "this server runs as whoever starts it",
    "group": "this server runs as whoever starts it",
    "umask": "files keep the rights that they are uploaded with",
    "daemon": "this server stays in the foreground",
    "restart": "whatever runs this server restarts it",
    "restart_delay": "whatever runs this server restarts it",
    "auto_restart": "this server needs none",
}


@dataclass(frozen=True, slots=True)
class Note:
    """What became of one key: ``setting`` is ours, None where nothing was taken over."""

    key: str
    setting: str | None
    text: str


@dataclass(slots=True)
class Takeover:
    """What an existing server's configuration comes to."""

    #: For ``dataserver.toml``.
    shared: dict[str, str | int | bool] = field(default_factory=dict)
    #: For the main instance: the drop directory.
    data_in: str = ""
    password: str = ""
    notes: list[Note] = field(default_factory=list)

    def take(self, key: str, setting: str, value: str | int | bool, text: str = "") -> None:
        """Set ``setting`` because of the other server's ``key``."""
        self.shared[setting] = value
        self.notes.append(Note(key, setting, text))


def read(text: str, hostname: str) -> Takeover:
    """What the file ``text`` of the host ``hostname`` comes to; ConfigError if it cannot be."""
    stated = parse(text)
    values = _DEFAULTS | stated
    if values["dbengine"].lower() != "mysql":
        raise ConfigError(
            f"its database is {values['dbengine']}, this server knows MySQL, MariaDB and SQLite"
        )
    taken = Takeover(data_in=_data_in(values), password=values["dbpass"])
    taken.take("dbhost, dbport, dbname, dbuser", "database", _database(values))
    taken.notes.append(Note("dbpass", "database_password_file", "in a file of its own"))
    taken.notes.append(Note("incomingdir", "data_in", "of the instance main"))
    _take_name(taken, stated, hostname)
    _take_learning(taken, values, stated)
    _take_monitoring(taken, stated)
    if "verbosity" in stated:
        level = _whole("verbosity", stated["verbosity"])
        name = next((name for least, name in _VERBOSITY if level >= least), "warning")
        taken.take("verbosity", "log_level", name)
    taken.notes += _left(stated)
    return taken


def recognised(text: str) -> bool:
    """Whether the file ``text`` says anything that a Perl server's configuration says."""
    return not parse(text).keys().isdisjoint(_DEFAULTS.keys() | _OTHERWISE)


def parse(text: str) -> dict[str, str]:
    """Keys in lower case with their values; of a key that stands twice the last one."""
    values = {}
    for line in text.splitlines():
        if match := _LINE.fullmatch(line.strip()):
            values[match[1].lower()] = match[2]
    return values


def _data_in(values: dict[str, str]) -> str:
    path = values["incomingdir"]
    if path.startswith("/"):
        return path.rstrip("/") or "/"
    # Relative ones start at its `basepath`, which nothing but itself knows.
    raise ConfigError(
        f"its incomingdir {path!r} is relative", hint="write the whole path into that file"
    )


def _database(values: dict[str, str]) -> str:
    host = values["dbhost"]
    if ":" in host:
        host = f"[{host}]"
    port = f":{_whole('dbport', values['dbport'])}" if "dbport" in values else ""
    user, name = (quote(values[key], safe="") for key in ("dbuser", "dbname"))
    return f"mysql://{user}@{host}{port}/{name}"


def _take_name(taken: Takeover, stated: dict[str, str], hostname: str) -> None:
    if "servername" in stated:
        taken.take("servername", "server_name", stated["servername"])
    else:
        text = "it took this host's name; written down, since twin hosts share one name"
        taken.take("servername", "server_name", hostname, text)


def _take_learning(taken: Takeover, values: dict[str, str], stated: dict[str, str]) -> None:
    """Who is created and where: numbers and switches, its defaults where it says nothing."""
    for key in ("autocreate", "autocreate_group_force", "update_parent"):
        taken.take(key, key, _whole(key, values[key]) != 0, _silent(key, stated))
    group = _whole("autocreate_group", values["autocreate_group"])
    # Its -1 means "none"; ids begin at 1.
    taken.take(
        "autocreate_group", "autocreate_group", max(group, 0), _silent("autocreate_group", stated)
    )
    if values["autocreate_group_name"]:
        taken.take(
            "autocreate_group_name", "autocreate_group_name", values["autocreate_group_name"]
        )


def _take_monitoring(taken: Takeover, stated: dict[str, str]) -> None:
    """Its reports on itself, as far as the file speaks of them; its defaults are ours."""
    if "self_monitoring" in stated:
        on = _whole("self_monitoring", stated["self_monitoring"]) != 0
        taken.take("self_monitoring", "self_monitoring", on, "of this process, not of its host")
    if "self_monitoring_interval" in stated:
        key = "self_monitoring_interval"
        least, most = _REPORTS
        taken.take(key, key, min(max(_whole(key, stated[key]), least), most))
    if "self_monitoring_agent_name" in stated:
        key = "self_monitoring_agent_name"
        taken.take(key, "self_monitoring_agent", stated[key])


def _silent(key: str, stated: dict[str, str]) -> str:
    return "" if key in stated else "not in the file: its default"


def _left(stated: dict[str, str]) -> Iterator[Note]:
    if stated.get("dataserver") == "0":
        yield Note("dataserver", None, "its data server was switched off; this is one")
    others = sorted(stated.keys() - _DEFAULTS.keys() - _LEFT.keys() - _OTHERWISE)
    for key in sorted(stated.keys() & _LEFT.keys()):
        yield Note(key, None, _LEFT[key])
    if others:
        yield Note(", ".join(others), None, "not about packets from files")


#: Keys that are neither taken by their defaults nor left without a counterpart.
_OTHERWISE = frozenset(
    {
        *("dbport", "servername", "verbosity", "dataserver", "self_monitoring"),
        *("self_monitoring_interval", "self_monitoring_agent_name"),
    }
)


def _whole(key: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"its {key} is {text[:40]!r}, not a whole number") from None
