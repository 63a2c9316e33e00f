"""How pictures look: size, colours by day and by night; pure."""

from __future__ import annotations

from dataclasses import dataclass

#: Bounds of a side, in pixels; less cannot be read, more takes hundreds of megabytes.
SMALLEST, LARGEST = 240, 4_000
#: Of a picture of which nobody said otherwise, in pixels.
WIDTH, HEIGHT = 1_000, 420
#: Pixels per inch: what a font of 9 points is meant for.
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
    #: Of a text that differs from the one before it.
    other: str
    normal: str
    warning: str
    critical: str
    unknown: str

    def status(self, name: str | None) -> str:
        """The colour of a status; None: it is not known."""
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
