"""The record of one rejected packet: why it was set aside, and how that is written down.

The reason file is JSON for people and programs: times in ISO 8601, UTC; bytes of the name
that are not UTF-8 as escaped surrogates.
"""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from dataserver.errors import Reason

#: Milliseconds since the epoch, six random digits, the reason.
_ID = re.compile(r"([0-9]{13})-[0-9a-f]{6}-([a-z-]+)")
_WORDS = frozenset(reason.value for reason in Reason)


@dataclass(frozen=True, slots=True)
class RejectedPacket:
    """Why a packet was set aside.

    ``name`` is the one it had in the drop directory, ``size`` in bytes, ``mtime`` (its
    modification time) and ``when`` (it was set aside) in epoch seconds, ``agent`` None where
    the packet could not be read that far, ``server`` the configured name.
    """

    id: str
    reason: Reason
    detail: str
    name: str
    size: int
    mtime: float
    when: float
    agent: str | None
    server: str

    def to_json(self) -> bytes:
        """The reason file."""
        fields = {
            "id": self.id,
            "reason": self.reason.value,
            "detail": self.detail,
            "name": self.name,
            "size": self.size,
            "mtime": _to_iso(self.mtime),
            "when": _to_iso(self.when),
            "agent": self.agent,
            "server": self.server,
        }
        return json.dumps(fields, indent=2).encode("ascii") + b"\n"

    @classmethod
    def from_json(cls, rid: str, text: bytes) -> RejectedPacket:
        """Read a reason file; ValueError, KeyError or TypeError where it is damaged."""
        fields = json.loads(text)
        return cls(
            id=rid,
            reason=Reason(fields["reason"]),
            detail=str(fields["detail"]),
            name=str(fields["name"]),
            size=int(fields["size"]),
            mtime=_from_iso(fields["mtime"]),
            when=_from_iso(fields["when"]),
            agent=None if fields["agent"] is None else str(fields["agent"]),
            server=str(fields["server"]),
        )

    @classmethod
    def from_id(cls, rid: str, size: int) -> RejectedPacket:
        """What the id alone says, where the reason file is damaged."""
        when = time_of(rid)
        detail = "the reason file is missing or damaged"
        return cls(rid, reason_of(rid), detail, "", size, when, when, None, "")


def new_id(when: float, reason: Reason) -> str:
    """An id that sorts by time and is taken by nobody; ``when`` in epoch seconds."""
    return f"{int(when * 1000):013d}-{secrets.token_hex(3)}-{reason.value}"


def is_id(text: str) -> bool:
    """Whether this can be an id: nothing else ever becomes part of a path."""
    match = _ID.fullmatch(text)
    return match is not None and match[2] in _WORDS


def reason_of(rid: str) -> Reason:
    """The reason that an id carries."""
    return Reason(rid.split("-", 2)[2])


def time_of(rid: str) -> float:
    """When the packet of an id was set aside, in epoch seconds."""
    return int(rid.partition("-")[0]) / 1000


#: The last second that a date can be made of; a file's time may be any.
_LATEST = 253_402_300_799.0


def _to_iso(seconds: float) -> str:
    seconds = min(max(seconds, 0.0), _LATEST)
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _from_iso(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
