"""All errors that this project raises on purpose, in one hierarchy.

An error says in one line what was being done, to what, why it failed and what to do next.
Its class decides how the worker reacts: retry, split the batch, or reject the packet.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a file was rejected; the word in its reason file, in status and in metrics."""

    MALFORMED = "malformed"
    NO_AGENT = "no-agent"
    INCOMPLETE = "incomplete"
    TOO_LARGE = "too-large"
    NAME_TOO_LONG = "name-too-long"
    CLOCK = "clock"
    TOO_OLD = "too-old"
    REFUSED = "refused"
    CHECKSUM = "checksum"
    NO_GROUP = "no-group"
    TOO_MANY_AGENTS = "too-many-agents"


class DataserverError(Exception):
    """Base class of all errors.  ``hint`` is what to do next, or None.

    ``str()`` gives both in one line.
    """

    #: The command line's exit code (see docs/exit-codes.md).
    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class UsageError(DataserverError):
    """The request is invalid: a malformed name, or something that does not exist."""

    exit_code = 2


class ConfigError(DataserverError):
    """A setting is missing, unknown or invalid; the message names it and where it is set."""

    exit_code = 3


class LockedError(DataserverError):
    """Another process holds the lock of this instance or this drop directory."""

    exit_code = 4


class SpoolError(DataserverError):
    """The drop directory cannot be used (missing, no permission, disk failure)."""

    exit_code = 5


class SpoolReplaced(SpoolError):
    """The drop directory's path leads to another directory now: stop, and restart there."""


class StoreError(DataserverError):
    """Base class of all database errors."""

    exit_code = 6


class StoreUnavailable(StoreError):
    """The database cannot be reached or cannot store anything now: wait, then retry everything."""


class StoreReplaced(StoreError):
    """The database's file is no longer the one that was opened: stop, and restart with the new one.

    The last transactions may be in a file that no longer has a name.
    """


class StoreLacking(StoreError):
    """The database works, but a table, a column or a privilege that is needed is missing."""


class StoreConflict(StoreError):
    """Deadlock, lock timeout, certification failure, stale cache: retry the transaction at once."""


class StoreRefused(StoreError):
    """The database rejects these rows: split the batch to find the packet that fails.

    Also any error that does not clearly mean that the connection or the server is gone.
    """


class SchemaError(StoreError):
    """The database's schema is not one this server can use; the message names what is missing."""


class NotRunning(DataserverError):
    """An instance does not run, or did not do in time what was requested."""

    exit_code = 7


class PacketError(DataserverError):
    """A file that is not a packet and cannot become one; ``reason`` is why it is rejected."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class IncompletePacket(PacketError):
    """The beginning of a packet, whose end may still be uploaded.

    ``reason`` is why the file is rejected if nothing more is uploaded.
    """

    def __init__(
        self,
        message: str = "the closing tag of the root is missing",
        *,
        reason: Reason = Reason.INCOMPLETE,
    ) -> None:
        super().__init__(reason, message)
