"""From a graph to the bytes of a picture."""

from __future__ import annotations

import os
import uuid
from datetime import tzinfo
from pathlib import Path

from dataserver.errors import DataserverError, UsageError
from dataserver.graphs.model import AccessGraph, ModuleGraph
from dataserver.pictures.access import access_canvas
from dataserver.pictures.canvas import Look, settings
from dataserver.pictures.module import module_canvas


def draw(graph: ModuleGraph | AccessGraph, look: Look, zone: tzinfo, form: str) -> bytes:
    """The picture of ``graph``, its times in ``zone``; ``form`` is "png", "svg" or "pdf"."""
    with settings():
        if isinstance(graph, ModuleGraph):
            return module_canvas(graph, look, zone).render(form)
        return access_canvas(graph, look, zone).render(form)


# -- publishing a picture: whole or not at all

#: What a file's name may end in.
FORMS = {".png": "png", ".svg": "svg", ".pdf": "pdf"}


def form_of(path: Path) -> str:
    """The form that the file's name asks for; UsageError."""
    form = FORMS.get(path.suffix.lower())
    if form is None:
        raise UsageError(
            f"{path} does not say what picture it is to be",
            hint=f"let its name end in {', '.join(FORMS)}",
        )
    return form


def publish(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``, replacing a file that is there; DataserverError."""
    # What a link points to, not the link.
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise UsageError(f"{path} is no file", hint="name another one, or - for standard output")
    part = target.with_name(f".{uuid.uuid4().hex}.part")
    try:
        try:
            part.write_bytes(content)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise DataserverError(f"cannot write {path}: {error.strerror}") from error
