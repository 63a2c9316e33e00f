"""Importing an existing Perl server's ``pandora_server.conf`` as settings of this server.  Pure.

The result has the settings, and a note on each key: it is imported, or this server behaves
differently, or it concerns other servers of the Perl process.  There is no note on a value that
means what this server does anyway.  For a key that is missing, the Perl server's default is
imported if ours differs.  Keys and defaults are facts read from the Perl server's sources of about
version 7.0NG.776; another version may have other defaults.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import quote

from dataserver.errors import ConfigError
from dataserver.packet import charset

# A comment has a line of its own; anything after the key is the value.
_LINE = re.compile(r"([A-Za-z][A-Za-z0-9_]*)\s+(\S.*)")
#: The Perl server ignores a line that is indented, or that does not match this: a word after a
#: space that begins with one of these characters (the colon is added here, for IPv6 addresses).
_PLAIN = re.compile(r"[\w.-]\s+[\w./?&=()!*@#%$~\"':-]")
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
    "server_keepalive": "60",
}
#: Bounds of self_monitoring_interval, and of server_keepalive, in seconds.
_REPORTS, _SIGNS = (10, 86_400), (1, 3600)
#: The lowest ``verbosity`` for each log level.
_VERBOSITY = ((5, "debug"), (1, "info"), (0, "warning"))

_LOGS = "messages go to stderr; whatever runs this server keeps and rotates them"
_TLS = "add ?ssl_ca=FILE to `database` for an encrypted connection"
_ORDER = "an agent's packets are always stored in order of time, and none is put off"
_WARM = "status events are written from the start on"
_ALERTS = "alerts are not evaluated; see accept_no_alerts"
_TEXTS = "the text of this event cannot be changed"
#: Keys on which packets, statuses or events depend: the value that means what this server does
#: (None if there is no such value), and how this server differs otherwise.
_DIFFERENT: dict[str, tuple[str | None, str]] = {
    "dataserver": ("1", "its data server was switched off; this is one"),
    "dataserver_threads": ("1", "an instance has one worker; more instances take more load"),
    "max_queue_files": (None, "the whole drop directory is always looked through"),
    "server_threshold": (None, "new files are noticed at once, others after `scan_interval`"),
    "dataserver_lifo": ("0", _ORDER),
    "dataserver_smart_queue": ("0", _ORDER),
    "too_many_xml": (
        None,
        "no event tells that many files of an agent wait; `status` and metrics have the queue",
    ),
    "use_xml_timestamp": (
        "1",
        "packets count at their own time; the file's only where they have none",
    ),
    "enc_dir": ("", "encodings are built in, under all usual names (docs/packet-format.md)"),
    "unknown_interval": ("2", "a module is unknown after 2 intervals of silence, always"),
    "unknown_block_size": ("1000", "silent modules are looked for 1000 at a time"),
    "unknown_events": ("1", "events of modules that become unknown, and return, are written"),
    "unknown_updates": ("0", "nothing is done again for modules that stay unknown"),
    "async_recovery": ("1", "silent asynchronous modules return to normal after 2 intervals"),
    "warmup_unknown_interval": ("300", "nothing becomes unknown for 300 s after a start"),
    "warmup_event_interval": ("0", _WARM),
    "warmup_alert_interval": ("0", _WARM),
    "event_auto_validation": ("1", "a module's new status event validates its earlier ones"),
    "event_expiry_time": ("0", "no event is validated for its age"),
    "event_file": ("", "events go to the database; `events --follow --json` prints them"),
    "text_going_down_normal": ("Module '_module_' is going to NORMAL (_data_)", _TEXTS),
    "text_going_up_critical": ("Module '_module_' is going to CRITICAL (_data_)", _TEXTS),
    "text_going_up_warning": ("Module '_module_' is going to WARNING (_data_)", _TEXTS),
    "text_going_down_warning": ("Module '_module_' is going to WARNING (_data_)", _TEXTS),
    "text_going_unknown": ("Module '_module_' is going to UNKNOWN", _TEXTS),
    "graph_precision": ("1", "numbers in events have one decimal at most"),
    "activate_gis": ("0", "positions are not stored"),
    "master": ("0", "this server does not take part in the choice of a master"),
    "autoconfigure_agents": ("0", "rules that configure new agents (Enterprise) are not applied"),
    "ha_hosts_file": (
        None,
        "the Perl server takes the database's host from that file if it exists, not from dbhost",
    ),
    "dbssl": ("0", _TLS),
    "dbsslcafile": (None, _TLS),
    "dbsslcapath": (None, _TLS),
    "verify_mysql_ssl_cert": ("0", _TLS),
    "alertserver": ("0", _ALERTS),
    "alertserver_queue": ("0", _ALERTS),
    "event_inhibit_alerts": ("0", _ALERTS),
    **dict.fromkeys(
        (
            *("alertserver_threads", "alertserver_warn", "global_alert_timeout", "plugin_exec"),
            *("mail_in_separate", "mail_subject_encoding", "mta_address", "mta_auth"),
            *("mta_encryption", "mta_from", "mta_pass", "mta_port", "mta_user"),
        ),
        (None, _ALERTS),
    ),
    **dict.fromkeys(
        ("log_file", "errorlog_file", "max_log_size", "max_log_generation"), (None, _LOGS)
    ),
}
#: Keys that have no effect without another one: key -> the other one.
_DEPENDS = {
    "event_expiry_window": "event_expiry_time",
    "dbsslcafile": "dbssl",
    "dbsslcapath": "dbssl",
    "verify_mysql_ssl_cert": "dbssl",
}


@dataclass(frozen=True, slots=True)
class Note:
    """The note on a key: ``setting`` is the one it sets, or None if it is not imported.

    ``key`` may name several.  ``value`` is the one in the file, if it helps and is not secret.
    """

    key: str
    setting: str | None
    text: str
    value: str = ""


@dataclass(slots=True)
class Takeover:
    """The imported configuration of an existing server."""

    #: For ``dataserver.toml``.
    shared: dict[str, str | int | bool] = field(default_factory=dict)
    #: For the main instance: the drop directory.
    data_in: str = ""
    password: str = ""
    #: Keys that are imported, and (without a setting) those for which this server differs.
    notes: list[Note] = field(default_factory=list)
    #: Keys whose value means what this server does anyway, and keys of other servers.
    same: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    #: Lines of the file that the Perl server reads differently than they look.
    warnings: list[str] = field(default_factory=list)

    def set(self, key: str, setting: str, value: str | int | bool, text: str = "") -> None:
        """Set ``setting`` because of the other server's ``key``."""
        self.shared[setting] = value
        self.notes.append(Note(key, setting, text))


