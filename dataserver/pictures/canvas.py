"""The one place for matplotlib: a figure with a graph, a strip below it, and their parts.

No pyplot and none of its global state; settings of whoever runs this (a ``matplotlibrc`` that
asks for TeX, say) do not count.  Times are epoch seconds, in and out.
"""

from __future__ import annotations

import io
import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import tzinfo
from typing import Any

import matplotlib as mpl
import matplotlib.dates
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

# -- where the parts of a picture lie, in parts of its width and height from the lower left; pur

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


# -- canvas --

#: Pixels below which a block is narrow.
_NARROW = 3

_SETTINGS: Any = {
    # Texts are from packets: no formulas in them.
    "text.parse_math": False,
    "text.usetex": False,
    "font.size": 8.5,
    "svg.fonttype": "path",
    "svg.hashsalt": "dataserver",
    "hatch.linewidth": 0.6,
}


@contextmanager
def settings() -> Iterator[None]:
    """Ours, and matplotlib's own for the rest, for as long as the block lasts."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        yield


class Canvas:
    """One picture of [start, end); made, filled and rendered inside of :func:`settings`."""

    def __init__(self, look: Look, start: int, end: int, zone: tzinfo, *, strip: bool) -> None:
        self.look = look
        self.colours = look.colours
        size = (look.width / DPI, look.height / DPI)
        self.figure = Figure(figsize=size, dpi=DPI, facecolor=self.colours.background)
        self._charmap = get_font(findfont("DejaVu Sans")).get_charmap()
        self._legend: dict[str, Patch | Line2D] = {}
        self.axes = self._axes(graph_box(look, 1, strip=strip))
        self.strip = self._axes(strip_box(look)) if strip else None
        for axes in filter(None, (self.axes, self.strip)):
            axes.set_xlim(start / DAY, max(end, start + 1) / DAY)
        self._date_axis(zone)

    # -- what is drawn -----------------------------------------------------------------

    def steps(self, times: Sequence[int], values: Sequence[float]) -> None:
        """A line that holds each value until the next time; not a number: a gap."""
        self.axes.plot(
            days(times),
            [bounded(value) for value in values],
            drawstyle="steps-post",
            color=self.colours.line,
            linewidth=1.3,
            zorder=4,
        )

    def between(
        self, times: Sequence[int], low: Sequence[float], high: Sequence[float], name: str
    ) -> None:
        """The band from the least to the greatest value, in steps."""
        self.axes.fill_between(
            days(times),
            [bounded(value) for value in low],
            [bounded(value) for value in high],
            step="post",
            facecolor=self.colours.band,
            edgecolor=self.colours.band,
            linewidth=0.8,
            zorder=3,
        )
        self._legend.setdefault(name, Patch(facecolor=self.colours.band))

    def bars(self, spans: Iterable[tuple[int, int]], heights: Sequence[float], name: str) -> None:
        """Bars from 0, each over its span."""
        pairs = list(spans)
        self.axes.bar(
            [start / DAY for start, _ in pairs],
            heights,
            width=[(end - start) / DAY for start, end in pairs],
            align="edge",
            facecolor=self.colours.line,
            linewidth=0,
            zorder=3,
        )
        self._legend.setdefault(name, Patch(facecolor=self.colours.line))

    def level(self, times: Sequence[int], values: Sequence[float], name: str) -> None:
        """A thin dashed line in steps: what ought to be."""
        style: dict[str, Any] = {"color": self.colours.text, "linestyle": "--", "linewidth": 0.9}
        self.axes.plot(days(times), values, drawstyle="steps-post", zorder=5, **style)
        self._legend.setdefault(name, Line2D([], [], **style))

    def hatched(self, start: int, end: int, name: str) -> None:
        """A span of which the graph is not to be trusted."""
        style: dict[str, Any] = {
            "facecolor": "none",
            "edgecolor": self.colours.muted,
            "hatch": "////",
            "linewidth": 0,
        }
        self.axes.axvspan(start / DAY, end / DAY, zorder=2, alpha=0.75, **style)
        self._legend.setdefault(name, Patch(**style))

    def tinted(self, start: int, end: int, name: str) -> None:
        """A span of which something is not known."""
        style: dict[str, Any] = {"facecolor": self.colours.grid, "linewidth": 0}
        self.axes.axvspan(start / DAY, end / DAY, zorder=0.5, alpha=0.5, **style)
        self._legend.setdefault(name, Patch(**style))

    def zone(self, low: float | None, high: float | None, status: str) -> None:
        """The values of a status, as far as the graph shows them; after :meth:`reach`."""
        least, most = self.axes.get_ylim()
        bottom = least if low is None else max(bounded(low), least)
        top = most if high is None else min(bounded(high), most)
        colour = self.colours.status(status)
        if bottom < top:
            self.axes.axhspan(bottom, top, facecolor=colour, alpha=0.16, linewidth=0, zorder=1)
            self._legend.setdefault(f"{status} zone", Patch(facecolor=colour, alpha=0.3))

    def block(
        self,
        start: int,
        end: int,
        colour: str,
        *,
        hatch: str | None = None,
        text: str = "",
        strip: bool = False,
    ) -> None:
        """A span as a block over the graph's (or the strip's) whole height, with its text."""
        axes = self.strip if strip and self.strip is not None else self.axes
        left, right = axes.get_xlim()
        begin, finish = max(start / DAY, left), min(end / DAY, right)
        pixels = graph_width(self.look) * (finish - begin) / (right - left)
        # An edge of the background's would hide a narrow one, which is to be seen all the same.
        is_narrow = pixels < _NARROW
        low, height = (0.0, 1.0) if axes is self.strip else (0.2, 0.6)
        axes.broken_barh(
            [(begin, finish - begin)],
            (low, height),
            facecolor=colour,
            edgecolor=colour if is_narrow else self.colours.background,
            linewidth=1.2 if is_narrow else 0 if axes is self.strip else 0.6,
            hatch=None if is_narrow else hatch,
            zorder=4 if is_narrow else 3,
        )
        if text and has_room(text, pixels):
            axes.text(
                (begin + finish) / 2,
                0.5,
                self.fit(cut(text, pixels)),
                ha="center",
                va="center",
                color=self.colours.text,
                clip_on=True,
                zorder=5,
            )

    def marks(self, times: Sequence[int], colours: Sequence[str], name: str) -> None:
        """Small triangles at the upper edge."""
        self.axes.scatter(
            days(times),
            [0.965] * len(times),
            s=30,
            c=list(colours),
            marker="v",
            transform=self.axes.get_xaxis_transform(),
            edgecolors=self.colours.background,
            linewidths=0.4,
            zorder=6,
        )
        style: dict[str, Any] = {"marker": "v", "color": self.colours.muted, "linestyle": "none"}
        self._legend.setdefault(name, Line2D([], [], **style))

    def explain(self, name: str, colour: str, *, hatch: str | None = None) -> None:
        """Put a colour into the legend."""
        patch = Patch(facecolor=colour, edgecolor=self.colours.background, hatch=hatch, linewidth=0)
        self._legend.setdefault(name, patch)

    # -- around it -----------------------------------------------------------------------

    def reach(self, low: float, high: float) -> None:
        """Show these values, with some room around them."""
        self.axes.set_ylim(*reach(low, high))

    def rows(self) -> None:
        """No values: blocks."""
        self.axes.set_ylim(0, 1)
        self.axes.set_yticks([])

    def titles(self, title: str, below: str) -> None:
        """What it is, and one line about it."""
        for text, size, weight, up, colour, wide in (
            (title, 10.5, "bold", 8, self.colours.text, 1.5),
            (below, 8.5, "normal", 26, self.colours.muted, 1.0),
        ):
            self.figure.text(
                *place(self.look, 12, up),
                self.fit(cut(text, self.look.width - 24, wide=wide)),
                va="top",
                fontsize=size,
                fontweight=weight,
                color=colour,
            )

    def unit(self, text: str) -> None:
        """What the values are in."""
        self.axes.set_ylabel(self.fit(text), color=self.colours.muted)
        self.axes.yaxis.set_label_coords(*unit_place(self.look))

    def fit(self, text: str) -> str:
        """``text`` without characters that the font lacks."""
        return "".join(char if ord(char) in self._charmap else REPLACEMENT for char in text)

    def render(self, form: str) -> bytes:
        """The picture as "png", "svg" or "pdf"."""
        if self._legend:
            self._explain()
        out = io.BytesIO()
        # Without the time of making: the same graph is the same file.
        dates = {"svg": "Date", "pdf": "CreationDate"}
        metadata = {dates[form]: None} if form in dates else None
        self.figure.savefig(out, format=form, facecolor=self.colours.background, metadata=metadata)
        return out.getvalue()

    def _explain(self) -> None:
        """Draw the legend, and make room for it where it takes several rows."""
        columns = legend_columns(self.look, len(self._legend))
        rows = -(-len(self._legend) // columns)
        self.axes.set_position(graph_box(self.look, rows, strip=self.strip is not None))
        self.figure.legend(
            list(self._legend.values()),
            list(self._legend),
            loc="upper left",
            bbox_to_anchor=place(self.look, 4, 38),
            ncols=columns,
            frameon=False,
            fontsize=8,
            labelcolor=self.colours.text,
            handlelength=1.4,
            columnspacing=1.2,
            borderpad=0.2,
        )

    def _axes(self, box: Box) -> Axes:
        axes = self.figure.add_axes(box)
        axes.set_facecolor(self.colours.background)
        axes.tick_params(colors=self.colours.muted, labelsize=8, length=3)
        for spine in axes.spines.values():
            spine.set_color(self.colours.grid)
        return axes

    def _date_axis(self, zone: tzinfo) -> None:
        lowest = self.axes if self.strip is None else self.strip
        # It has no types.
        dates: Any = mpl.dates
        locator = dates.AutoDateLocator(tz=zone, maxticks=max(4, graph_width(self.look) // 70))
        lowest.xaxis.set_major_locator(locator)
        lowest.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, tz=zone))
        lowest.xaxis.get_offset_text().set_color(self.colours.muted)
        self.axes.yaxis.set_major_locator(MaxNLocator(max(3, self.look.height // 60)))
        self.axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
        self.axes.grid(visible=True, axis="y", color=self.colours.grid, linewidth=0.6, zorder=0)
        self.axes.set_axisbelow(True)
        if self.strip is not None:
            self.axes.tick_params(labelbottom=False, bottom=False)
            self.axes.set_xticks([])
            self.strip.set_ylim(0, 1)
            self.strip.set_yticks([])


# -- times and values as places at axes; pure

DAY = 86_400
#: matplotlib's arithmetic on larger numbers overflows.
_HUGE = 1e150


def days(times: Sequence[int]) -> list[float]:
    """Epoch seconds as the days that matplotlib counts."""
    return [time / DAY for time in times]


def bounded(value: float) -> float:
    """A value that can be drawn; what is not a number stays that."""
    return value if math.isnan(value) else min(max(value, -_HUGE), _HUGE)


def reach(low: float, high: float) -> tuple[float, float]:
    """The ends of an axis that shows values from ``low`` to ``high``."""
    low, high = bounded(low), bounded(high)
    largest = max(abs(low), abs(high))
    is_flat = high - low <= 1e-9 * largest
    room = max(0.1 * largest, 0.5) if is_flat else 0.07 * (high - low)
    return low - room, high + room


def tick(value: float) -> str:
    """A number at an axis: short, thousands and more as k, M, G, T."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if size <= abs(value) and 1e4 <= abs(value) < 1e15:
            return f"{value / size:.6g}{unit}".replace("-", "−")
    return f"{value:.6g}".replace("-", "−")


