"""The doorbell: inotify, through watchdog, says that it is worth looking into the directory.

It may ring too often (for a file that is only just begun) and may miss things; the scan
decides.  Rung is when a file with a packet's name was closed after writing, moved in,
created (a hard link is complete at once) or given other rights.

Two things keep it cheap in a burst.  The kernel is asked for these events only, not for
writes, reads and our own unlinking, which watchdog's Observer would make an object each of.
And a bell that has rung is unhooked until somebody comes: the watch is removed with the first
event that counts and set again in ``wait``, before it returns and so before the scan that
follows.  Nothing falls between: what came before the watch is set is found by that scan, what
comes after rings.  So the kernel's queue (16,384 events by default) can only overflow
through foreign names, or before our thread had its turn; that rings, and is counted.

This uses watchdog's ``InotifyFD`` instead of its Observer also because the Observer holds
back every event for half a second behind a file that is moved out, and does not pass on that
the queue overflowed.
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
    """Watches one directory; ``matters`` says which names ring.

    Where inotify cannot be used (a limit is reached, the directory is missing) ``wait`` is a
    plain timer; that is warned about once, and ``wait`` tries again each time.
    """

    def __init__(self, path: Path, *, matters: Callable[[str], bool] = is_packet_name) -> None:
        self.path = path
        #: How often the kernel dropped events because nobody took them in time.
        self.overflows = 0
        self._told = 0
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
    def hooked(self) -> bool:
        """Whether events ring now (else only the timer does)."""
        return self._wd != _NO_WATCH

    def start(self) -> None:
        """Begin to watch; never raises because of inotify, see the class."""
        self._running = True
        self._hook()

    def stop(self) -> None:
        """Stop watching, end the thread and release every descriptor; for good."""
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
        """Wake who waits; from any thread or signal handler."""
        if self._bell != _CLOSED:
            os.eventfd_write(self._bell, 1)

    def take_overflows(self) -> int:
        """How many overflows there were since the last call."""
        taken, self._told = self.overflows - self._told, self.overflows
        return taken

    def wait(self, timeout: float) -> bool:
        """Wait until it rings, at most ``timeout`` seconds; True: it rang.

        Any number of rings since the last call are one.  Scan after it, whatever it returns.
        """
        poll = select.poll()
        poll.register(self._bell, select.POLLIN)
        rang = bool(poll.poll(max(0.0, timeout) * 1000))
        if rang:
            os.eventfd_read(self._bell)
        self._hook()
        return rang

    # -- called by watchdog, in the thread that reads the events ---------------------

    def on_event(self, event: InotifyEvent) -> None:
        """One event of the directory: ring and unhook if it is about a packet."""
        if event.is_directory or not self._matters(os.fsdecode(event.name)):
            return
        self._unhook(event.wd)
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
        """The kernel dropped events: something has come, nobody knows what."""
        self.overflows += 1
        self.ring()

    # -- hooking ---------------------------------------------------------------------

    def _hook(self) -> None:
        """Set the watch if there is none; warn the first time that it cannot be set."""
        with self._lock:
            if self._wd != _NO_WATCH or not self._running:
                return
            try:
                self._wd = self._add_watch()
                self._warned = False
            except OSError as error:
                if not self._warned:
                    log.warning(
                        "no doorbell for %s (%s): new files are found by the timer only; if a "
                        "limit is reached, raise fs.inotify.max_user_instances or _watches",
                        self.path,
                        error,
                    )
                self._warned = True

    def _add_watch(self) -> WatchDescriptor:
        if self._inotify is None:
            self._inotify = InotifyFD()
            self._inotify.start()
        path = os.fsencode(self.path)
        wd = self._inotify.add_callback(path, _EVENTS, self, CallbackId(id(self)))
        if wd == _NO_WATCH:
            # watchdog passes over EACCES in silence.
            raise PermissionError(f"no right to read {self.path}")
        return wd

    def _unhook(self, wd: WatchDescriptor) -> None:
        with self._lock:
            if wd == self._wd and self._inotify is not None:
                self._inotify.remove_callbacks([(wd, CallbackId(id(self)))])
                self._wd = _NO_WATCH
