"""What can be chosen of a picture: its size, its colours, its file and the format of that.

Imports no matplotlib, which takes long and may not be installed: commands read their options
without it.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass
from pathlib import Path

from dataserver.errors import DataserverError, UsageError

#: Bounds of width and height, in pixels: less is unreadable, more takes hundreds of megabytes.
SMALLEST, LARGEST = 240, 4_000

#: Default size of a picture, in pixels.
WIDTH, HEIGHT = 1_000, 420

#: Pixels per inch, which suits a font of 9 points.
DPI = 100


@dataclass(frozen=True, slots=True)
class Colours:
    """Colours as matplotlib reads them."""

    background: str
    text: str
    muted: str
    grid: str
    line: str
    band: str
    #: For every second text.
    other: str
    normal: str
    warning: str
    critical: str
    unknown: str

    def status(self, name: str | None) -> str:
        """The colour of a status; None means not known."""
        known = {
            "normal": self.normal,
            "warning": self.warning,
            "critical": self.critical,
            "unknown": self.unknown,
        }
        return known.get(name or "", self.grid)

    def severity(self, number: int) -> str:
        """The colour of an event, by Pandora's number: 2 normal, 3 warning, 4 critical."""
        return {2: self.normal, 3: self.warning, 4: self.critical}.get(number, self.muted)


LIGHT = Colours(
    background="#ffffff",
    text="#1b1f24",
    muted="#6b7480",
    grid="#dfe3e8",
    line="#1f5fbf",
    band="#9dbdf0",
    other="#d5e3f8",
    normal="#3d9a50",
    warning="#d99a00",
    critical="#cf3030",
    unknown="#8a8f98",
)

DARK = Colours(
    background="#14181d",
    text="#e6e9ed",
    muted="#98a2ae",
    grid="#2e353d",
    line="#6fa8ff",
    band="#2f5590",
    other="#24395c",
    normal="#55b96a",
    warning="#e8b339",
    critical="#f0605d",
    unknown="#7d858f",
)


@dataclass(frozen=True, slots=True)
class Look:
    """A picture's size in pixels, and its colours."""

    width: int = WIDTH
    height: int = HEIGHT
    colours: Colours = LIGHT


# -- files --

#: Formats by suffix of the file's name.
FORMS = {".png": "png", ".svg": "svg", ".pdf": "pdf"}


def form_of(path: Path) -> str:
    """The format of a file by the suffix of its name.  Raises UsageError."""
    form = FORMS.get(path.suffix.lower())
    if form is None:
        raise UsageError(
            f"the name {path} has no suffix of a picture format",
            hint=f"use one of {', '.join(FORMS)}",
        )
    return form


def publish(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``, replacing an existing file.  Raises DataserverError."""
    # Replace the file that a link points to, not the link.
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise UsageError(f"{path} is not a file", hint="use another name, or - for standard output")
    part = target.with_name(f".{uuid.uuid4().hex}.part")
    try:
        try:
            part.write_bytes(content)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise DataserverError(f"cannot write {path}: {error.strerror}") from error
