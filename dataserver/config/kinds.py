"""Kinds of settings: what values each allows, and how it reads them from TOML or text.

Every kind has ``allowed`` (for messages and the reference), ``from_text`` (converts the
text of an environment variable to the value that TOML would give) and ``decode``
(checks that value and converts it to what the program uses).  Both raise ValueError with
the part of the message that says why; the caller adds key and file.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from dataserver.config.timezone import zone_named
from dataserver.errors import ConfigError

_N = TypeVar("_N", int, float)

_SWITCHES = {"true": True, "yes": True, "on": True, "1": True}
_SWITCHES |= {"false": False, "no": False, "off": False, "0": False}
_FACTORS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_FACTORS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_SIZE = re.compile(r"(\d{1,18}) ?([a-z]*)")
# A user with or without password, a host (IPv6 in brackets), a port, a name, options.
_DATABASE = re.compile(
    r"sqlite:///.+|(?:mysql|mariadb)(?:\+mysqldb)?://(?:[^/]*@)?(?:\[[^]@/]*\]|[^]@:/[]*)"
    r"(?::(?P<port>\d{1,5}))?/[^/?]+(?:\?.*)?"
)
_HIGHEST_PORT = 65535
# Greedy up to the last "@": better to hide too much than to show a part of a password.
_URL_PASSWORD = re.compile(r"(://[^:/@]*:).*@")
_QUERY_PASSWORD = re.compile(r"([?&](?:passwd|password)=)[^&]*", re.IGNORECASE)


class Kind(Protocol):
    """A kind of setting."""

    @property
    def allowed(self) -> str:
        """The allowed values, in words."""

    def from_text(self, text: str) -> object:
        """The value that TOML would give for this text; raises ValueError if there is none."""

    def decode(self, raw: object, base: Path) -> object:
        """The setting for a value from TOML; relative paths start at ``base``."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number within bounds."""

    lowest: int
    highest: int

    @property
    def allowed(self) -> str:
        return f"a whole number from {self.lowest} to {self.highest}"

    def from_text(self, text: str) -> object:
        return int(text)

    def decode(self, raw: object, base: Path) -> int:
        if isinstance(raw, bool) or not isinstance(raw, int):
            raise ValueError("is not a whole number")
        return _within(raw, self.lowest, self.highest)


@dataclass(frozen=True, slots=True)
class Number:
    """A number within bounds, fractions allowed."""

    lowest: float
    highest: float

    @property
    def allowed(self) -> str:
        return f"a number from {self.lowest:g} to {self.highest:g}"

    def from_text(self, text: str) -> object:
        return float(text)

    def decode(self, raw: object, base: Path) -> float:
        if isinstance(raw, bool) or not isinstance(raw, int | float):
            raise ValueError("is not a number")
        return _within(float(raw), self.lowest, self.highest)


@dataclass(frozen=True, slots=True)
class Size:
    """A number of bytes: a whole number, or text with a unit."""

    lowest: int
    highest: int

    @property
    def allowed(self) -> str:
        bounds = f"{size_text(self.lowest)} to {size_text(self.highest)}"
        return f'a number of bytes or text like "64 MiB" or "64MB", from {bounds}'

    def from_text(self, text: str) -> object:
        return text

    def decode(self, raw: object, base: Path) -> int:
        if isinstance(raw, str):
            match = _SIZE.fullmatch(raw.strip().lower())
            if match is None or match[2] not in _FACTORS:
                raise ValueError("is not a size")
            return _within(int(match[1]) * _FACTORS[match[2]], self.lowest, self.highest)
        if isinstance(raw, bool) or not isinstance(raw, int):
            raise ValueError("is not a size")
        return _within(raw, self.lowest, self.highest)


@dataclass(frozen=True, slots=True)
class Switch:
    """On or off."""

    allowed: str = 'true or false, or "on" or "off"'

    def from_text(self, text: str) -> object:
        return _SWITCHES.get(text.lower(), text)

    def decode(self, raw: object, base: Path) -> bool:
        read = {"on": True, "off": False}.get(raw) if isinstance(raw, str) else raw
        if not isinstance(read, bool):
            raise ValueError("is neither true nor false")
        return read


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    @property
    def allowed(self) -> str:
        return " or ".join(f'"{word}"' for word in self.words)

    def from_text(self, text: str) -> object:
        return text

    def decode(self, raw: object, base: Path) -> str:
        if raw not in self.words:
            raise ValueError("is not one of the words")
        return str(raw)


@dataclass(frozen=True, slots=True)
class Text:
    """Text of at most ``longest`` characters on one line."""

    longest: int
    shortest: int = 0

    @property
    def allowed(self) -> str:
        return f"text of {self.shortest} to {self.longest} characters"

    def from_text(self, text: str) -> object:
        return text

    def decode(self, raw: object, base: Path) -> str:
        if not isinstance(raw, str):
            raise ValueError("is not text")
        if not raw.isprintable():
            raise ValueError("has characters that cannot be printed")
        if not self.shortest <= len(raw) <= self.longest:
            raise ValueError(f"has {len(raw)} characters")
        return raw


@dataclass(frozen=True, slots=True)
class Location:
    """A file or directory."""

    allowed: str = "a path, relative to the file it is set in (in the environment: to the home)"

    def from_text(self, text: str) -> object:
        return text

    def decode(self, raw: object, base: Path) -> Path:
        if not isinstance(raw, str) or not raw or "\0" in raw:
            raise ValueError("is not a path")
        real = (base / raw).resolve()
        # With its symbolic links, so that a link that is changed later is noticed.
        named = Path(os.path.normpath(base.resolve() / raw))
        return named if named.resolve() == real else real


@dataclass(frozen=True, slots=True)
class Database:
    """A database's URL."""

    allowed: str = '"sqlite:///FILE" (relative to the home) or "mysql://USER@HOST:PORT/NAME"'

    def from_text(self, text: str) -> object:
        return text

    def decode(self, raw: object, base: Path) -> str:
        match = _DATABASE.fullmatch(raw) if isinstance(raw, str) else None
        if match is None:
            raise ValueError("is not the URL of a database that this server can use")
        if match["port"] and not 1 <= int(match["port"]) <= _HIGHEST_PORT:
            raise ValueError("has a port that does not exist")
        return match[0]


@dataclass(frozen=True, slots=True)
class Zone:
    """The name of a time zone."""

    allowed: str = 'a name such as "Europe/Madrid", or "" for the system\'s own'

    def from_text(self, text: str) -> object:
        return text

    def decode(self, raw: object, base: Path) -> str:
        if not isinstance(raw, str):
            raise ValueError("is not text")
        if raw:
            try:
                zone_named(raw)
            except ConfigError as exc:
                raise ValueError("is not a known time zone") from exc
        return raw


def masked(text: str) -> str:
    """``text`` with the password of any URL in it replaced by ``***``."""
    return _QUERY_PASSWORD.sub(r"\1***", _URL_PASSWORD.sub(r"\1***@", text))


def size_text(count: int) -> str:
    """A number of bytes with the largest exact unit: 1536 is "1536 B", 2048 is "2 KiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count == 0 or count % 1024:
            return f"{count} {unit}"
        count //= 1024
    return f"{count} TiB"


def _within(value: _N, lowest: _N, highest: _N) -> _N:
    # Written so that NaN, which TOML can express, is outside too.
    if not lowest <= value <= highest:
        raise ValueError("is out of range")
    return value
