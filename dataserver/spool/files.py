"""Which files are packets, and what is known about one: the spool's records and errors.

A packet is a regular file named ``STEM.NUMBER.data`` or ``STEM_NUMBER.data``; beside it may
lie ``STEM.NUMBER.checksum``.  A name that starts with a dot is somebody's temporary name
(rsync, FTP servers with hidden stores) and never a packet.
"""

from __future__ import annotations

import re
from operator import itemgetter
from typing import NamedTuple

from dataserver.errors import DataserverError

#: ``fullmatch`` gives the stem and the number.
PACKET_NAME = re.compile(r"(?!\.)(.*)[._]([0-9]+)\.data", re.DOTALL)
CHECKSUM_NAME = re.compile(r"(?!\.).*[._][0-9]+\.checksum", re.DOTALL)


class SpoolFile(NamedTuple):
    """One packet file and its identity: that of the scan, or the one under which it was read.

    ``name`` is the name in the directory (bytes that are not UTF-8 as surrogate escapes),
    ``stem`` what stands before the number, ``size`` in bytes, ``mtime_ns`` in nanoseconds
    since the epoch.  ``mark`` is a hash of the content, None while it was not read.
    ``fresh``: it was read so soon after it was written that an equal modification time
    proves nothing (the kernel's file clock ticks in steps of up to 10 ms).
    """

    name: str
    stem: str
    number: int
    size: int
    mtime_ns: int
    inode: int
    mark: int | None = None
    fresh: bool = False


#: Oldest first: modification time, then number, then name.
oldest_first = itemgetter(
    SpoolFile._fields.index("mtime_ns"),
    SpoolFile._fields.index("number"),
    SpoolFile._fields.index("name"),
)


class Reading(NamedTuple):
    """What :meth:`Spool.read` found.

    ``file`` carries the identity as read: hand this one to ``done``, ``reject`` and
    ``Waiting``.  ``content`` is None where the file changed while it was being read:
    somebody is writing it, it is to be looked at again with the next scan.
    """

    file: SpoolFile
    content: bytes | None


class Vanished(DataserverError):
    """A listed file is not there any more, or is no regular file now: forget it."""


class Unreadable(DataserverError):
    """A file cannot be read now (rights, I/O): it stays, and is tried again with every scan.

    ``first`` is True when this file could be read, or was not there, at the scan before:
    the one time to warn about it.
    """

    def __init__(self, message: str, *, first: bool, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.first = first


def is_packet_name(name: str) -> bool:
    """Whether a directory entry of this name is a packet, if it is a regular file."""
    # Most names in a directory full of foreign ones are told apart by their end alone.
    return name.endswith(".data") and PACKET_NAME.fullmatch(name) is not None


def checksum_name(packet_name: str) -> str:
    """The name of the checksum file that may lie beside a packet."""
    return packet_name.removesuffix(".data") + ".checksum"
