"""The rejected packets: kept whole, each with its reason, bounded by age and bytes.

A packet is two or three files named after an id that this module makes: ``ID.json`` (the reason,
and the original name), ``ID.data`` (the content), ``ID.checksum`` (its checksum file).  A name
that an uploader chose appears only inside the JSON.  The id contains time and reason, so
that order, age and counts follow from the names in the folder alone.

A file gets here in four steps, so that a crash at any point loses nothing:

1. the content is made durable; on another file system or mount it is first copied to ``ID.part``;
2. the reason ``ID.json``, and ``ID.checksum`` if there is one, are made durable;
3. the file itself, or its copy, is renamed to ``ID.data``;
4. if it was copied, the original is removed from the drop directory.

A crash before step 3 leaves the file in the drop directory, and a JSON without data, which
:meth:`Rejected.recover` removes.  A crash between 3 and 4 leaves the packet in both places; it
is rejected once more.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from dataserver.errors import Reason, UsageError
from dataserver.failpoints import reach
from dataserver.packet.parse import ends_complete
from dataserver.spool.files import (
    PACKET_NAME,
    checksum_name,
    copy_durably,
    make_directory,
    move_new,
    open_directory,
    put_back,
    read_checksum,
    rename_new,
    same_mount,
    sync_file,
    unlink_if_there,
    write_durably,
)
from dataserver.spool.remove import same_stat

#: Milliseconds since the epoch, six random digits, the reason.
_ID = re.compile(r"([0-9]{13})-[0-9a-f]{6}-([a-z-]+)")
_REASONS = frozenset(reason.value for reason in Reason)
#: All files of a packet.  They are removed in this order, the JSON last, so that a crash meanwhile
#: leaves what :meth:`Rejected.recover` removes.
_SUFFIXES = (".data", ".checksum", ".part", ".json.part", ".checksum.part", ".json")
_DAY = 86_400.0
#: Bytes that :meth:`Rejected.pieces` reads at a time.
_PIECE = 1 << 20
#: Incomplete packets that are checked for having been completed: the newest of one day.
_MAY_GROW = 1_000
#: Larger ones are not read for that, in bytes.
_LARGEST = 64 << 20
#: The last second that a datetime can represent; a file's time may be later.
_LATEST = 253_402_300_799.0


# -- the record of one rejected packet --


@dataclass(frozen=True, slots=True)
class RejectedPacket:
    """A rejected packet: why it was rejected, and what it was.

    ``name`` is its name in the drop directory, ``size`` in bytes, ``mtime`` (its modification
    time) and ``when`` (the time of the rejection) in epoch seconds, ``agent`` the agent's name,
    or None if the packet could not be read that far, ``server`` the configured server name.
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
        """The content of the reason file.

        JSON for people and programs: times in ISO 8601, UTC; bytes of the name that are not UTF-8
        as escaped surrogates.
        """
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
        """Read a reason file; raises ValueError, KeyError or TypeError if it is damaged."""
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
        """The record as far as the id has it, for a missing or damaged reason file."""
        when = time_of(rid)
        detail = "the reason file is missing or damaged"
        return cls(rid, reason_of(rid), detail, "", size, when, when, None, "")


def new_id(when: float, reason: Reason) -> str:
    """A new, unique id that sorts by time; ``when`` in epoch seconds."""
    return f"{int(when * 1000):013d}-{secrets.token_hex(3)}-{reason.value}"


def is_id(text: str) -> bool:
    """Whether ``text`` has the form of an id: nothing else ever becomes part of a path."""
    match = _ID.fullmatch(text)
    return match is not None and match[2] in _REASONS


def reason_of(rid: str) -> Reason:
    """The reason that an id contains."""
    return Reason(rid.split("-", 2)[2])


def time_of(rid: str) -> float:
    """When the packet of an id was rejected, in epoch seconds."""
    return int(rid.partition("-")[0]) / 1000


