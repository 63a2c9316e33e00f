"""Reading ``pair.toml``: each field by its kind, then whether the fields fit together.

Every message names the file, the field and its value, and what is allowed.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NoReturn

from dataserver.errors import ConfigError, UsageError
from dataserver.vrrp.model import HIGHEST, LOWEST, Check, Host, Interface, Notify, Pair, about

#: The tables of the file, and their records.
_TABLES: Mapping[str, type] = {"check": Check, "notify": Notify}
_HOSTS = 2
_MOST_SHOWN = 200


def read_pair(path: Path) -> Pair:
    """The pair in ``path``.

    Raises UsageError if the file does not exist, ConfigError if it is invalid.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError as exc:
        raise UsageError(
            f"there is no {path}", hint="`dataserver keepalived init` writes one to be filled in"
        ) from exc
    except OSError as exc:
        raise ConfigError(f"cannot read {path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path} is not TOML: {exc}") from exc
    return parse(text, str(path))


def parse(text: str, source: str) -> Pair:
    """The pair that ``text`` describes; ConfigError begins with ``source``."""
    try:
        data = tomllib.loads(text)
    except ValueError as exc:
        # Besides invalid TOML: numbers of thousands of digits, which Python does not read.
        raise ConfigError(f"{source} is not TOML: {exc}") from exc
    except RecursionError as exc:
        raise ConfigError(f"{source} is nested too deeply", hint="write it as `init` does") from exc
    return _Reader(source).pair(data)


