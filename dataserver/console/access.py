"""Access control: allowed host names, and HTTP Basic authentication if there are users.

Host names are checked against DNS rebinding: a foreign web page whose name is made to point here
must not read a console without passwords.  Source: RFC 7617.
"""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from anyio import CapacityLimiter, to_thread
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from dataserver.console.replies import reply
from dataserver.console.users import Users

#: Characters of a path; Python does not parse numbers of thousands of digits.
_LONGEST = 1_000
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\[\]:@]*))(?::[0-9]*)?")
#: Needs no login: it only says whether the console works.
_OPEN = "/healthz"
#: Hashes computed at a time, in their own threads, and logins that may wait for that: guessing
#: must not use up the processors, or the threads that serve logged-in users.
_AT_ONCE, _WAITING = 2, 32
_CHALLENGE = {"www-authenticate": 'Basic realm="dataserver", charset="UTF-8"'}


class _Refusal(NamedTuple):
    status: int
    why: str
    headers: Mapping[str, str] = MappingProxyType({})

    def answer(self, path: str) -> Response:
        """The response: JSON for programs, else plain text."""
        if not path.startswith("/api/"):
            return PlainTextResponse(f"{self.why}\n", self.status, self.headers)
        answer = reply({"error": self.why}, self.status)
        answer.headers.update(self.headers)
        return answer


class Access:
    """Passes on allowed requests; with empty ``hosts`` any host name is allowed."""

    def __init__(self, app: ASGIApp, users: Users | None, hosts: frozenset[str]) -> None:
        self._app = app
        self._users = users
        self._hosts = hosts
        self._hashing = CapacityLimiter(_AT_ONCE)
        self._waiting = 0
        self._failures = Failures()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            refusal = await self._refusal(scope)
            if refusal is not None:
                await refusal.answer(scope["path"])(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _refusal(self, scope: Scope) -> _Refusal | None:
        if len(scope["path"]) > _LONGEST:
            return _Refusal(414, "the address is too long")
        headers = Headers(scope=scope)
        if self._hosts and host_name(headers.get("host", "")) not in self._hosts:
            return _Refusal(
                421, "the console does not answer under this name; start it with --host NAME"
            )
        if self._users is None or scope["path"] == _OPEN:
            return None
        login = _login(headers.get("authorization", ""))
        if login is None:
            return _Refusal(401, "log in", _CHALLENGE)
        address = scope["client"][0] if scope.get("client") else ""
        return await self._check_login(self._users, address, *login)

    async def _check_login(
        self, users: Users, address: str, name: bytes, password: bytes
    ) -> _Refusal | None:
        if users.knows(name, password):
            return None
        pause = self._failures.pause(address, name)
        if pause:
            return _Refusal(429, "too many wrong logins", {"retry-after": str(pause)})
        if self._waiting >= _WAITING:
            return _Refusal(503, "too many logins at a time", {"retry-after": "2"})
        self._waiting += 1
        try:
            if await to_thread.run_sync(users.may, name, password, limiter=self._hashing):
                return None
        finally:
            self._waiting -= 1
        self._failures.add(address, name)
        return _Refusal(401, "log in", _CHALLENGE)


def host_name(host: str) -> str:
    """The name or address of a Host header, without its port; "" if it is malformed."""
    found = _HOST.fullmatch(host.lower())
    return (found[1] or found[2]) if found else ""


def _login(header: str) -> tuple[bytes, bytes] | None:
    scheme, _, coded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        plain = base64.b64decode(coded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    name, colon, password = plain.partition(b":")
    return (name, password) if colon else None


# -- wrong logins --

#: Wrong logins for one user from one address that are allowed in a period (seconds).
_ALLOWED, _PERIOD = 10, 60.0
#: Pairs of user and address that are counted; beyond that the oldest are forgotten.
_COUNTED = 10_000
#: Bytes of a name that are kept.
_NAME = 256


class _Count(NamedTuple):
    wrong: int
    since: float


class Failures:
    """Counts wrong logins by address and user; for one thread.  ``monotonic`` gives seconds.

    By user too: behind a proxy all have one address, and guessing one user's password must not
    lock out the others.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._counts: OrderedDict[tuple[str, bytes], _Count] = OrderedDict()

    def pause(self, address: str, name: bytes) -> int:
        """Seconds until the next attempt is accepted, or 0."""
        count = self._counts.get((address, name[:_NAME]))
        if count is None or count.wrong < _ALLOWED:
            return 0
        left = count.since + _PERIOD - self._monotonic()
        return max(0, -int(-left // 1))

    def add(self, address: str, name: bytes) -> None:
        """Count a wrong login."""
        key = (address, name[:_NAME])
        now = self._monotonic()
        count = self._counts.pop(key, _Count(0, now))
        if now - count.since >= _PERIOD:
            count = _Count(0, now)
        self._counts[key] = _Count(count.wrong + 1, count.since)
        if len(self._counts) > _COUNTED:
            self._counts.popitem(last=False)
