"""The pair: two hosts behind one address, as ``keepalived/pair.toml`` has it.

Each field holds its default, what it may be and what it means.  What follows from them for
keepalived, above all how priorities are lowered and raised, is computed here too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from dataserver.home import SYSTEM_HOME, Home
from dataserver.setting_kinds import Switch, Whole
from dataserver.uploads.accounts import SERVICE_USER
from dataserver.vrrp.kinds import (
    DEVICE,
    HOST_NAME,
    MAIL,
    MAIL_SERVER,
    USER,
    Address,
    Addresses,
    Centiseconds,
    Command,
    Directory,
    Instances,
    Interface,
    Kind,
    Mails,
)

PAIR_NAME = "pair.toml"
#: Lowest and highest priority of a host that is not the address's owner (RFC 5798, 5.2.4).
LOWEST, HIGHEST = 1, 254

_T = TypeVar("_T")


class About(NamedTuple):
    """What a field is: beside each, for reading it."""

    kind: Kind
    meaning: str
    #: There is no default.
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
    address: Interface = _needed(Address(), "Its own address, over which the hosts talk.")
    address6: Interface | None = _field(
        Address(optional=True),
        "Its IPv6 address, where `address` is IPv4 and agents use both.",
        None,
    )
    interface: str = _needed(DEVICE, "The network interface that has these addresses.")
    priority: int = _needed(Whole(LOWEST, HIGHEST), "The higher one gets the address first.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """When a host counts as sick or at fault.  Times are seconds."""

    interval: int = _field(Whole(1, 60), "Seconds between two checks.", 2)
    timeout: int = _field(Whole(1, 60), "A check that takes longer has failed (seconds).", 4)
    fall: int = _field(Whole(1, 100), "After so many failed checks in a row it counts.", 3)
    rise: int = _field(Whole(1, 100), "After so many good ones in a row it is over.", 3)
    disk_warn_percent: int = _field(
        Whole(1, 99), "With less of a disk free the host is sick (percent).", 5
    )
    disk_ok_percent: int = _field(Whole(1, 99), "It is well again when more is free (percent).", 10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notify:
    """Who is told when the address moves."""

    command: tuple[str, ...] = _field(
        Command(), "A program to run; state, host and priority are added as arguments.", ()
    )
    mail_to: tuple[str, ...] = _field(Mails(), "To whom keepalived writes.", ())
    mail_from: str = _field(MAIL, "The sender of these mails.", "")
    smtp_server: str = _field(MAIL_SERVER, "The server that takes them.", "")
    smtp_port: int = _field(Whole(1, 65535), "Its port.", 25)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Both hosts, and what they share."""

    virtual_addresses: tuple[Interface, ...] = _needed(
        Addresses(), "What agents upload to: held by one of the hosts at a time."
    )
    virtual_router_id: int = _field(
        Whole(1, 255), "The pair's number; no other VRRP on this network may have it.", 51
    )
    advert_int: float = _field(
        Centiseconds(0.01, 40.95), "Seconds between two signs of life of the one that has it.", 1.0
    )
    unicast: bool = _field(
        Switch(), "Talk to the other host alone; false: to the multicast group of VRRP.", True
    )
    preempt: bool = _field(
        Switch(),
        "Whether the host of higher priority takes the address back when it is well.",
        False,
    )
    preempt_delay: int = _field(
        Whole(0, 1000), "Seconds for which it waits before; only with `preempt`.", 0
    )
    instances: tuple[str, ...] = _field(
        Instances(), "Instances without which a host is not well.", ("main",)
    )
    home: Path = _field(Directory(), "The home of the data server on both hosts.", SYSTEM_HOME)
    script_user: str = _field(
        USER, "The account that runs the checks: that of the data server.", SERVICE_USER
    )
    hosts: tuple[Host, Host]
    check: Check = field(default_factory=Check)
    notify: Notify = field(default_factory=Notify)

    def twin(self, host: Host) -> Host:
        """The other one."""
        first, second = self.hosts
        return second if host == first else first

    @property
    def talks(self) -> int:
        """The version of IP over which the hosts talk: 4 or 6."""
        return self.hosts[0].address.version

    @property
    def spoken(self) -> tuple[Interface, ...]:
        """The virtual addresses of that version: those that stand in what keepalived sends."""
        return tuple(each for each in self.virtual_addresses if each.version == self.talks)

    @property
    def silent(self) -> tuple[Interface, ...]:
        """The others, which move together with them."""
        return tuple(each for each in self.virtual_addresses if each.version != self.talks)

    @property
    def distance(self) -> int:
        """How far the priorities of the hosts are apart."""
        return abs(self.hosts[0].priority - self.hosts[1].priority)

    @property
    def hold(self) -> int:
        """What having the address adds to a priority, so that a well host keeps it; 0: nothing.

        keepalived's own ``nopreempt`` will not do: with it a host whose priority is lowered
        because it is sick keeps the address as well.
        """
        return 0 if self.preempt else self.distance + 1

    @property
    def weight(self) -> int:
        """What being sick takes from a priority: a sick host that has it loses to a well one."""
        return self.distance + self.hold + 1


def about(record: type) -> Mapping[str, About]:
    """The fields of one of these records that stand in the file, by name."""
    return {f.name: f.metadata["about"] for f in fields(record) if "about" in f.metadata}


def pair_file(home: Home) -> Path:
    """Where the pair stands."""
    return home.root / "keepalived" / PAIR_NAME
