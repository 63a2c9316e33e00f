"""The keys with which agents upload: reading and changing ``uploads/authorized_keys``.

A change replaces the file atomically, so that sshd sees the old or the new one, and concurrent
changes are serialized.  Lines that we did not write are preserved.
Source: sshd(8), "AUTHORIZED_KEYS FILE FORMAT"; RFC 4253, section 6.6; RFC 5656, section 3.1.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import hashlib
import ipaddress
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dataserver.config.paths import Home
from dataserver.errors import UsageError

_HEAD = "# Keys with which agents may upload. Written by `dataserver uploads key`.\n"


def keys_file(home: Home) -> Path:
    """Where sshd finds the keys of the upload accounts."""
    return uploads_folder(home) / "authorized_keys"


def uploads_folder(home: Home) -> Path:
    """``HOME/uploads``: the files of uploads."""
    return home.root / "uploads"


class Keys:
    """The keys in one file, which need not exist."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def entries(self) -> list[Entry]:
        """All keys, in order; OSError if the file cannot be read."""
        return [entry for line in self._lines() if (entry := Entry.parse(line))]

    def not_understood(self) -> list[int]:
        """The numbers (from 1) of lines that are neither empty, nor a comment, nor a key."""
        return [
            number
            for number, line in enumerate(self._lines(), 1)
            if line.strip() and not line.lstrip().startswith("#") and Entry.parse(line) is None
        ]

    def add(self, entry: Entry) -> None:
        """Add a key; UsageError if its name or the key itself exists already."""
        with self._changing():
            for other in self.entries():
                if other.name == entry.name:
                    raise UsageError(
                        f"a key named {entry.name!r} exists already",
                        hint="choose another name, or remove that one first",
                    )
                if other.key.fingerprint == entry.key.fingerprint:
                    raise UsageError(
                        f"this key exists already, as {other.name!r}",
                        hint="each agent, or group of agents, needs its own key",
                    )
            self._write([*self._lines(), entry.line])

    def remove(self, name: str) -> Entry:
        """Remove a key; UsageError unless exactly one has this name."""
        with self._changing():
            lines = self._lines()
            found = [
                (number, entry)
                for number, line in enumerate(lines)
                if (entry := Entry.parse(line)) and entry.name == name
            ]
            if len(found) != 1:
                what = f"{len(found)} keys are" if found else "no key is"
                raise UsageError(
                    f"{what} called {name!r} in {self._path}",
                    hint="`dataserver uploads key list` shows all",
                )
            number, entry = found[0]
            self._write([*lines[:number], *lines[number + 1 :]])
            return entry

    def create(self) -> bool:
        """Create the file unless it exists; whether it was created."""
        with self._changing():
            if self._path.exists():
                return False
            self._write([])
            return True

    def _lines(self) -> list[str]:
        try:
            # Lines of others are preserved, in any encoding and with any line ends.
            text = self._path.read_bytes().decode("utf-8", "surrogateescape")
        except FileNotFoundError:
            return []
        # Not splitlines(), which accepts line ends that sshd does not.
        return text.removesuffix("\n").split("\n") if text else []

    @contextmanager
    def _changing(self) -> Iterator[None]:
        self._path.parent.mkdir(mode=0o755, exist_ok=True)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
            os.fsync(folder)
        finally:
            os.close(folder)

    def _write(self, lines: list[str]) -> None:
        text = "".join(f"{line}\n" for line in lines) or _HEAD
        fd, temporary = tempfile.mkstemp(prefix=".authorized_keys.", dir=self._path.parent)
        try:
            with open(fd, "wb") as file:
                file.write(text.encode("utf-8", "surrogateescape"))
                file.flush()
                os.fchmod(fd, 0o644)
                os.fsync(fd)
            os.replace(temporary, self._path)
        except BaseException:
            os.unlink(temporary)
            raise


# -- public keys and lines of authorized_keys --

