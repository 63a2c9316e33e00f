"""Every error this project raises on purpose, in one tree.

An error says what was being done, on what, why it failed and what to do next, in
one line.  What the worker does with it ("retry or reject?") is a property of its
class, decided here once.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a file was set aside; the word in its reason file, in status and in metrics."""

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
    """Base of all.  ``hint`` is what to do next, None where there is nothing to say."""

    #: What the command line exits with (see docs/exit-codes.md).
    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message


class UsageError(DataserverError):
    """What was asked for cannot be: a name that is no good, a thing that is not there."""

    exit_code = 2


class ConfigError(DataserverError):
    """A setting is missing, unknown or wrong; the message names it and where it stands."""

    exit_code = 3


class LockedError(DataserverError):
    """Another process owns this instance or this drop directory."""

    exit_code = 4


class SpoolError(DataserverError):
    """The drop directory cannot be used at all (missing, no rights, disk gone)."""

    exit_code = 5


class SpoolReplaced(SpoolError):
    """The drop directory's path leads to another directory now: stop, and begin anew there."""


class StoreError(DataserverError):
    """Base of what the database says no with."""

    exit_code = 6


class StoreUnavailable(StoreError):
    """The database cannot be reached or cannot take anything now: wait, then do all again."""


class StoreReplaced(StoreError):
    """The database's file is not the one that was opened: stop, and begin anew with what is there.

    What was written last may be in a file that nobody finds again.
    """


class StoreLacking(StoreError):
    """The database answers, but a table, a column or a right that this takes is missing."""


class StoreConflict(StoreError):
    """Deadlock, lock timeout, certification failure, stale cache: do the transaction again now."""


class StoreRefused(StoreError):
    """The database does not accept these rows: split the batch to find the packet that fails.

    Also any error that is not known to mean that the connection or the server is gone.
    """


class SchemaError(StoreError):
    """The database is not one that this server can write to; the message names what is missing."""


class NotRunning(DataserverError):
    """An instance does not run, or does not do in time what it was asked for."""

    exit_code = 7


class PacketError(DataserverError):
    """A file that is not, and cannot become, a packet; ``reason`` is why it is set aside."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class IncompletePacket(PacketError):
    """The beginning of a packet whose end is not there yet: it may still be coming.

    ``reason`` is why the file is set aside if nothing more comes.
    """

    def __init__(
        self,
        message: str = "the closing tag of the root is missing",
        *,
        reason: Reason = Reason.INCOMPLETE,
    ) -> None:
        super().__init__(reason, message)