def decode(content: bytes) -> tuple[str, list[str]]:
    """The text of a configuration file, and warnings about lines that are not UTF-8.

    It is UTF-8, as for the Perl server; other bytes are read as Windows-1252.
    """
    # The line end makes sure that no byte counts as the beginning of a character that is cut off.
    return charset.decode_utf_8(content + b"\n")[0], list(_not_utf_8(content))


def read(text: str, hostname: str) -> Takeover:
    """Import the file ``text`` of the host ``hostname``; ConfigError if a value is unusable."""
    stated = parse(text)
    values = _DEFAULTS | stated
    if values["dbengine"].lower() != "mysql":
        raise ConfigError(
            f"its database is {values['dbengine']}, this server knows MySQL, MariaDB and SQLite"
        )
    imported = Takeover(data_in=_data_in(values), password=values["dbpass"])
    imported.warnings += _not_read(text)
    imported.set("dbhost, dbport, dbname, dbuser", "database", _database(values))
    imported.notes.append(Note("dbpass", "database_password_file", "in a file of its own"))
    imported.notes.append(Note("incomingdir", "data_in", "of the instance main"))
    _import_name(imported, stated, hostname)
    _import_autocreate(imported, values, stated)
    _import_monitoring(imported, stated)
    keepalive, (least, most) = _whole("server_keepalive", values["server_keepalive"]), _SIGNS
    imported.set(
        "server_keepalive",
        "server_keepalive",
        min(max(keepalive, least), most),
        _silent("server_keepalive", stated),
    )
    if "verbosity" in stated:
        level = _whole("verbosity", stated["verbosity"])
        name = next((name for least, name in _VERBOSITY if level >= least), "warning")
        imported.set("verbosity", "log_level", name)
    _compare(imported, stated)
    return imported


def recognised(text: str) -> bool:
    """Whether the file ``text`` contains any known key of a Perl server's configuration."""
    known = _DEFAULTS.keys() | _OTHERWISE | _DIFFERENT.keys()
    return not parse(text).keys().isdisjoint(known)


def parse(text: str) -> dict[str, str]:
    """Keys in lower case with their values; of a repeated key, the last one.

    As the Perl server reads them: keys start at the beginning of a line.
    """
    values = {}
    for line in text.split("\n"):
        match = _LINE.match(line)
        if match and _PLAIN.search(line):
            values[match[1].lower()] = match[2].rstrip()
    return values


