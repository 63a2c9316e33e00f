"""The users file: who may look, in htpasswd's format with bcrypt.

``htpasswd -B -c FILE NAME`` makes one.  It is read again when it has changed.
Source: https://httpd.apache.org/docs/2.4/misc/password_encryptions.html
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from threading import BoundedSemaphore, Lock

import bcrypt

from dataserver.errors import ConfigError

log = logging.getLogger(__name__)

_HASH = re.compile(rb"\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}")
#: Bytes of a users file, and of a password that bcrypt looks at.
_LARGEST, _LONGEST = 1 << 20, 72
#: Logins that are remembered, for how many seconds; a hash costs some 100 ms.
_REMEMBERED, _FOR = 1_000, 300.0
#: Hashes computed at the same time: guessing must not take all of the machine.
_AT_ONCE = 2
#: Seconds between two looks at whether the file has changed.
_LOOK = 1.0


class Users:
    """Those in the file ``path``; used by many threads.  ``monotonic`` gives seconds."""

    def __init__(self, path: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._monotonic = monotonic
        self._lock = Lock()
        self._hashing = BoundedSemaphore(_AT_ONCE)
        #: What was typed is not kept, and what is kept is worth nothing without this.
        self._key = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, float] = OrderedDict()
        #: As costly as the others, so that a name that nobody has takes as long.
        self._nobody = bcrypt.hashpw(secrets.token_bytes(16), bcrypt.gensalt(10))
        self._looked = monotonic()
        self._identity: tuple[int, int, int] | None = None
        self._hashes: dict[bytes, bytes] = {}
        self._read()

    def may(self, name: bytes, password: bytes) -> bool:
        """Whether this is one of them, with the right password; slow the first time."""
        self._look()
        mark = hmac.digest(self._key, name + b"\0" + password, hashlib.sha256)
        now = self._monotonic()
        with self._lock:
            hashed = self._hashes.get(name)
            if self._known.get(mark, float("-inf")) > now - _FOR:
                return True
        with self._hashing:
            # Longer ones bcrypt refuses, or (htpasswd's) looks at no further.
            is_right = bcrypt.checkpw(
                password[:_LONGEST].replace(b"\0", b"\1"), hashed or self._nobody
            )
        if hashed is None or not is_right:
            return False
        with self._lock:
            # The file may have changed meanwhile.
            if self._hashes.get(name) == hashed:
                self._known[mark] = now
                while len(self._known) > _REMEMBERED:
                    self._known.popitem(last=False)
        return True

    def _look(self) -> None:
        """Read the file again if it has changed."""
        with self._lock:
            now = self._monotonic()
            if now - self._looked < _LOOK:
                return
            self._looked = now
            try:
                if _identity(os.stat(self._path)) != self._identity:
                    self._read()
            except (ConfigError, OSError) as error:
                # Nobody gets in by a broken file, and nobody loses the way in by it.
                log.error("the users are those of before: %s", error)

    def _read(self) -> None:
        try:
            with self._path.open("rb") as file:
                found = os.fstat(file.fileno())
                if not stat.S_ISREG(found.st_mode):
                    raise ConfigError(f"{self._path} is no file")
                content = file.read(_LARGEST + 1)
        except OSError as exc:
            raise ConfigError(
                f"cannot read the users file {self._path}: {exc.strerror}",
                hint="make one with `htpasswd -B -c FILE NAME`",
            ) from exc
        hashes = _parsed(self._path, content)
        if found.st_mode & 0o007:
            log.warning("%s can be read by everybody: chmod 0640", self._path)
        self._identity, self._hashes = _identity(found), hashes
        self._known.clear()


def _parsed(path: Path, content: bytes) -> dict[bytes, bytes]:
    """Each user's hash; ConfigError naming the first line that is no good, without what it says."""
    if len(content) > _LARGEST:
        raise ConfigError(f"{path} is longer than {_LARGEST} bytes")
    hashes: dict[bytes, bytes] = {}
    for number, raw in enumerate(content.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith(b"#"):
            continue
        name, colon, hashed = line.partition(b":")
        if not colon or not name or name in hashes:
            why = "is there twice" if name in hashes else "is not NAME:HASH"
            raise ConfigError(f"{path}, line {number}: {why}")
        if not _HASH.fullmatch(hashed):
            raise ConfigError(
                f"{path}, line {number}: the password is not hashed with bcrypt",
                hint="set it with `htpasswd -B FILE NAME`",
            )
        hashes[name] = hashed
    if not hashes:
        raise ConfigError(f"{path} names no user", hint="add one: `htpasswd -B FILE NAME`")
    return hashes


def _identity(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_ino, found.st_size, found.st_mtime_ns
