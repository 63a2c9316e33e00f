"""What a field of ``pair.toml`` may be: names, addresses, commands; beside those of all settings.

Each kind has ``allowed``, in words, and ``decode``, which checks what TOML gave and turns it into
what the program uses, or raises ValueError with the part of the message that says why.  What
passes here stands in keepalived.conf, in shell scripts and in unit files: nothing that could end
its word there passes, but where a shell gets it in quotes (paths, commands).
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path
from typing import Protocol

from dataserver.home import MAX_NAME_LENGTH, is_name

Interface = IPv4Interface | IPv6Interface

#: Folders of ``keepalived/`` that are no host's.
RESERVED_HOSTS = frozenset({"templates"})

_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
# dev_valid_name() of the kernel takes more; what is left here needs no quoting anywhere.
_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")
# useradd(8), as Debian has it.
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
_MAIL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}@[A-Za-z0-9][A-Za-z0-9.-]{0,254}")
_SERVER = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,254}|[0-9A-Fa-f:.]{2,45}")

#: Of what keepalived advertises; more do not fit in a packet that it takes (keepalived.conf(5)).
_MOST_ADDRESSES = 20


class Kind(Protocol):
    """A kind of field."""

    @property
    def allowed(self) -> str:
        """What may stand there, in words."""

    def decode(self, raw: object, base: Path) -> object:
        """The value for what TOML gave; ``base`` is where relative paths start."""


@dataclass(frozen=True, slots=True)
class Word:
    """Text of one shape."""

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
            raise ValueError("has another shape")
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
    """Some of them, none twice."""

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
                raise ValueError(f"has {name!r}, which is no instance's name")
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
                raise ValueError(f"has {each!r}, which is no mail address")
            found.append(each)
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Command:
    """A program with its arguments; no shell reads it."""

    allowed: str = 'a list such as ["/usr/local/bin/tell", "argument"], the program by its path'

    def decode(self, raw: object, base: Path) -> tuple[str, ...]:
        words = []
        for each in _list(raw):
            if not isinstance(each, str) or not each.isprintable():
                raise ValueError(f"has {each!r}, which is no printable text")
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
    """A time in steps of a hundredth of a second, which is how VRRP version 3 sends it."""

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
            raise ValueError("is no multiple of 0.01")
        return round(raw * 100) / 100


def address(raw: object) -> Interface:
    """An address that a host can have, with its prefix length; ValueError says why not."""
    if not isinstance(raw, str):
        raise ValueError("is not text")
    text, slash, length = raw.partition("/")
    # Not a mask, a scope, or digits that only some programs understand.
    if not slash or not length.isascii() or not length.isdigit() or "%" in text:
        raise ValueError("is no address with its prefix length")
    try:
        found = ipaddress.ip_interface(raw)
    except ValueError as exc:
        raise ValueError("is no address with its prefix length") from exc
    ip, network = found.ip, found.network
    if ip.is_loopback or ip.is_multicast or ip.is_unspecified or ip.is_link_local:
        raise ValueError("is no address that a host has on a network of its own")
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
