"""The packets that were set aside: kept whole, with the reason, bounded by age and bytes.

One packet is two or three files named after its id, which we make: ``ID.json`` (why, and the
original name), ``ID.data`` (the content), ``ID.checksum`` (what lay beside it).  A name that
an uploader chose stands only inside the JSON.  The id carries time and reason, so that a
listing of the folder alone gives order, age and counts.
"""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from dataserver.errors import Reason, UsageError
from dataserver.packet import ends_complete
from dataserver.spool.aside import erase, set_aside
from dataserver.spool.files import PACKET_NAME, checksum_name
from dataserver.spool.moves import make_directory, move_new, open_directory
from dataserver.spool.reasons import RejectedPacket, is_id, new_id, reason_of, time_of

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
