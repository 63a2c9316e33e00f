"""The packets that were set aside: kept whole, with the reason, bounded by age and bytes.

One packet is two or three files named after its id, which we make: ``ID.json`` (why, and the
original name), ``ID.data`` (the content), ``ID.checksum`` (what lay beside it).  A name that
an uploader chose stands only inside the JSON.  The id carries time and reason, so that a
listing of the folder alone gives order, age and counts.
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

# -- the record of one rejected packet: why it was set aside, and how that is written down
#
# The reason file is JSON for people and programs: times in ISO 8601, UTC; bytes of the name
# that are not UTF-8 as escaped surrogates.

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


# -- rejected --

_DAY = 86_400.0
_PIECE = 1 << 20
#: Cut uploads that may still be completed: the newest of one day.
_MAY_GROW = 1_000
#: Bytes of one that are read to see whether it was.
_LARGEST = 64 << 20


class Rejected:
    """The folder ``path``, made when first needed; ``server`` is the name put into reasons.

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

    def take(
        self,
        rejected: RejectedPacket,
        expected: os.stat_result,
        *,
        dir_fd: int,
        remove: Callable[[], bool],
    ) -> bool:
        """Set the file ``rejected.name`` of ``dir_fd`` aside; see :func:`set_aside`."""
        folder = self._descriptor()
        return set_aside(rejected, expected, dir_fd=dir_fd, folder=folder, remove=remove)

    def record(
        self, name: str, found: os.stat_result, reason: Reason, detail: str, agent: str | None
    ) -> RejectedPacket:
        """The record, with an id of its own, of a file that is to be set aside now."""
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

    def ids(self, reason: Reason | None = None) -> Iterator[str]:
        """Their ids, in no order; ``reason``: only those with it.  Reads no packet's own file."""
        return (rid for rid in self._whole() if reason in (None, reason_of(rid)))

    def list(self) -> tuple[RejectedPacket, ...]:
        """What is here, oldest first."""
        return tuple(self._load(rid) for rid in sorted(self._whole()))

    def show(self, rid: str) -> RejectedPacket:
        """One of them; UsageError where there is none of that id."""
        self._data(rid)
        return self._load(rid)

    def content(self, rid: str, most: int = -1) -> bytes:
        """The packet's bytes as they were uploaded, ``most`` at most; UsageError: there is none."""
        with self._data(rid).open("rb") as file:
            return file.read(most)

    def pieces(self, rid: str) -> Iterator[bytes]:
        """The same, a piece at a time: it may be of any size."""
        with self._data(rid).open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece

    def counts(self, since: float = 0.0) -> dict[Reason, int]:
        """How many there are by reason, from the names alone; ``since``: epoch seconds."""
        return dict(Counter(reason_of(rid) for rid in self._whole() if time_of(rid) >= since))

    def usage(self) -> tuple[int, int]:
        """How many packets are here, and their bytes."""
        sizes = self._whole()
        return len(sizes), sum(sizes.values())

    def retry(self, rid: str, into: Path) -> str:
        """Move a packet back under its own name, at once or not at all; returns the name.

        Raises UsageError where a file of that name lies in ``into``, or where the reason
        file does not say a name that a packet may have.
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
                # Asked before the checksum moves: it must not come to lie beside a stranger.
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
        erase(rid, self._descriptor())
        return name

    def return_completed(self, into: Path) -> tuple[str, ...]:
        """Move cut uploads back that were completed after they were set aside; their names.

        An upload that stalls for longer than ``incomplete_after`` goes on writing into the file
        that was renamed to here, and its program reports success.  Where the file had to be
        copied to here, its end is lost.
        """
        since = self._clock() - _DAY
        ids = sorted(rid for rid in self.ids(Reason.INCOMPLETE) if time_of(rid) >= since)
        returned = []
        for rid in islice(reversed(ids), _MAY_GROW):
            # One that was dropped meanwhile, or whose name is taken by a newer upload, stays.
            with suppress(FileNotFoundError, UsageError):
                if self._was_completed(rid):
                    returned.append(self.retry(rid, into))
        return tuple(returned)

    def _was_completed(self, rid: str) -> bool:
        size = self._data(rid).stat().st_size
        # Only growth counts: a file that was judged at this size would be judged so again.
        if not self._load(rid).size < size <= _LARGEST:
            return False
        return ends_complete(self.content(rid))

    def drop(self, rid: str) -> None:
        """Remove a packet for good; UsageError where there is none of that id."""
        self._data(rid)
        erase(rid, self._descriptor())

    def prune(self, max_age_days: float, max_bytes: int) -> int:
        """Remove the oldest until none is older and all together are not larger; how many."""
        sizes = self._whole()
        oldest_kept = self._clock() - max_age_days * _DAY
        total = sum(sizes.values())
        removed = 0
        # One that is too large by itself goes first: it would take all others with it.
        for rid in [rid for rid, size in sizes.items() if size > max_bytes]:
            erase(rid, self._descriptor())
            total -= sizes.pop(rid)
            removed += 1
        for rid in sorted(sizes):
            if total <= max_bytes and time_of(rid) >= oldest_kept:
                break
            erase(rid, self._descriptor())
            total -= sizes[rid]
            removed += 1
        return removed

    def recover(self) -> int:
        """Remove the halves that a crash left; their packets still lie in the drop directory."""
        halves = {rid for rid, _, _ in self._entries()} - self._whole().keys()
        for rid in halves:
            erase(rid, self._descriptor())
        return len(halves)

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
        """Move one file of ours into the drop directory; nothing where it is not here."""
        with suppress(FileNotFoundError):
            move_new(name, to, src_fd=self._descriptor(), dst_fd=target)

    def _entries(self) -> Iterator[tuple[str, str, int]]:
        """Id, suffix and room (bytes) of each file here that is ours."""
        if not self.path.is_dir():
            return
        with os.scandir(self.path) as entries:
            for entry in entries:
                rid, dot, rest = entry.name.partition(".")
                if not is_id(rid):
                    continue
                try:
                    yield rid, dot + rest, _room(entry.stat(follow_symlinks=False))
                except FileNotFoundError:
                    continue  # taken away meanwhile, by a command line's retry or drop

    def _whole(self) -> dict[str, int]:
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
            # A damaged reason file must not hide the packet: what the id says is left.
            with suppress(FileNotFoundError):
                return RejectedPacket.from_id(rid, os.path.getsize(self.path / f"{rid}.data"))
            return RejectedPacket.from_id(rid, 0)


def _room(info: os.stat_result) -> int:
    """What a file takes on the disk, in bytes: a hole of a terabyte takes nothing."""
    return min(info.st_size, info.st_blocks * 512)


# -- setting a file of the drop directory aside, so that a crash at any point loses nothing
#
# 1. The content is made durable; on another file system or mount it is copied to ``ID.part`` first.
# 2. The reason ``ID.json``, and ``ID.checksum`` where there was one, are made durable.
# 3. The content appears as ``ID.data``: the file itself is renamed, or the copy.
# 4. Of a copy, the original is removed from the drop directory.
#
# Up to 3 the file lies in the drop directory and a JSON without data is a half, which
# ``Rejected.recover`` removes; from 3 on everything is in the folder.  Between 3 and 4 the
# packet is in both places, and is rejected once more after a crash.

#: The JSON goes last, so that what a crash leaves of a removal is a half.
_SUFFIXES = (".data", ".checksum", ".part", ".json.part", ".checksum.part", ".json")


def set_aside(
    rejected: RejectedPacket,
    expected: os.stat_result,
    *,
    dir_fd: int,
    folder: int,
    remove: Callable[[], bool],
) -> bool:
    """Bring the file ``rejected.name`` of ``dir_fd`` into ``folder``; True when it is there.

    ``expected`` is how the file looked when it was judged.  ``remove`` takes the original
    away where it had to be copied, and says whether it was still the same.  False: the file
    had been replaced, the new one is left, nothing is kept.  Raises OSError; then nothing is
    kept either, and the file is where it was.
    """
    near = same_mount(folder, dir_fd)
    name, rid = rejected.name, rejected.id
    try:
        if not _prepare(rejected, expected, near=near, dir_fd=dir_fd, folder=folder):
            erase(rid, folder)
            return False
        reach("inside-reject")
        if near:
            return _rename(rejected, expected, dir_fd=dir_fd, folder=folder)
        os.rename(f"{rid}.part", f"{rid}.data", src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        _withdraw(rid, folder)
        raise
    os.fsync(folder)
    if remove():
        unlink_if_there(checksum_name(name), dir_fd=dir_fd)
    return True


def erase(rid: str, folder: int) -> None:
    """Remove every file of an id, those that a crash left included."""
    for suffix in _SUFFIXES:
        unlink_if_there(f"{rid}{suffix}", dir_fd=folder)


def _withdraw(rid: str, folder: int) -> None:
    """Take back what was begun, unless the content has come already: it may be the only one."""
    if f"{rid}.data" not in os.listdir(folder):
        erase(rid, folder)


def _prepare(
    rejected: RejectedPacket, expected: os.stat_result, *, near: bool, dir_fd: int, folder: int
) -> bool:
    """Steps 1 and 2; False where the copy is not that of the expected file."""
    name, rid = rejected.name, rejected.id
    if near:
        sync_file(name, dir_fd=dir_fd)
    else:
        copied = copy_durably(name, f"{rid}.part", src_fd=dir_fd, dst_fd=folder)
        if not same_stat(copied, expected):
            return False
    checksum = read_checksum(checksum_name(name), dir_fd=dir_fd)
    if checksum is not None:
        write_durably(f"{rid}.checksum", checksum, dir_fd=folder)
    write_durably(f"{rid}.json", rejected.to_json(), dir_fd=folder)
    os.fsync(folder)
    return True


def _rename(
    rejected: RejectedPacket, expected: os.stat_result, *, dir_fd: int, folder: int
) -> bool:
    """Step 3 within one file system; puts the file back where it is another one."""
    name, data = rejected.name, f"{rejected.id}.data"
    rename_new(name, data, src_fd=dir_fd, dst_fd=folder)
    if not same_stat(os.stat(data, dir_fd=folder, follow_symlinks=False), expected):
        put_back(data, name, src_fd=folder, dst_fd=dir_fd)
        erase(rejected.id, folder)
        return False
    unlink_if_there(checksum_name(name), dir_fd=dir_fd)
    return True
