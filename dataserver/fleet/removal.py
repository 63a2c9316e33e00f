"""Removing an instance that does not run; packets are lost only on request."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from dataserver.config.paths import MAIN, Paths
from dataserver.errors import DataserverError, LockedError, UsageError
from dataserver.fleet import ownership
from dataserver.fleet.aside import (
    REMOVED,
    count_leaving,
    count_rejected,
    erase,
    flock_patiently,
    foreign_names,
    move,
    own_part,
)
from dataserver.spool.queue import count_queue


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What would be lost with an instance, or never be stored."""

    queued: int
    rejected: int
    #: Entries of ``var/NAME`` that no instance creates.
    foreign: Sequence[str]

    def __bool__(self) -> bool:
        return bool(self.queued or self.rejected or self.foreign)

    def __str__(self) -> str:
        """Such as ``3 packets queued, 1 rejected``."""
        parts = []
        if self.queued:
            parts.append(f"{self.queued} {'packet' if self.queued == 1 else 'packets'} queued")
        if self.rejected:
            word = "" if self.queued else " packet" if self.rejected == 1 else " packets"
            parts.append(f"{self.rejected}{word} rejected")
        if self.foreign:
            more = len(self.foreign) - 3
            names = ", ".join(self.foreign[:3]) + (f" and {more} more" if more > 0 else "")
            parts.append(f"other files in its var folder ({names})")
        return ", ".join(parts)


def check_removable(paths: Paths) -> None:
    """Raise UsageError for an instance that is never removed."""
    if paths.name == MAIN:
        raise UsageError(
            f"{MAIN} is never removed: it is the default instance of all commands",
            hint=f"use `dataserver instances stop {MAIN}` to keep it from running",
        )


def leftovers(paths: Paths) -> Leftovers:
    """What the instance would leave now; OSError if it cannot be read."""
    return _leftovers(paths, ownership.configured(paths))


def refusal(name: str, found: Leftovers) -> UsageError:
    """The error for an instance with leftovers: why it is not removed, and what to do."""
    ways = []
    if found.queued:
        ways.append(f"store them with `dataserver run {name} --once`")
    if found.rejected:
        ways.append(f"see `dataserver rejected list --instance {name}`")
    if found.foreign:
        ways.append("move them away")
    return UsageError(
        f"{name} is not removed: {found}", hint=f"{', '.join(ways)}; --force deletes what is left"
    )


def remove(paths: Paths, others: Sequence[Paths], *, force: bool) -> list[str]:
    """Remove the instance; the caller holds :func:`dataserver.fleet.aside.changing`.

    Returns what is kept, a line each.  Raises UsageError, LockedError, DataserverError.
    """
    check_removable(paths)
    try:
        with _held(paths):
            return _remove(paths, others, force)
    except OSError as exc:
        where = os.fsdecode(exc.filename or "")
        raise DataserverError(
            f"{paths.name} cannot be removed: {where}: {exc.strerror}",
            hint="fix that and remove it again",
        ) from exc


def _remove(paths: Paths, others: Sequence[Paths], force: bool) -> list[str]:
    data_in = ownership.configured(paths)
    part = own_part(paths.folder, data_in)
    if part is not None and (paths.folder / part).is_mount():
        raise UsageError(f"{data_in} is a mount point", hint="unmount it first")
    # 1. Renamed, so that no agent can upload between the check and the deletion.
    folder = paths.folder.with_name(REMOVED + paths.name)
    with ExitStack() as undo:
        move(paths.folder, folder)
        undo.callback(move, folder, paths.folder)
        # 2. The check that counts.
        found = _leftovers(paths, data_in if part is None else folder / part)
        if found and not force:
            raise refusal(paths.name, found)
        # 3. Its var folder: from here on the next command would clean up after a crash.
        var = paths.var.with_name(REMOVED + paths.name)
        if os.path.lexists(paths.var):
            move(paths.var, var)
        undo.pop_all()
    kept = list(_links((paths.folder, folder), (paths.var, var)))
    erase(folder)
    if os.path.lexists(var):
        erase(var)
    if part is None:
        kept += _leave_data_in(data_in, others)
    return kept


@contextmanager
def _held(paths: Paths) -> Iterator[None]:
    """Hold the lock that a process of the instance would need; LockedError if one runs."""
    try:
        fd = os.open(paths.lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield  # it never ran
        return
    try:
        # More than one try: commands that check who runs it hold the lock for a moment.
        if not flock_patiently(fd, 10):
            raise LockedError(f"{paths.name} is not removed: it runs", hint="stop it first")
        yield
    finally:
        os.close(fd)


def _leftovers(paths: Paths, data_in: Path) -> Leftovers:
    try:
        files = count_queue(data_in).files
    except (FileNotFoundError, NotADirectoryError):
        files = 0
    return Leftovers(
        files + count_leaving(paths), count_rejected(paths), tuple(foreign_names(paths))
    )


def _links(*moved: tuple[Path, Path]) -> Iterator[str]:
    for before, now in moved:
        if now.is_symlink():
            yield f"{before} was a link: {os.readlink(now)} stays"


def _leave_data_in(data_in: Path, others: Sequence[Paths]) -> list[str]:
    """Remove a drop directory elsewhere if it is empty and no other instance's."""
    if not data_in.exists():
        return []
    shared = any(ownership.same(data_in, claim) for o in others for claim in ownership.claims(o))
    if not shared and not data_in.is_symlink():
        try:
            data_in.rmdir()
        except OSError:
            pass
        else:
            return []
    return [f"{data_in} stays"]
