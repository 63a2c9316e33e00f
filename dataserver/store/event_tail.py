"""Events as they come: each one once, and none missed.

A database gives an id when a row is inserted and shows the row when its transaction commits,
so an event may appear after others with higher ids: servers commit when they are ready.
Therefore every look begins at ``low``, below which nothing can appear any more, and passes
over what was seen already.  ``low`` rises

1. over ids that were seen without a gap between them, which is the usual case: then a look
   reads nothing but what is new;
2. over a gap, once an id above it was seen :data:`PATIENCE` seconds ago.  Ids that a
   rollback used up, or that a cluster leaves out, are such gaps;
3. when more than ``_MOST`` ids were seen above it.
"""

from __future__ import annotations

from collections.abc import Iterator

from dataserver.store.event_list import PAGE, EventList, EventRecord, Wanted

#: Seconds for which an id that was passed over may still appear: longer than any transaction of
#: a server lasts (waits for locks, time-outs, a pause after which the database ends it).
PATIENCE = 300.0
#: So many ids before the newest one may have gaps at the start that are waited for.
_WATCHED = 1_000
#: Ids that are remembered; in a storm this many come within the patience.
_MOST = 50_000


class EventTail:
    """The end of a database's list of events.  All times are seconds of one steady clock."""

    def __init__(self, events: EventList, wanted: Wanted, now: float) -> None:
        """Begin at what there is now; raises StoreError."""
        self._events = events
        self._wanted = wanted
        self._newest = events.newest_id()
        self._low = max(0, self._newest - _WATCHED)
        #: Ids above ``low`` that were seen, and when first.
        self._seen = dict.fromkeys(events.ids_after(self._low), now)

    @property
    def remembered(self) -> int:
        """How many ids it holds in memory."""
        return len(self._seen)

    def newest(self, limit: int, since: int, now: float) -> Iterator[EventRecord]:
        """What there is already, as :meth:`EventList.newest`; told now and not again."""
        for record in self._events.newest(self._wanted, limit, since):
            if record.id > self._low:
                self._seen.setdefault(record.id, now)
            yield record

    def look(self, now: float) -> Iterator[EventRecord]:
        """What has come since the last look, in order of id.

        Raises StoreError; the next look goes on from there.
        """
        self._notice_loss()
        after = self._low
        while ids := self._events.ids_after(after):
            after = ids[-1]
            fresh = [key for key in ids if key not in self._seen]
            for start in range(0, len(fresh), PAGE):
                page = fresh[start : start + PAGE]
                found = self._events.by_ids(page, self._wanted)
                self._seen.update(dict.fromkeys(page, now))
                yield from found
            self._newest = max(self._newest, after)
            self._close_gaps()
            # What a gap that closed let go of is not to be read again.
            after = max(after, self._low)
        # Not before all was read: what committed while the database was away comes first.
        self._lose_patience(now)

    def _notice_loss(self) -> None:
        """Where the newest events are gone (deleted, a backup restored) ids are used again."""
        newest = self._events.newest_id()
        if newest < self._newest:
            self._newest = newest
            self._low = min(self._low, newest)
            self._seen = {key: time for key, time in self._seen.items() if key <= newest}

    def _close_gaps(self) -> None:
        while self._low + 1 in self._seen:
            self._low += 1
            del self._seen[self._low]
        if len(self._seen) > _MOST:
            self._rise(sorted(self._seen)[-_MOST - 1])

    def _lose_patience(self, now: float) -> None:
        old = [key for key, time in self._seen.items() if time <= now - PATIENCE]
        if old:
            self._rise(max(old))
            self._close_gaps()

    def _rise(self, low: int) -> None:
        self._low = low
        self._seen = {key: time for key, time in self._seen.items() if key > low}
