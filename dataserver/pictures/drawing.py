"""From a graph to the bytes of a picture."""

from __future__ import annotations

from datetime import tzinfo

from dataserver.graphs.model import AccessGraph, ModuleGraph
from dataserver.pictures.access import access_canvas
from dataserver.pictures.canvas import settings
from dataserver.pictures.look import Look
from dataserver.pictures.module import module_canvas


def draw(graph: ModuleGraph | AccessGraph, look: Look, zone: tzinfo, form: str) -> bytes:
    """The picture of ``graph``, its times in ``zone``; ``form`` is "png", "svg" or "pdf"."""
    with settings():
        if isinstance(graph, ModuleGraph):
            return module_canvas(graph, look, zone).render(form)
        return access_canvas(graph, look, zone).render(form)
