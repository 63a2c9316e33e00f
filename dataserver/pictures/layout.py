"""Where the parts of a picture lie, in parts of its width and height from the lower left; pure."""

from __future__ import annotations

from dataserver.pictures.look import Look

#: Pixels around the graph: left, right, above, below.
_LEFT, _RIGHT, _ABOVE, _BELOW = 68, 18, 62, 46
#: Pixels of the strip, and between it and the graph.
_STRIP, _BETWEEN = 12, 5
#: Pixels of a legend's entry, and of a row of them; of the middle of the unit.
_ENTRY, _ROW, _UNIT = 118, 18, 18
#: The least height of a graph, in pixels.
_LEAST = 10
#: About the width of a character of the small font, in pixels.
_CHARACTER = 6.4

#: Left, lower edge, width, height.
Box = tuple[float, float, float, float]


def graph_width(look: Look) -> int:
    """The width of the graph, in pixels."""
    return look.width - _LEFT - _RIGHT


def graph_box(look: Look, rows: int, *, strip: bool) -> Box:
    """Where the graph is, below a legend of so many rows, above a strip if there is one."""
    below = _BELOW + (_STRIP + _BETWEEN if strip else 0)
    height = look.height - below - _ABOVE - _ROW * max(0, rows - 1)
    return _box(look, below, max(height, _LEAST))


def strip_box(look: Look) -> Box:
    """Where the strip is."""
    return _box(look, _BELOW, _STRIP)


def legend_columns(look: Look, entries: int) -> int:
    """How many entries of a legend stand beside each other."""
    return max(1, min(entries, (look.width - _RIGHT) // _ENTRY))


def place(look: Look, right: int, down: int) -> tuple[float, float]:
    """A place so many pixels from the upper left."""
    return right / look.width, 1 - down / look.height


def unit_place(look: Look) -> tuple[float, float]:
    """Where the unit stands, in parts of the graph: however wide its numbers are."""
    return (_UNIT - _LEFT) / graph_width(look), 0.5


def cut(text: str, pixels: float, *, wide: float = 1.0) -> str:
    """As much of ``text`` as there is room for; ``wide``: of a font so much wider."""
    room = int(pixels / (_CHARACTER * wide))
    return text if len(text) <= room else text[: max(room - 1, 0)] + "…"


def has_room(text: str, pixels: float) -> bool:
    """Whether enough of ``text`` could be read in so many pixels."""
    return pixels / _CHARACTER >= min(4, len(text) + 1)


def _box(look: Look, below: int, height: int) -> Box:
    width, whole = look.width, look.height
    return _LEFT / width, below / whole, graph_width(look) / width, height / whole
