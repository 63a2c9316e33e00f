"""Waking the worker when a packet file arrives: inotify, through watchdog.

It may wake the worker too often (for a file that was only just created) and may miss events; the
scan decides.  It wakes when a file with a packet's name is closed after writing, moved in, created
(a hard link is complete at once) or changes its permissions.

Two things keep it cheap in a burst.  The kernel is asked for these events only, not for
writes, reads and our own unlinking, for each of which watchdog's Observer would make an object.
And there is at most one event per scan: the inotify watch is removed with the first event that
counts and added again in ``wait``, before it returns and so before the scan that follows.  No file
is missed: that scan finds what came before the watch was added, and what comes later wakes.
So the kernel's queue (16,384 events by default) can only overflow through foreign names, or before
our thread ran; an overflow wakes, too, and is counted.

Another reason for watchdog's ``InotifyFD`` instead of its Observer: the Observer holds back every
event for half a second behind a file that is moved out, and does not report that the queue
overflowed.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Callable
from pathlib import Path

from watchdog.observers.inotify_c import (
    CallbackId,
    InotifyConstants,
    InotifyEvent,
    InotifyFD,
    Mask,
    WatchDescriptor,
)

from dataserver.spool.files import is_packet_name

log = logging.getLogger(__name__)

_EVENTS = Mask(
    InotifyConstants.IN_CLOSE_WRITE
    | InotifyConstants.IN_MOVED_TO
    | InotifyConstants.IN_CREATE
    | InotifyConstants.IN_ATTRIB
    | InotifyConstants.IN_ONLYDIR
)
_NO_WATCH = WatchDescriptor(-1)
_CLOSED = -1


class Watch:
    """Watches one directory for files whose name ``matters``.

    If inotify cannot be used (a limit is reached, the directory is missing), ``wait`` is a plain
    timer; that is logged once, and each ``wait`` tries again.
    """

    def __init__(self, path: Path, *, matters: Callable[[str], bool] = is_packet_name) -> None:
        self.path = path
        #: How often the kernel dropped events because they were not read in time.
        self.overflows = 0
        self._reported_overflows = 0
        self._matters = matters
        # An eventfd, not a threading.Event: it may be set from a signal handler that
        # interrupted the very thread that waits for it.
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = threading.Lock()
        self._inotify: InotifyFD | None = None
        self._wd = _NO_WATCH
        self._running = False
        self._warned = False

    @property
    def is_watching(self) -> bool:
        """Whether the inotify watch is active (otherwise only the timer works)."""
        return self._wd != _NO_WATCH

    def start(self) -> None:
        """Start watching; never raises because of inotify, see the class."""
        self._running = True
        self._add_watch()

    def stop(self) -> None:
        """Stop watching for good: end the thread and release every descriptor."""
        with self._lock:
            self._running = False
            inotify, self._inotify, self._wd = self._inotify, None, _NO_WATCH
        if inotify is not None:
            inotify.stop()
            inotify.join()
        bell, self._bell = self._bell, _CLOSED
        if bell != _CLOSED:
            os.close(bell)

    def ring(self) -> None:
        """Wake the thread that waits; may be called from any thread or signal handler."""
        if self._bell != _CLOSED:
            os.eventfd_write(self._bell, 1)

    def take_overflows(self) -> int:
        """The number of overflows since the last call."""
        new = self.overflows - self._reported_overflows
        self._reported_overflows += new
        return new

    def wait(self, timeout: float) -> bool:
        """Wait for an event, at most ``timeout`` seconds; returns whether there was one.

        All events since the last call count as one.  Scan afterwards in either case.
        """
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        rang = bool(poll.poll(max(0.0, timeout) * 1000))
        if rang:
            os.eventfd_read(self._bell)
        self._add_watch()
        return rang

    # -- called by watchdog, in the thread that reads the events --

    def on_event(self, event: InotifyEvent) -> None:
        """Wake and remove the watch if the event is about a packet."""
        if event.is_directory or not self._matters(os.fsdecode(event.name)):
            return
        self._remove_watch(event.wd)
        self.ring()

    def on_watch_deleted(self, wd: WatchDescriptor) -> None:
        """The directory was deleted or unmounted."""
        with self._lock:
            if wd != self._wd:
                return
            self._wd = _NO_WATCH
            if self._running:
                self.ring()

    def on_queue_overflow(self) -> None:
        """The kernel dropped events: wake, since packets may be among them."""
        self.overflows += 1
        self.ring()

    # -- adding and removing the inotify watch --

    def _add_watch(self) -> None:
        """Add the watch if it is not active; log the first failure."""
        with self._lock:
            if self._wd != _NO_WATCH or not self._running:
                return
            try:
                self._wd = self._new_watch()
                self._warned = False
            except OSError as error:
                if not self._warned:
                    log.warning(
                        "cannot watch %s (%s): new files are only found by the timer; if a limit "
                        "is reached, raise fs.inotify.max_user_instances or _watches",
                        self.path,
                        error,
                    )
                self._warned = True

    def _new_watch(self) -> WatchDescriptor:
        if self._inotify is None:
            self._inotify = InotifyFD()
            self._inotify.start()
        path = os.fsencode(self.path)
        wd = self._inotify.add_callback(path, _EVENTS, self, CallbackId(id(self)))
        if wd == _NO_WATCH:
            # watchdog ignores EACCES silently.
            raise PermissionError(f"no permission to read {self.path}")
        return wd

    def _remove_watch(self, wd: WatchDescriptor) -> None:
        with self._lock:
            if wd == self._wd and self._inotify is not None:
                self._inotify.remove_callbacks([(wd, CallbackId(id(self)))])
                self._wd = _NO_WATCH
