"""The pair: two hosts behind one address, as records of ``keepalived/pair.toml``.

First the kinds of fields, then the records.  Each field has its default, its kind and its meaning.
What follows for keepalived, above all how priorities are lowered and raised, is computed here too.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from dataserver.config.kinds import Switch, Whole
from dataserver.config.paths import MAX_NAME_LENGTH, SYSTEM_HOME, Home, is_name
from dataserver.uploads.accounts import SERVICE_USER

PAIR_NAME = "pair.toml"
#: Lowest and highest priority of a host that is not the address's owner (RFC 5798, 5.2.4).
LOWEST, HIGHEST = 1, 254


# -- kinds of fields --

Interface = IPv4Interface | IPv6Interface
#: Folders of ``keepalived/`` that cannot be a host's.
RESERVED_HOSTS = frozenset({"templates"})
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
# dev_valid_name() of the kernel accepts more; these names need no quoting anywhere.
_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")
# useradd(8), as Debian has it.
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
_MAIL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}@[A-Za-z0-9][A-Za-z0-9.-]{0,254}")
_SERVER = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,254}|[0-9A-Fa-f:.]{2,45}")
#: More addresses do not fit into a packet that keepalived accepts (keepalived.conf(5)).
_MOST_ADDRESSES = 20


class Kind(Protocol):
    """A kind of field: what it allows, in words, and how it is decoded.

    Values end up in keepalived.conf, in shell scripts and in unit files: no kind allows a character
    that could end a word there, except where a shell gets it quoted (paths, commands).
    """

    @property
    def allowed(self) -> str:
        """The allowed values, in words."""

    def decode(self, raw: object, base: Path) -> object:
        """Check and convert a value of TOML; ``base`` is where relative paths start.

        Raises ValueError with the part of the message that follows the value: why it is invalid.
        """


@dataclass(frozen=True, slots=True)
class Word:
    """Text that matches a pattern."""

    shape: re.Pattern[str]
    allowed: str
    refused: frozenset[str] = frozenset()
    optional: bool = False

    def decode(self, raw: object, base: Path) -> str:
        if not isinstance(raw, str):
            raise ValueError("is not text")
        if raw in self.refused:
            raise ValueError("is reserved")
        if not (self.optional and not raw) and self.shape.fullmatch(raw) is None:
            raise ValueError("is malformed")
        return raw


HOST_NAME = Word(
    _HOST, "the host's name without its domain: letters, digits and -, at most 63", RESERVED_HOSTS
)
DEVICE = Word(
    _DEVICE,
    "a network interface: 1 to 15 letters, digits, _, . and -",
    # The last two are folders beside those of the interfaces in /proc/sys/net/ipv4/conf.
    frozenset({"lo", "all", "default"}),
)
USER = Word(_USER, "an account: a-z, 0-9, _ and -, at most 31")
MAIL = Word(_MAIL, 'a mail address such as "admin@example.org"', optional=True)
MAIL_SERVER = Word(_SERVER, "a host name or an address", optional=True)


@dataclass(frozen=True, slots=True)
class Address:
    """A host's address with the length of its network's prefix."""

    allowed: str = 'an address with its prefix length, such as "192.0.2.11/24"'
    optional: bool = False

    def decode(self, raw: object, base: Path) -> Interface | None:
        if self.optional and raw == "":
            return None
        return address(raw)


@dataclass(frozen=True, slots=True)
class Addresses:
    """A list of addresses, none twice."""

    allowed: str = f"1 to {_MOST_ADDRESSES} addresses, each with its prefix length, none twice"

    def decode(self, raw: object, base: Path) -> tuple[Interface, ...]:
        found: list[Interface] = []
        for each in _list(raw):
            try:
                found.append(address(each))
            except ValueError as exc:
                raise ValueError(f"has {each!r}, which {exc}") from exc
        plain = [each.ip for each in found]
        for each in plain:
            if plain.count(each) > 1:
                raise ValueError(f"has {each} twice")
        if not 1 <= len(found) <= _MOST_ADDRESSES:
            raise ValueError(f"has {len(found)} addresses")
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Instances:
    """Names of instances, none twice."""

    allowed: str = f"names of instances, at least one, each at most {MAX_NAME_LENGTH} characters"

    def decode(self, raw: object, base: Path) -> tuple[str, ...]:
        names = _list(raw)
        for name in names:
            if not isinstance(name, str) or not is_name(name):
                raise ValueError(f"has {name!r}, which is not an instance's name")
            if names.count(name) > 1:
                raise ValueError(f"has {name!r} twice")
        if not names:
            raise ValueError("has no names")
        return tuple(str(name) for name in names)


@dataclass(frozen=True, slots=True)
class Mails:
    """Mail addresses."""

    allowed: str = 'a list of mail addresses such as ["admin@example.org"]'

    def decode(self, raw: object, base: Path) -> tuple[str, ...]:
        found = []
        for each in _list(raw):
            if not isinstance(each, str) or _MAIL.fullmatch(each) is None:
                raise ValueError(f"has {each!r}, which is not a mail address")
            found.append(each)
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Command:
    """A program with its arguments; it is run without a shell."""

    allowed: str = 'a list such as ["/usr/local/bin/tell", "argument"], the program by its path'

    def decode(self, raw: object, base: Path) -> tuple[str, ...]:
        words = []
        for each in _list(raw):
            if not isinstance(each, str) or not each.isprintable():
                raise ValueError(f"has {each!r}, which is not printable text")
            words.append(each)
        if words and not words[0].startswith("/"):
            raise ValueError("does not begin with the path of a program")
        return tuple(words)


@dataclass(frozen=True, slots=True)
class Directory:
    """An absolute path, of printable characters."""

    allowed: str = 'an absolute path such as "/var/lib/dataserver"'

    def decode(self, raw: object, base: Path) -> Path:
        if not isinstance(raw, str) or not raw.isprintable():
            raise ValueError("is no path of printable characters")
        if not raw.startswith("/") or ".." in Path(raw).parts:
            raise ValueError("is not absolute")
        return Path(raw)


@dataclass(frozen=True, slots=True)
class Centiseconds:
    """A time in hundredths of a second, the unit of VRRP version 3."""

    lowest: float
    highest: float

    @property
    def allowed(self) -> str:
        return f"seconds from {self.lowest:g} to {self.highest:g}, in steps of 0.01"

    def decode(self, raw: object, base: Path) -> float:
        if isinstance(raw, bool) or not isinstance(raw, int | float):
            raise ValueError("is not a number")
        # Written so that NaN, which TOML can express, is outside too.
        if not self.lowest <= raw <= self.highest:
            raise ValueError("is out of range")
        if abs(raw * 100 - round(raw * 100)) > 1e-6:
            raise ValueError("is not a multiple of 0.01")
        return round(raw * 100) / 100


def address(raw: object) -> Interface:
    """An address of a host, with its prefix length; ValueError says why it is invalid."""
    if not isinstance(raw, str):
        raise ValueError("is not text")
    text, slash, length = raw.partition("/")
    # Not a mask, a scope, or digits that only some programs understand.
    if not slash or not length.isascii() or not length.isdigit() or "%" in text:
        raise ValueError("is not an address with its prefix length")
    try:
        found = ipaddress.ip_interface(raw)
    except ValueError as exc:
        raise ValueError("is not an address with its prefix length") from exc
    ip, network = found.ip, found.network
    if ip.is_loopback or ip.is_multicast or ip.is_unspecified or ip.is_link_local:
        raise ValueError("is not an address that a host can have on its network")
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        raise ValueError("is an IPv4 address written as IPv6")
    if network.num_addresses > 2 and ip == network.network_address:
        raise ValueError("is the network itself")
    if ip.version == 4 and network.num_addresses > 2 and ip == network.broadcast_address:
        raise ValueError("is the broadcast address of its network")
    return found


def _list(raw: object) -> list[object]:
    if not isinstance(raw, list):
        raise ValueError("is not a list")
    return raw


# -- the pair --

_T = TypeVar("_T")


class About(NamedTuple):
    """The kind and meaning of a field, for reading it."""

    kind: Kind
    meaning: str
    #: Whether it has no default.
    needed: bool


def _field(kind: Kind, meaning: str, default: _T) -> _T:
    # Typed as its default, as dataclasses.field itself is.
    return field(default=default, metadata={"about": About(kind, meaning, False)})


def _needed(kind: Kind, meaning: str) -> Any:
    return field(metadata={"about": About(kind, meaning, True)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One of the two hosts."""

    name: str = _needed(HOST_NAME, "What `hostname -s` says; also the name of its folder.")
    address: Interface = _needed(Address(), "Its own address, used between the hosts.")
    address6: Interface | None = _field(
        Address(optional=True),
        "Its IPv6 address, if `address` is IPv4 and agents use both.",
        None,
    )
    interface: str = _needed(DEVICE, "The network interface that has these addresses.")
    priority: int = _needed(
        Whole(LOWEST, HIGHEST), "The host with the higher one gets the address first."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """When a host counts as sick or at fault.  Times are seconds."""

    interval: int = _field(Whole(1, 60), "Seconds between two checks.", 2)
    timeout: int = _field(Whole(1, 60), "A check that takes longer has failed (seconds).", 4)
    fall: int = _field(Whole(1, 100), "Failed checks in a row until a failure counts.", 3)
    rise: int = _field(Whole(1, 100), "Passed checks in a row until it is over.", 3)
    disk_warn_percent: int = _field(
        Whole(1, 99), "With less free space on a disk the host is sick (percent).", 5
    )
    disk_ok_percent: int = _field(
        Whole(1, 99), "With more free space it is healthy again (percent).", 10
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Notify:
    """Notifications when the address moves."""

    command: tuple[str, ...] = _field(
        Command(), "A program to run; state, host and priority are added as arguments.", ()
    )
    mail_to: tuple[str, ...] = _field(Mails(), "The recipients of keepalived's mails.", ())
    mail_from: str = _field(MAIL, "The sender of these mails.", "")
    smtp_server: str = _field(MAIL_SERVER, "The server that accepts them.", "")
    smtp_port: int = _field(Whole(1, 65535), "Its port.", 25)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Both hosts, and what they share."""

    virtual_addresses: tuple[Interface, ...] = _needed(
        Addresses(), "The addresses to which agents upload: held by one of the hosts at a time."
    )
    virtual_router_id: int = _field(
        Whole(1, 255), "The pair's number; no other VRRP router on this network may use it.", 51
    )
    advert_int: float = _field(
        Centiseconds(0.01, 40.95),
        "Seconds between two adverts of the host that has the address.",
        1.0,
    )
    unicast: bool = _field(
        Switch(), "Send adverts to the other host only; false: to VRRP's multicast group.", True
    )
    preempt: bool = _field(
        Switch(),
        "Whether the host of higher priority takes the address back when it is healthy.",
        False,
    )
    preempt_delay: int = _field(
        Whole(0, 1000), "Seconds to wait before that; only with `preempt`.", 0
    )
    instances: tuple[str, ...] = _field(
        Instances(), "Instances that a healthy host must run.", ("main",)
    )
    home: Path = _field(Directory(), "The home of the data server on both hosts.", SYSTEM_HOME)
    script_user: str = _field(
        USER, "The account that runs the checks: the data server's.", SERVICE_USER
    )
    hosts: tuple[Host, Host]
    check: Check = field(default_factory=Check)
    notify: Notify = field(default_factory=Notify)

    def twin(self, host: Host) -> Host:
        """The other host."""
        first, second = self.hosts
        return second if host == first else first

    @property
    def talks(self) -> int:
        """The IP version of the adverts: 4 or 6."""
        return self.hosts[0].address.version

    @property
    def spoken(self) -> tuple[Interface, ...]:
        """The virtual addresses of that version, which the adverts contain."""
        return tuple(each for each in self.virtual_addresses if each.version == self.talks)

    @property
    def silent(self) -> tuple[Interface, ...]:
        """The other virtual addresses, which move together with them."""
        return tuple(each for each in self.virtual_addresses if each.version != self.talks)

    @property
    def distance(self) -> int:
        """The difference of the hosts' priorities."""
        return abs(self.hosts[0].priority - self.hosts[1].priority)

    @property
    def hold(self) -> int:
        """What having the address adds to the priority, so that a healthy host keeps it, or 0.

        keepalived's own ``nopreempt`` does not work here: with it a host also keeps the address
        when its priority is lowered because it is sick.
        """
        return 0 if self.preempt else self.distance + 1

    @property
    def weight(self) -> int:
        """What being sick subtracts from the priority: a sick host loses to a healthy one."""
        return self.distance + self.hold + 1


def about(record: type) -> Mapping[str, About]:
    """The fields of a record that are in the file, by name."""
    return {f.name: f.metadata["about"] for f in fields(record) if "about" in f.metadata}


def pair_file(home: Home) -> Path:
    """The file that describes the pair."""
    return home.root / "keepalived" / PAIR_NAME