def _not_utf_8(content: bytes) -> Iterator[str]:
    for number, line in enumerate(content.split(b"\n"), 1):
        try:
            line.decode()
        except UnicodeDecodeError as error:
            words = line[: error.start].split()
            key = f" ({words[0][:40].decode('ascii', 'replace')})" if words else ""
            yield f"line {number}{key} is not UTF-8: read as Windows-1252; check the result"


def _not_read(text: str) -> Iterator[str]:
    known = _DEFAULTS.keys() | _OTHERWISE | _DIFFERENT.keys()
    for number, line in enumerate(text.split("\n"), 1):
        match = _LINE.match(line.lstrip())
        if match and match[1].lower() in known:
            if line[:1].isspace():
                yield f"line {number} ({match[1]}) is indented: the Perl server does not read it"
            elif not _PLAIN.search(line):
                yield f"line {number} ({match[1]}) has a value that the Perl server does not read"


def _data_in(values: dict[str, str]) -> str:
    path = values["incomingdir"]
    if path.startswith("/"):
        return path.rstrip("/") or "/"
    # Relative ones start at its `basepath`, which only the Perl server knows.
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


def _import_name(imported: Takeover, stated: dict[str, str], hostname: str) -> None:
    if "servername" in stated:
        imported.set("servername", "server_name", stated["servername"])
    else:
        text = "it took this host's name; written down, since twin hosts share one name"
        imported.set("servername", "server_name", hostname, text)


def _import_autocreate(imported: Takeover, values: dict[str, str], stated: dict[str, str]) -> None:
    """Creation of agents: the keys' values, or the Perl server's defaults."""
    for key in ("autocreate", "autocreate_group_force", "update_parent"):
        imported.set(key, key, _whole(key, values[key]) != 0, _silent(key, stated))
    group = _whole("autocreate_group", values["autocreate_group"])
    # Its -1 means "none"; ids begin at 1.
    imported.set(
        "autocreate_group", "autocreate_group", max(group, 0), _silent("autocreate_group", stated)
    )
    if values["autocreate_group_name"]:
        imported.set(
            "autocreate_group_name", "autocreate_group_name", values["autocreate_group_name"]
        )


def _import_monitoring(imported: Takeover, stated: dict[str, str]) -> None:
    """Self-monitoring, as far as the file has its keys; the defaults are the same."""
    if "self_monitoring" in stated:
        on = _whole("self_monitoring", stated["self_monitoring"]) != 0
        imported.set("self_monitoring", "self_monitoring", on, "of this process, not of its host")
    if "self_monitoring_interval" in stated:
        key = "self_monitoring_interval"
        least, most = _REPORTS
        imported.set(key, key, min(max(_whole(key, stated[key]), least), most))
    if "self_monitoring_agent_name" in stated:
        key = "self_monitoring_agent_name"
        imported.set(key, "self_monitoring_agent", stated[key])


def _silent(key: str, stated: dict[str, str]) -> str:
    return "" if key in stated else "not in the file: its default"


def _compare(imported: Takeover, stated: dict[str, str]) -> None:
    """Notes on the keys that are not imported."""
    alike: dict[str, list[str]] = {}
    for key in sorted(stated.keys() - _DEFAULTS.keys() - _OTHERWISE):
        if key not in _DIFFERENT and key not in _DEPENDS:
            imported.others.append(key)
        elif _is_same(key, stated):
            imported.same.append(key)
        else:
            alike.setdefault(_DIFFERENT[_DEPENDS.get(key, key)][1], []).append(key)
    for text, keys in alike.items():
        value = stated[keys[0]] if len(keys) == 1 else ""
        imported.notes.append(Note(", ".join(keys), None, text, value[:60]))


def _is_same(key: str, stated: dict[str, str]) -> bool:
    """Whether a key means what this server does anyway."""
    other = _DEPENDS.get(key)
    if other is not None and (other not in stated or _is_same(other, stated)):
        return True
    same = _DIFFERENT[key][0] if key in _DIFFERENT else None
    if same is None:
        return False
    # The Perl server only reads the digits at the beginning of a number.
    number = re.match(r"[0-9]*", stated[key])
    return stated[key] == same or (same.isdigit() and number is not None and number[0] == same)


#: Keys that are imported without a default, and not compared.
_OTHERWISE = frozenset(
    {
        *("dbport", "servername", "verbosity", "self_monitoring"),
        *("self_monitoring_interval", "self_monitoring_agent_name"),
    }
)


def _whole(key: str, text: str) -> int:
    """The number at the beginning of a value: the Perl server ignores the rest."""
    match = re.match(r"-?[0-9]{1,18}", text)
    if match is None:
        raise ConfigError(f"its {key} is {text[:40]!r}, not a whole number")
    return int(match[0])