MAX_NAME_LENGTH = 64
_NAME = re.compile(r"[A-Za-z0-9._@-]{1,64}")
#: Smaller RSA keys are too weak (bits).
_RSA_BITS = 2048
#: Key type to the number of fields that follow it in the blob.
_FIELDS = {
    "ssh-ed25519": 1,
    "ssh-rsa": 2,
    "ecdsa-sha2-nistp256": 2,
    "ecdsa-sha2-nistp384": 2,
    "ecdsa-sha2-nistp521": 2,
    "sk-ssh-ed25519@openssh.com": 2,
    "sk-ecdsa-sha2-nistp256@openssh.com": 3,
}
#: An option of a line: a name, or a name and a value in quotes.
_OPTION = re.compile(r'[^\s",=]+(?:="(?:[^"\\]|\\.)*")?')
#: Options that may accompany `restrict` without granting anything.
_NARROWING = re.compile(r'from="[^"]*"|expiry-time="[^"]*"|no-[a-z0-9-]+|restrict', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key: its type and its blob in base 64."""

    kind: str
    blob: str

    @property
    def fingerprint(self) -> str:
        """The fingerprint as ``ssh-keygen -l`` shows it."""
        digest = hashlib.sha256(base64.b64decode(self.blob)).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """The one key in ``text``, the content of a ``.pub`` file, without its comment.

        Raises UsageError for anything else: no key, a private key, several, one with options,
        one that sshd would reject.
        """
        if "PRIVATE KEY" in text or "PuTTY-User-Key-File" in text:
            raise UsageError(
                "this is a private key, which must stay on the agent's machine",
                hint="give the public one (FILE.pub), and make a new pair if others have seen this",
            )
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) != 1:
            what = f"{len(lines)} lines" if lines else "nothing"
            raise UsageError(f"a public key is one line, this is {what}", hint="give FILE.pub")
        words = lines[0].split()
        if words[0] not in _FIELDS or len(words) < 2:
            raise UsageError(
                f"{words[0][:80]!r} is not the beginning of a supported public key",
                hint=f"it begins with one of {', '.join(_FIELDS)}, without options before it",
            )
        key = cls(words[0], words[1])
        key.check()
        return key

    def check(self) -> None:
        """Raise UsageError unless the blob is a key of this type."""
        try:
            fields = list(_fields(base64.b64decode(self.blob, validate=True)))
        except (binascii.Error, ValueError) as exc:
            raise UsageError(
                f"this {self.kind} key is damaged: {exc}", hint="copy the whole line of FILE.pub"
            ) from exc
        if fields[:1] != [self.kind.encode()] or len(fields) != 1 + _FIELDS[self.kind]:
            raise UsageError(
                f"the data after {self.kind} is not a key of this type",
                hint="copy the whole line of FILE.pub",
            )
        if self.kind == "ssh-ed25519" and len(fields[1]) != 32:
            raise UsageError("this ssh-ed25519 key has a wrong length", hint="make a new pair")
        if self.kind == "ssh-rsa" and (bits := _bits(fields[2])) < _RSA_BITS:
            raise UsageError(
                f"this ssh-rsa key has {bits} bits, fewer than {_RSA_BITS}",
                hint="make a new pair: ssh-keygen -t ed25519",
            )


@dataclass(frozen=True, slots=True)
class Entry:
    """One key that may upload."""

    #: Its name, or the comment of a line that we did not write.
    name: str
    key: PublicKey
    options: tuple[str, ...]

    @property
    def restricted(self) -> bool:
        """Whether sshd grants this key nothing but the forced command."""
        named = {option.lower() for option in self.options}
        return "restrict" in named and all(map(_NARROWING.fullmatch, self.options))

    @property
    def addresses(self) -> str | None:
        """The addresses from which it may be used, or None for any."""
        values = [each[6:-1] for each in self.options if each.lower().startswith('from="')]
        return values[0] if values else None

    @property
    def line(self) -> str:
        """The line of authorized_keys, without its line end."""
        return f"{','.join(self.options)} {self.key.kind} {self.key.blob} {self.name}"

    @classmethod
    def new(cls, name: str, key: PublicKey, addresses: str | None) -> Entry:
        """A restricted entry.  ``addresses``: IP addresses and networks, separated by commas."""
        check_name(name)
        options = ["restrict"]
        if addresses is not None:
            options.append(f'from="{_addresses(addresses)}"')
        return cls(name, key, tuple(options))

    @classmethod
    def parse(cls, line: str) -> Entry | None:
        """The entry in ``line``, or None if it is empty, a comment, or not a key."""
        text = line.strip()
        if not text or text.startswith("#"):
            return None
        options, rest = _options(text)
        words = rest.split(None, 2)
        if len(words) < 2:
            return None
        key = PublicKey(words[0], words[1])
        try:
            base64.b64decode(key.blob, validate=True)
        except (binascii.Error, ValueError):
            return None
        return cls(words[2] if len(words) > 2 else "", key, options)


def check_name(name: str) -> None:
    """Raise UsageError unless a key may be called ``name``."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"invalid key name {name[:80]!r}",
            hint=f"use 1 to {MAX_NAME_LENGTH} of A-Z, a-z, 0-9, `.`, `_`, `@` and `-`",
        )


def _options(text: str) -> tuple[tuple[str, ...], str]:
    """The options before the key, and the rest of the line."""
    if text.split(None, 1)[0] in _FIELDS:
        return (), text
    options = []
    position = 0
    while found := _OPTION.match(text, position):
        options.append(found.group())
        position = found.end()
        if text[position : position + 1] != ",":
            break
        position += 1
    return tuple(options), text[position:]


def _addresses(text: str) -> str:
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        try:
            ipaddress.ip_network(part)
        except ValueError as exc:
            raise UsageError(
                f"invalid address {part[:80]!r}: {exc}",
                hint="give addresses or networks, such as 192.0.2.7,198.51.100.0/24",
            ) from exc
    return ",".join(parts)


def _fields(blob: bytes) -> Iterator[bytes]:
    """The length-prefixed strings of a blob; ValueError if it is incomplete."""
    position = 0
    while position < len(blob):
        start = position + 4
        position = start + int.from_bytes(blob[position:start], "big")
        if start > len(blob) or position > len(blob):
            raise ValueError("its end is missing")
        yield blob[start:position]


def _bits(number: bytes) -> int:
    return int.from_bytes(number, "big").bit_length()