def _to_iso(seconds: float) -> str:
    seconds = min(max(seconds, 0.0), _LATEST)
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _from_iso(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


# -- the folder of rejected packets --


class Rejected:
    """The folder ``path``, created when first needed; ``server`` is the name put into reason files.

    ``clock`` gives epoch seconds.  Several processes may use the folder at once (the worker
    and a command line); only the one that holds the instance's lock calls ``recover``.
    """

    def __init__(
        self, path: Path, *, server: str = "", clock: Callable[[], float] = time.time
    ) -> None:
        self.path = path
        self._server = server
        self._clock = clock
        self._fd: int | None = None

    def new_record(
        self, name: str, found: os.stat_result, reason: Reason, detail: str, agent: str | None
    ) -> RejectedPacket:
        """A record with a new id for a file that is to be rejected now."""
        when = self._clock()
        return RejectedPacket(
            id=new_id(when, reason),
            reason=reason,
            detail=detail,
            name=name,
            size=found.st_size,
            mtime=found.st_mtime,
            when=when,
            agent=agent,
            server=self._server,
        )

    def add(
        self,
        packet: RejectedPacket,
        expected: os.stat_result,
        *,
        dir_fd: int,
        remove: Callable[[], bool],
    ) -> bool:
        """Move the file ``packet.name`` of the directory ``dir_fd`` into this folder, durably.

        ``expected`` is the file's stat when it was judged.  ``remove`` removes the original if the
        file had to be copied.  Returns False if the file was replaced meanwhile: the new one is
        left alone, and nothing is kept.  Raises OSError; then nothing is kept either, and the file
        stays where it is.
        """
        folder = self._descriptor()
        can_rename = same_mount(folder, dir_fd)
        rid = packet.id
        try:
            if not _prepare(packet, expected, copy=not can_rename, dir_fd=dir_fd, folder=folder):
                _erase(rid, folder)
                return False
            reach("inside-reject")
            if can_rename:
                return _rename(packet, expected, dir_fd=dir_fd, folder=folder)
            os.rename(f"{rid}.part", f"{rid}.data", src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:
            # Unless the content has arrived already: it may be the only one.
            if f"{rid}.data" not in os.listdir(folder):
                _erase(rid, folder)
            raise
        os.fsync(folder)
        if remove():
            unlink_if_there(checksum_name(packet.name), dir_fd=dir_fd)
        return True

    def ids(self, reason: Reason | None = None) -> Iterator[str]:
        """The ids of the packets, unordered; only those of ``reason`` if given.  Opens no file."""
        return (rid for rid in self._sizes() if reason in (None, reason_of(rid)))

    def list(self) -> tuple[RejectedPacket, ...]:
        """All packets, oldest first."""
        return tuple(self._load(rid) for rid in sorted(self._sizes()))

    def show(self, rid: str) -> RejectedPacket:
        """The packet of an id; raises UsageError if there is none."""
        self._data(rid)
        return self._load(rid)

    def content(self, rid: str, most: int = -1) -> bytes:
        """The packet's bytes as uploaded, at most ``most``; raises UsageError if there is none."""
        with self._data(rid).open("rb") as file:
            return file.read(most)

    def pieces(self, rid: str) -> Iterator[bytes]:
        """The packet's bytes in pieces, since it may be of any size; raises UsageError."""
        with self._data(rid).open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece

    def counts(self, since: float = 0.0) -> dict[Reason, int]:
        """The number of packets by reason, of those rejected at ``since`` (epoch s) or later."""
        return dict(Counter(reason_of(rid) for rid in self._sizes() if time_of(rid) >= since))

    def usage(self) -> tuple[int, int]:
        """The number of packets, and their size on the disk in bytes."""
        sizes = self._sizes()
        return len(sizes), sum(sizes.values())

    def retry(self, rid: str, into: Path) -> str:
        """Move a packet back to ``into`` under its own name, in one step; returns the name.

        Raises UsageError if ``into`` has a file of that name, or if the name in the reason file
        is not one that a packet may have.
        """
        name = self.show(rid).name
        if "/" in name or PACKET_NAME.fullmatch(name) is None:
            raise UsageError(
                f"rejected packet {rid} has no usable file name",
                hint=f"copy {rid}.data yourself, under a name like agent.1.data",
            )
        target = open_directory(into)
        try:
            if name in os.listdir(target):
                # Before the checksum is moved: it must not end up beside another packet.
                raise FileExistsError(name)
            self._return(f"{rid}.checksum", checksum_name(name), target)
            self._return(f"{rid}.data", name, target)
            os.fsync(target)
        except FileExistsError as error:
            raise UsageError(
                f"cannot retry {rid}: data_in has a file {name!a} already",
                hint="try again when that one is processed",
            ) from error
        finally:
            os.close(target)
        _erase(rid, self._descriptor())
        return name

    def return_completed(self, into: Path) -> tuple[str, ...]:
        """Move packets back to ``into`` that were completed after their rejection; their names.

        An upload that stalls for longer than ``incomplete_after`` and then continues writes into
        the file that was renamed into this folder, and its program reports success.  If the file
        had to be copied, the rest of the upload is lost.
        """
        since = self._clock() - _DAY
        ids = sorted(rid for rid in self.ids(Reason.INCOMPLETE) if time_of(rid) >= since)
        returned = []
        for rid in islice(reversed(ids), _MAY_GROW):
            # Skips one that was dropped meanwhile, or whose name a newer upload has.
            with suppress(FileNotFoundError, UsageError):
                if self._was_completed(rid):
                    returned.append(self.retry(rid, into))
        return tuple(returned)

    def _was_completed(self, rid: str) -> bool:
        size = self._data(rid).stat().st_size
        # A file that has not grown would only be rejected again.
        if not self._load(rid).size < size <= _LARGEST:
            return False
        return ends_complete(self.content(rid))

    def drop(self, rid: str) -> None:
        """Delete a packet; raises UsageError if there is none of that id."""
        self._data(rid)
        _erase(rid, self._descriptor())

    def prune(self, max_age_days: float, max_bytes: int) -> int:
        """Delete the oldest packets until both limits hold; returns the number deleted."""
        sizes = self._sizes()
        oldest_kept = self._clock() - max_age_days * _DAY
        total = sum(sizes.values())
        removed = 0
        # First any that is too large by itself: otherwise all older ones would go with it.
        for rid in [rid for rid, size in sizes.items() if size > max_bytes]:
            _erase(rid, self._descriptor())
            total -= sizes.pop(rid)
            removed += 1
        for rid in sorted(sizes):
            if total <= max_bytes and time_of(rid) >= oldest_kept:
                break
            _erase(rid, self._descriptor())
            total -= sizes[rid]
            removed += 1
        return removed

    def recover(self) -> int:
        """Remove what a crash left of unfinished rejections; their packets are still in data_in."""
        unfinished = {rid for rid, _, _ in self._entries()} - self._sizes().keys()
        for rid in unfinished:
            _erase(rid, self._descriptor())
        return len(unfinished)

    def close(self) -> None:
        """Release the descriptor; the next use opens it again."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _descriptor(self) -> int:
        if self._fd is None:
            self._fd = make_directory(self.path)
        return self._fd

    def _return(self, name: str, to: str, target: int) -> None:
        """Move one file of this folder into the drop directory, if it exists."""
        with suppress(FileNotFoundError):
            move_new(name, to, src_fd=self._descriptor(), dst_fd=target)

    def _entries(self) -> Iterator[tuple[str, str, int]]:
        """Id, suffix and size on the disk (bytes) of each file of a packet in this folder."""
        if not self.path.is_dir():
            return
        with os.scandir(self.path) as entries:
            for entry in entries:
                rid, dot, rest = entry.name.partition(".")
                if not is_id(rid):
                    continue
                try:
                    yield rid, dot + rest, _disk_size(entry.stat(follow_symlinks=False))
                except FileNotFoundError:
                    continue  # removed meanwhile, by a command line's retry or drop

    def _sizes(self) -> dict[str, int]:
        """Bytes by id, of the packets whose content is here."""
        sizes: defaultdict[str, int] = defaultdict(int)
        whole = set()
        for rid, suffix, size in self._entries():
            sizes[rid] += size
            if suffix == ".data":
                whole.add(rid)
        return {rid: size for rid, size in sizes.items() if rid in whole}

    def _data(self, rid: str) -> Path:
        data = self.path / f"{rid}.data"
        if not is_id(rid) or not data.exists():
            raise UsageError(f"no rejected packet {rid!a}", hint="see 'dataserver rejected list'")
        return data

    def _load(self, rid: str) -> RejectedPacket:
        try:
            return RejectedPacket.from_json(rid, (self.path / f"{rid}.json").read_bytes())
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            # A damaged reason file must not hide the packet.
            with suppress(FileNotFoundError):
                return RejectedPacket.from_id(rid, os.path.getsize(self.path / f"{rid}.data"))
            return RejectedPacket.from_id(rid, 0)


def _disk_size(info: os.stat_result) -> int:
    """The space that a file takes on the disk, in bytes: a hole of a terabyte takes none."""
    return min(info.st_size, info.st_blocks * 512)


# -- the steps of adding and removing one --


def _erase(rid: str, folder: int) -> None:
    """Remove every file of an id, including those that a crash left."""
    for suffix in _SUFFIXES:
        unlink_if_there(f"{rid}{suffix}", dir_fd=folder)


def _prepare(
    packet: RejectedPacket, expected: os.stat_result, *, copy: bool, dir_fd: int, folder: int
) -> bool:
    """Steps 1 and 2; returns False if the copied file is not the expected one."""
    name, rid = packet.name, packet.id
    if copy:
        copied = copy_durably(name, f"{rid}.part", src_fd=dir_fd, dst_fd=folder)
        if not same_stat(copied, expected):
            return False
    else:
        sync_file(name, dir_fd=dir_fd)
    checksum = read_checksum(checksum_name(name), dir_fd=dir_fd)
    if checksum is not None:
        write_durably(f"{rid}.checksum", checksum, dir_fd=folder)
    write_durably(f"{rid}.json", packet.to_json(), dir_fd=folder)
    os.fsync(folder)
    return True


def _rename(packet: RejectedPacket, expected: os.stat_result, *, dir_fd: int, folder: int) -> bool:
    """Step 3 within one file system; moves the file back if it is not the expected one."""
    name, data = packet.name, f"{packet.id}.data"
    rename_new(name, data, src_fd=dir_fd, dst_fd=folder)
    if not same_stat(os.stat(data, dir_fd=folder, follow_symlinks=False), expected):
        put_back(data, name, src_fd=folder, dst_fd=dir_fd)
        _erase(packet.id, folder)
        return False
    unlink_if_there(checksum_name(name), dir_fd=dir_fd)
    return True
