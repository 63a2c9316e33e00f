"""The worker of one instance: from its drop directory into the database, until told to stop.

``loop.Worker`` owns locks, signals and the configuration; ``session.Session`` is one
configuration's work; ``nearby`` reads a few packets, ``holds`` lets backlogs settle,
``delivery`` insists with the database, ``report`` says how it goes.
"""

from __future__ import annotations

from dataserver.ingest.worker import Summary, Worker, run

__all__ = ["Summary", "Worker", "run"]
