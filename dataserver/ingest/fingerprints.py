"""Fingerprints of the files that both hosts of a pair must have in common.

They are stored in the process's row in the shared database, so that `dataserver keepalived verify`
can compare the hosts, which have no other channel between them.  They are digests of public data:
SSH host keys, the keys of uploaders, ``pair.toml``.
Source of the formats: sshd(8), "AUTHORIZED_KEYS FILE FORMAT".
"""

from __future__ import annotations

import hashlib
import json
import re
import stat
import tomllib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from dataserver.store.processes import ProcessFingerprints

#: Where an SSH server keeps its host keys.
SSH = Path("/etc/ssh")
#: Seconds between two looks at the files.
EVERY = 60.0

#: The beginning of a line up to a space that is not within quotes.
_WORD = re.compile(rb'(?:[^\s"]|"(?:\\.|[^"\\])*")+')
_KEY_TYPE = re.compile(rb"(?:sk-)?(?:ssh|ecdsa)-[a-z0-9@.-]+")

_FileStates = tuple[tuple[str, int, int, int, int], ...]


class Fingerprints:
    """The fingerprints of one machine and home, checked once a minute for changed files."""

    def __init__(
        self, home: Path, monotonic: Callable[[], float], *, ssh: Path = SSH, every: float = EVERY
    ) -> None:
        self._authorized = home / "uploads" / "authorized_keys"
        self._pair = home / "keepalived" / "pair.toml"
        self._ssh = ssh
        self._monotonic = monotonic
        self._every = every
        self._next = monotonic()
        self._file_states: _FileStates | None = None
        self._fingerprints = ProcessFingerprints()

    def current(self) -> ProcessFingerprints:
        """The fingerprints; a file that cannot be read has none (None)."""
        now = self._monotonic()
        if now >= self._next:
            self._next = now + self._every
            host_keys = _host_keys(self._ssh)
            states = _file_states([*host_keys, self._authorized, self._pair])
            if states != self._file_states:
                self._file_states = states
                self._fingerprints = ProcessFingerprints(
                    host_keys=_host_keys_fingerprint(host_keys),
                    authorized_keys=_fingerprint(self._authorized, authorized_keys_digest),
                    pair=_fingerprint(self._pair, pair_digest),
                )
        return self._fingerprints


def host_keys_digest(contents: Iterable[bytes]) -> str:
    """The digest of public host keys, one or more a file, whatever their order and comments."""
    lines = (line for content in contents for line in content.splitlines())
    return _digest({b" ".join(line.split()[:2]) for line in lines if line.strip()})


def authorized_keys_digest(content: bytes) -> str:
    """The digest of the keys and their options, whatever their order and comments."""
    lines = (line.strip() for line in content.split(b"\n"))
    return _digest({_entry(line) for line in lines if line and not line.startswith(b"#")})


def pair_digest(content: bytes) -> str:
    """The digest of the data of ``pair.toml``, whatever its layout and comments.

    If the file is not valid TOML, the digest of its bytes.
    """
    try:
        data = json.dumps(tomllib.loads(content.decode("utf-8")), sort_keys=True, default=str)
    except (ValueError, RecursionError):
        # Also a number of thousands of digits, or thousands of nested brackets.
        return _digest({content})
    return _digest({data.encode("utf-8", "surrogatepass")})


def _entry(line: bytes) -> bytes:
    """A line of authorized_keys without its comment; an invalid line unchanged."""
    first = _WORD.match(line)
    if first is None:
        return line
    options = b"" if _KEY_TYPE.fullmatch(first[0]) else first[0]
    words = line[len(options) :].split()
    if len(words) < 2 or not _KEY_TYPE.fullmatch(words[0]):
        return line
    return b" ".join([options, *words[:2]])


def _digest(parts: set[bytes]) -> str:
    return hashlib.sha256(b"\n".join(sorted(parts))).hexdigest()


def _host_keys(folder: Path) -> list[Path]:
    try:
        return sorted(folder.glob("ssh_host_*_key.pub"))
    except OSError:
        return []


def _host_keys_fingerprint(paths: Sequence[Path]) -> str | None:
    contents = [_read(path) for path in paths]
    known = [content for content in contents if content is not None]
    # The digest of only some of them would be misleading.
    return host_keys_digest(known) if known and len(known) == len(contents) else None


def _fingerprint(path: Path, digest: Callable[[bytes], str]) -> str | None:
    content = _read(path)
    return None if content is None else digest(content)


def _read(path: Path) -> bytes | None:
    try:
        # Reading a pipe might never end.
        return path.read_bytes() if stat.S_ISREG(path.stat().st_mode) else None
    except OSError:
        return None


def _file_states(paths: Sequence[Path]) -> _FileStates:
    """The identity and state of each file, which differ once a file has changed."""
    found = []
    for path in paths:
        try:
            info = path.stat()
        except OSError:
            continue
        found.append((str(path), info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino))
    return tuple(found)
