"""The users file: names and bcrypt hashes in htpasswd's format.

``htpasswd -B -c FILE NAME`` creates one.  It is read again when it has changed.
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
from threading import Lock

import bcrypt

from dataserver.errors import ConfigError

log = logging.getLogger(__name__)

#: bcrypt, with a cost that ``htpasswd -C`` accepts: a cost of 31 would take days.
_HASH = re.compile(rb"\$2[aby]\$(0[4-9]|1[0-7])\$[./A-Za-z0-9]{53}")
#: A salt and a hash for unknown users.
_UNKNOWN = b"O" * 53
#: Bytes of a users file, and of a password that bcrypt uses.
_LARGEST, _LONGEST = 1 << 20, 72
#: How many logins are remembered, and for how many seconds after their last use; a hash costs some
#: 100 ms.
_REMEMBERED, _FOR = 1_000, 300.0
#: Seconds between two checks whether the file has changed.
_LOOK = 1.0


class Users:
    """The users in the file ``path``; used by many threads.  ``monotonic`` gives seconds.

    Raises ConfigError for an invalid file.
    """

    def __init__(self, path: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._monotonic = monotonic
        self._lock = Lock()
        #: Passwords are not kept; the digests that are kept are useless without this key.
        self._key = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, float] = OrderedDict()
        self._looked = monotonic()
        self._identity: tuple[int, ...] | None = None
        self._trouble = ""
        self._hashes: dict[bytes, bytes] = {}
        self._unknown_hash = b""
        self._read()

    def knows(self, name: bytes, password: bytes) -> bool:
        """Whether the same login was correct recently; fast."""
        mark = self._mark(name, password)
        with self._lock:
            self._look()
            now = self._monotonic()
            if self._known.get(mark, float("-inf")) <= now - _FOR:
                return False
            self._known[mark] = now
            self._known.move_to_end(mark)
            return True

    def may(self, name: bytes, password: bytes) -> bool:
        """Whether the user exists and the password is correct; slow in any case."""
        with self._lock:
            self._look()
            hashed, unknown_hash = self._hashes.get(name), self._unknown_hash
        is_right = _matches(password, hashed or unknown_hash)
        if hashed is None or not is_right:
            return False
        with self._lock:
            # The file may have changed meanwhile.
            if self._hashes.get(name) == hashed:
                self._known[self._mark(name, password)] = self._monotonic()
                while len(self._known) > _REMEMBERED:
                    self._known.popitem(last=False)
        return True

    def _mark(self, name: bytes, password: bytes) -> bytes:
        # A name has no colon.
        return hmac.digest(self._key, name + b":" + password, hashlib.sha256)

    def _look(self) -> None:
        """Read the file again if it has changed."""
        now = self._monotonic()
        if now - self._looked < _LOOK:
            return
        self._looked = now
        try:
            if _identity(os.stat(self._path)) != self._identity:
                self._read()
            self._trouble = ""
        except (ConfigError, OSError) as error:
            # A broken file neither admits anyone nor locks anyone out.
            if str(error) != self._trouble:
                log.error("the users file is not reloaded: %s", error)
            self._trouble = str(error)

    def _read(self) -> None:
        try:
            # Opening a FIFO must not wait for a writer.
            with open(
                os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb"
            ) as file:
                found = os.fstat(file.fileno())
                if not stat.S_ISREG(found.st_mode):
                    raise ConfigError(f"the users file {self._path} is not a regular file")
                content = file.read(_LARGEST + 1)
        except OSError as exc:
            raise ConfigError(
                f"cannot read the users file {self._path}: {exc.strerror}",
                hint="create one with `htpasswd -B -c FILE NAME`",
            ) from exc
        hashes = _parsed(self._path, content)
        if found.st_mode & 0o007:
            log.warning("%s can be read by all users: chmod 0640", self._path)
        self._identity, self._hashes = _identity(found), hashes
        # With the highest cost, so that an unknown name takes as long as a known one.
        self._unknown_hash = max(hashed[:7] for hashed in hashes.values()) + _UNKNOWN
        self._known.clear()


def _matches(password: bytes, hashed: bytes) -> bool:
    """Whether the password is correct; bcrypt, as in htpasswd, uses only its first bytes."""
    try:
        found = bcrypt.checkpw(password[:_LONGEST].replace(b"\0", b"\1"), hashed)
    except ValueError:
        return False  # not a possible hash
    # htpasswd does not accept such a password: it ends at the null byte.
    return found and b"\0" not in password


def _parsed(path: Path, content: bytes) -> dict[bytes, bytes]:
    """Each user's hash; ConfigError names the first invalid line, without its content."""
    if len(content) > _LARGEST:
        raise ConfigError(f"{path} is longer than {_LARGEST} bytes")
    hashes: dict[bytes, bytes] = {}
    for number, raw in enumerate(content.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith(b"#"):
            continue
        name, colon, hashed = line.partition(b":")
        if not colon or not name or name in hashes:
            why = "the user is listed twice" if name in hashes else "is not NAME:HASH"
            raise ConfigError(f"{path}, line {number}: {why}")
        if not _HASH.fullmatch(hashed):
            raise ConfigError(
                f"{path}, line {number}: the password is not hashed with bcrypt",
                hint="set it with `htpasswd -B FILE NAME`",
            )
        hashes[name] = hashed
    if not hashes:
        raise ConfigError(f"{path} contains no user", hint="add one: `htpasswd -B FILE NAME`")
    return hashes


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
