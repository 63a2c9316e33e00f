"""Graphs read from a database: the one door for whoever draws."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import tzinfo

from sqlalchemy import Engine

from dataserver.graphs.model import AccessGraph, ModuleGraph, Sparkline
from dataserver.store.layout import Layout


class Graphs:
    """Reads graphs from one database; each call is a few short transactions of its own."""

    def __init__(self, engine: Engine, layout: Layout, zone: tzinfo) -> None:
        self._engine = engine
        self._layout = layout
        self._zone = zone

    def module(self, module_id: int, start: int, end: int, width: int, now: int) -> ModuleGraph:
        """One module's graph, in at most ``width`` columns; ``now`` bounds what can be known.

        Raises UsageError (no such module) and StoreError.
        """
        raise NotImplementedError

    def access(self, agent_id: int, start: int, end: int, width: int, now: int) -> AccessGraph:
        """One agent's packets, in at most ``width`` columns.

        Raises UsageError (no such agent) and StoreError.
        """
        raise NotImplementedError

    def sparklines(
        self, module_ids: Sequence[int], start: int, end: int, width: int
    ) -> dict[int, Sparkline]:
        """Sparklines of numeric modules, by id; those without a number are left out.

        Raises StoreError.
        """
        raise NotImplementedError