# -- texts as pictures show them: whatever came from a packet, bounded and without tricks; pure

#: Stands for what cannot be shown.
REPLACEMENT = "�"
_ELLIPSIS = "…"


def shown(text: str, longest: int) -> str:
    """``text`` in one line of at most ``longest`` characters.

    What moves a cursor, turns the direction of writing or is no character at all is replaced.
    """
    # Cut first: it may be of any length.
    cut = text[: longest + 1]
    clean = "".join(map(_clean, cut))
    return clean if len(clean) <= longest else clean[: longest - 1] + _ELLIPSIS


def _clean(char: str) -> str:
    if char.isspace():
        return " "
    # C: control, format (direction), surrogates, private, unassigned.
    return REPLACEMENT if unicodedata.category(char)[0] == "C" else char


def percent(part: float) -> str:
    """A share of 0 to 1; what is not all is never rounded to all, nor some to none."""
    if 0 < part < 0.001:
        return "< 0.1 %"
    if 0.999 < part < 1:
        return "> 99.9 %"
    return f"{100 * part:.4g} %" if part in (0, 1) else f"{100 * part:.1f} %"


def shares(parts: Mapping[str, float]) -> str:
    """The statuses that there are, each with its share."""
    return ", ".join(f"{name} {percent(part)}" for name, part in parts.items() if part > 0)


def count(number: float) -> str:
    """A whole number with commas."""
    return f"{round(number):,}"


# -- how pictures look: size, colours by day and by night; pure

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
