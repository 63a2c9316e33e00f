"""Draws a graph as a picture."""

from __future__ import annotations

from datetime import tzinfo

from dataserver.graphs.model import AccessGraph, ModuleGraph
from dataserver.pictures.access import access_canvas
from dataserver.pictures.canvas import settings
from dataserver.pictures.module import module_canvas
from dataserver.pictures.options import Look


def draw(graph: ModuleGraph | AccessGraph, look: Look, zone: tzinfo, form: str) -> bytes:
    """The bytes of the picture of ``graph``; ``form`` is "png", "svg" or "pdf".

    Times are shown in ``zone``.
    """
    with settings():
        if isinstance(graph, ModuleGraph):
            return module_canvas(graph, look, zone).render(form)
        return access_canvas(graph, look, zone).render(form)
