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
from threading import Lock

import bcrypt

from dataserver.errors import ConfigError

log = logging.getLogger(__name__)

#: bcrypt, with a cost that ``htpasswd -C`` takes: one of 31 would take days.
_HASH = re.compile(rb"\$2[aby]\$(0[4-9]|1[0-7])\$[./A-Za-z0-9]{53}")
#: A salt and a hash that belong to nobody.
_NOBODY = b"O" * 53
#: Bytes of a users file, and of a password that bcrypt looks at.
_LARGEST, _LONGEST = 1 << 20, 72
#: Logins that are remembered, for how many seconds since they were used; a hash costs some 100 ms.
_REMEMBERED, _FOR = 1_000, 300.0
#: Seconds between two looks at whether the file has changed.
_LOOK = 1.0


class Users:
    """Those in the file ``path``; used by many threads.  ``monotonic`` gives seconds.

    Raises ConfigError where the file is no good.
    """

    def __init__(self, path: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._monotonic = monotonic
        self._lock = Lock()
        #: What was typed is not kept, and what is kept is worth nothing without this.
        self._key = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, float] = OrderedDict()
        self._looked = monotonic()
        self._identity: tuple[int, ...] | None = None
        self._trouble = ""
        self._hashes: dict[bytes, bytes] = {}
        self._nobody = b""
        self._read()

    def knows(self, name: bytes, password: bytes) -> bool:
        """Whether this very login was right a moment ago; quick."""
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
        """Whether this is one of them, with the right password; slow, whoever it is."""
        with self._lock:
            self._look()
            hashed, nobody = self._hashes.get(name), self._nobody
        is_right = _matches(password, hashed or nobody)
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
            # Nobody gets in by a broken file, and nobody loses the way in by it.
            if str(error) != self._trouble:
                log.error("the users are those of before: %s", error)
            self._trouble = str(error)

    def _read(self) -> None:
        try:
            # Opening a FIFO would wait for whoever writes into it.
            with open(
                os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb"
            ) as file:
                found = os.fstat(file.fileno())
                if not stat.S_ISREG(found.st_mode):
                    raise ConfigError(f"the users file {self._path} is no file")
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
        # As costly as the others, so that a name that nobody has takes as long.
        self._nobody = max(hashed[:7] for hashed in hashes.values()) + _NOBODY
        self._known.clear()


def _matches(password: bytes, hashed: bytes) -> bool:
    """Whether that is the password; longer ones bcrypt (and htpasswd's) looks at no further."""
    try:
        found = bcrypt.checkpw(password[:_LONGEST].replace(b"\0", b"\1"), hashed)
    except ValueError:
        return False  # a hash that nothing can have
    # htpasswd takes no such password: it ends there.
    return found and b"\0" not in password


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


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