class _Reader:
    """Reads one file."""

    def __init__(self, source: str) -> None:
        self._source = source

    def pair(self, data: dict[str, object]) -> Pair:
        """The pair in the parsed file."""
        hosts = data.pop("host", [])
        tables = {key: data.pop(key, {}) for key in _TABLES}
        values = self._record(Pair, data, "", ("host", *_TABLES))
        for key, record in _TABLES.items():
            values[key] = record(**self._record(record, self._table(tables[key], key), f"{key}."))
        found = self._hosts(hosts)
        pair = Pair(**values, hosts=(found[0], found[1]))
        _Consistency(self._source, pair).check()
        return pair

    def _hosts(self, raw: object) -> list[Host]:
        if not isinstance(raw, list) or len(raw) != _HOSTS:
            count = len(raw) if isinstance(raw, list) else "no list of"
            self._refuse(f"it has {count} hosts", "write [[host]] twice, once for each of the pair")
        return [
            Host(**self._record(Host, self._table(each, "host"), f"host {number}: "))
            for number, each in enumerate(raw, 1)
        ]

    def _table(self, raw: object, key: str) -> dict[str, object]:
        if not isinstance(raw, dict):
            brackets = "[[host]]" if key == "host" else f"[{key}]"
            self._refuse(
                f"{key} = {_shown(raw)} is not a table", f"write {brackets} and its fields below"
            )
        return raw

    def _record(
        self, record: type, data: dict[str, object], prefix: str, more: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        known = about(record)
        for key in data:
            if key not in known:
                close = get_close_matches(key, [*known, *more], n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"there is: {', '.join(known)}"
                self._refuse(f"{prefix}unknown field {key!r}", hint)
        for key, field in known.items():
            if field.needed and key not in data:
                self._refuse(f"{prefix}{key} is missing", f"give {field.kind.allowed}")
        return {key: self._decode(known[key].kind, prefix + key, raw) for key, raw in data.items()}

    def _decode(self, kind: Any, key: str, raw: object) -> object:
        try:
            return kind.decode(raw, Path("/"))
        except ValueError as exc:
            raise ConfigError(
                f"{self._source}: {key} = {_shown(raw)} {exc}", hint=f"allowed: {kind.allowed}"
            ) from exc

    def _refuse(self, what: str, hint: str) -> NoReturn:
        raise ConfigError(f"{self._source}: {what}", hint=hint)


def _shown(raw: object) -> str:
    """A value as the message shows it, cut to a reasonable length."""
    try:
        text = repr(raw)
    except (ValueError, RecursionError):
        return "(too long to be shown)"  # a number of thousands of digits, or one in a list
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


class _Consistency:
    """Checks that concern several fields."""

    def __init__(self, source: str, pair: Pair) -> None:
        self._source = source
        self._pair = pair

    def check(self) -> None:
        """Raise ConfigError for the first inconsistency."""
        self._names()
        self._priorities()
        self._own_addresses()
        for each in self._pair.virtual_addresses:
            self._virtual(each)
        if not self._pair.spoken:
            self._refuse(
                f"virtual_addresses has no IPv{self._pair.talks} address",
                "the hosts' `address` must have the same IP version as one of them",
            )
        self._rest()

    def _names(self) -> None:
        first, second = self._pair.hosts
        if first.name.lower() == second.name.lower():
            self._refuse(f"name = {first.name!r} is used for both hosts", "give each its own")

    def _priorities(self) -> None:
        pair = self._pair
        low, high = sorted(host.priority for host in pair.hosts)
        if low == high:
            self._refuse(
                f"priority = {low} is used for both hosts", "give one of them a higher one"
            )
        # keepalived clips priorities at these bounds: then the healthy host might not win.
        if low - pair.weight < LOWEST or high + pair.hold > HIGHEST:
            self._refuse(
                f"priority = {high} and {low} leave no room: a sick host goes down by "
                f"{pair.weight}, the one that has the address up by {pair.hold}, "
                f"and all must stay from {LOWEST} to {HIGHEST}",
                "use neighbouring numbers such as 201 and 200",
            )

    def _own_addresses(self) -> None:
        first, second = self._pair.hosts
        self._twins("address", first.address, second.address)
        if first.address6 is None and second.address6 is None:
            return
        if first.address6 is None or second.address6 is None:
            self._refuse("address6 is given for one host only", "give both of them one, or none")
        if (first.address.version, first.address6.version, second.address6.version) != (4, 6, 6):
            self._refuse("address6 is for an IPv6 address beside an IPv4 `address`", "leave it out")
        self._twins("address6", first.address6, second.address6)

    def _twins(self, key: str, first: Interface, second: Interface) -> None:
        if first.ip == second.ip:
            self._refuse(f"{key} = {first.ip} is used for both hosts", "give each its own")
        if first.network != second.network:
            self._refuse(
                f"{key}: {first.with_prefixlen} and {second.with_prefixlen} are not in one network",
                "the hosts of a pair share a network, to which the virtual addresses belong",
            )

    def _virtual(self, virtual: Interface) -> None:
        host = self._pair.hosts[0]
        own = host.address if virtual.version == self._pair.talks else host.address6
        if own is None or own.version != virtual.version:
            self._refuse(
                f"virtual_addresses has {virtual.with_prefixlen}, but no host has an IPv"
                f"{virtual.version} address",
                "give both hosts an `address6`" if virtual.version == 6 else "leave it out",
            )
        if virtual.network != own.network:
            self._refuse(
                f"virtual_addresses has {virtual.with_prefixlen}, which is not in the hosts' "
                f"network {own.network}",
                f"give an address of that network with /{own.network.prefixlen}",
            )
        for each in self._pair.hosts:
            if virtual.ip in {each.address.ip, each.address6.ip if each.address6 else None}:
                self._refuse(
                    f"virtual_addresses has {virtual.ip}, which is {each.name}'s own",
                    "give an address that no machine has",
                )

    def _rest(self) -> None:
        pair, check, notify = self._pair, self._pair.check, self._pair.notify
        if pair.preempt_delay and not pair.preempt:
            self._refuse("preempt_delay is given without preempt", "set preempt = true, or drop it")
        if check.disk_ok_percent <= check.disk_warn_percent:
            self._refuse(
                f"check.disk_ok_percent = {check.disk_ok_percent} is not more than "
                f"check.disk_warn_percent = {check.disk_warn_percent}",
                "leave room between them, or the host will alternate between sick and healthy",
            )
        if notify.mail_to and not (notify.mail_from and notify.smtp_server):
            self._refuse(
                "notify.mail_to is given without notify.mail_from and notify.smtp_server",
                "keepalived needs all three",
            )
        if ":" in notify.smtp_server:
            try:
                ip_address(notify.smtp_server)
            except ValueError:
                self._refuse(
                    f"notify.smtp_server = {notify.smtp_server!r} is not an address",
                    "the port belongs in notify.smtp_port",
                )

    def _refuse(self, what: str, hint: str) -> NoReturn:
        raise ConfigError(f"{self._source}: {what}", hint=hint)
