"""A picture drawn with matplotlib: a graph, a strip of statuses below it, titles and a legend.

This is the only module that imports matplotlib.  It uses neither pyplot nor its global state, and
ignores the user's settings (a ``matplotlibrc`` that asks for TeX, for example).  Times are epoch
seconds.

:class:`Canvas` draws.  The functions only compute: where the parts lie, axes, and texts, which come
from packets and may contain anything.
"""

from __future__ import annotations

import io
import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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

from dataserver.pictures.options import DPI, Look

#: A block of fewer pixels is narrow.
_NARROW = 3

_SETTINGS: Any = {
    # Texts come from packets and must not be parsed as formulas.
    "text.parse_math": False,
    "text.usetex": False,
    "font.size": 8.5,
    "svg.fonttype": "path",
    "svg.hashsalt": "dataserver",
    "hatch.linewidth": 0.6,
}


@contextmanager
def settings() -> Iterator[None]:
    """Use our settings and matplotlib's defaults for the rest, within the ``with`` block."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        yield


class Canvas:
    """One picture of [start, end); to be created, drawn and rendered within :func:`settings`."""

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

    # -- drawing --

    def steps(self, times: Sequence[int], values: Sequence[float]) -> None:
        """A line that holds each value until the next time; NaN makes a gap."""
        self.axes.plot(
            in_days(times),
            [bounded(value) for value in values],
            drawstyle="steps-post",
            color=self.colours.line,
            linewidth=1.3,
            zorder=4,
        )

    def between(
        self, times: Sequence[int], low: Sequence[float], high: Sequence[float], name: str
    ) -> None:
        """A band between the lowest and the highest values, in steps."""
        self.axes.fill_between(
            in_days(times),
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
        """Bars from 0 to ``heights``, each over its span."""
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
        """A thin dashed line in steps, for expected values."""
        style: dict[str, Any] = {"color": self.colours.text, "linestyle": "--", "linewidth": 0.9}
        self.axes.plot(in_days(times), values, drawstyle="steps-post", zorder=5, **style)
        self._legend.setdefault(name, Line2D([], [], **style))

    def hatched(self, start: int, end: int, name: str) -> None:
        """A hatched span, in which the graph is not reliable."""
        style: dict[str, Any] = {
            "facecolor": "none",
            "edgecolor": self.colours.muted,
            "hatch": "////",
            "linewidth": 0,
        }
        self.axes.axvspan(start / DAY, end / DAY, zorder=2, alpha=0.75, **style)
        self._legend.setdefault(name, Patch(**style))

    def tinted(self, start: int, end: int, name: str) -> None:
        """A tinted span, of which something is unknown."""
        style: dict[str, Any] = {"facecolor": self.colours.grid, "linewidth": 0}
        self.axes.axvspan(start / DAY, end / DAY, zorder=0.5, alpha=0.5, **style)
        self._legend.setdefault(name, Patch(**style))

    def zone(self, low: float | None, high: float | None, status: str) -> None:
        """The range of values of a status, within the value axis; call :meth:`reach` before."""
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
        """A span as a block in the graph, or in the strip, with its text if there is room."""
        axes = self.strip if strip and self.strip is not None else self.axes
        left, right = axes.get_xlim()
        begin, finish = max(start / DAY, left), min(end / DAY, right)
        pixels = graph_width(self.look) * (finish - begin) / (right - left)
        # An edge in the colour of the background would hide a narrow block.
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
                self._supported(shortened(text, pixels)),
                ha="center",
                va="center",
                color=self.colours.text,
                clip_on=True,
                zorder=5,
            )

    def marks(self, times: Sequence[int], colours: Sequence[str], name: str) -> None:
        """Small triangles at the upper edge, for events."""
        self.axes.scatter(
            in_days(times),
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
        """Add a colour to the legend."""
        patch = Patch(facecolor=colour, edgecolor=self.colours.background, hatch=hatch, linewidth=0)
        self._legend.setdefault(name, patch)

    # -- axes, titles, legend --

    def reach(self, low: float, high: float) -> None:
        """Set the value axis to show ``low`` to ``high`` with some margin."""
        self.axes.set_ylim(*axis_bounds(low, high))

    def rows(self) -> None:
        """Set the value axis for blocks, without values."""
        self.axes.set_ylim(0, 1)
        self.axes.set_yticks([])

    def titles(self, title: str, below: str) -> None:
        """The title, and a line of details below it."""
        for text, size, weight, up, colour, wide in (
            (title, 10.5, "bold", 8, self.colours.text, 1.5),
            (below, 8.5, "normal", 26, self.colours.muted, 1.0),
        ):
            self.figure.text(
                *position(self.look, 12, up),
                self._supported(shortened(text, self.look.width - 24, wide=wide)),
                va="top",
                fontsize=size,
                fontweight=weight,
                color=colour,
            )

    def unit(self, text: str) -> None:
        """The unit of the values."""
        self.axes.set_ylabel(self._supported(text), color=self.colours.muted)
        self.axes.yaxis.set_label_coords(*unit_position(self.look))

    def _supported(self, text: str) -> str:
        """``text`` with the characters that the font lacks replaced."""
        return "".join(char if ord(char) in self._charmap else REPLACEMENT for char in text)

    def render(self, form: str) -> bytes:
        """The picture as "png", "svg" or "pdf"."""
        if self._legend:
            self._draw_legend()
        out = io.BytesIO()
        # Without the creation time, so that the same graph gives the same file.
        dates = {"svg": "Date", "pdf": "CreationDate"}
        metadata = {dates[form]: None} if form in dates else None
        self.figure.savefig(out, format=form, facecolor=self.colours.background, metadata=metadata)
        return out.getvalue()

    def _draw_legend(self) -> None:
        """Draw the legend, and make room for it if it takes several rows."""
        columns = legend_columns(self.look, len(self._legend))
        rows = -(-len(self._legend) // columns)
        self.axes.set_position(graph_box(self.look, rows, strip=self.strip is not None))
        self.figure.legend(
            list(self._legend.values()),
            list(self._legend),
            loc="upper left",
            bbox_to_anchor=position(self.look, 4, 38),
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
        # The module has no type annotations.
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


# -- layout, in fractions of width and height from the lower left --

#: Pixels around the graph: left, right, above, below.
_LEFT, _RIGHT, _ABOVE, _BELOW = 68, 18, 62, 46
#: Height of the strip, and its distance from the graph, in pixels.
_STRIP, _BETWEEN = 12, 5
#: Width of a legend's entry, height of a row of entries, and centre of the unit, in pixels.
_ENTRY, _ROW, _UNIT = 118, 18, 18
#: The minimum height of a graph, in pixels.
_MIN_HEIGHT = 10
#: Approximate width of a character of the small font, in pixels.
_CHARACTER = 6.4
#: Left, lower edge, width, height.
Box = tuple[float, float, float, float]


def graph_width(look: Look) -> int:
    """The width of the graph, in pixels."""
    return look.width - _LEFT - _RIGHT


def graph_box(look: Look, rows: int, *, strip: bool) -> Box:
    """The box of the graph, below a legend of ``rows`` rows and above the strip if there is one."""
    below = _BELOW + (_STRIP + _BETWEEN if strip else 0)
    height = look.height - below - _ABOVE - _ROW * max(0, rows - 1)
    return _box(look, below, max(height, _MIN_HEIGHT))


def strip_box(look: Look) -> Box:
    """The box of the strip."""
    return _box(look, _BELOW, _STRIP)


def _box(look: Look, below: int, height: int) -> Box:
    width, whole = look.width, look.height
    return _LEFT / width, below / whole, graph_width(look) / width, height / whole


def legend_columns(look: Look, entries: int) -> int:
    """The number of entries in a row of the legend."""
    return max(1, min(entries, (look.width - _RIGHT) // _ENTRY))


def position(look: Look, right: int, down: int) -> tuple[float, float]:
    """The position ``right`` and ``down`` pixels from the upper left."""
    return right / look.width, 1 - down / look.height


def unit_position(look: Look) -> tuple[float, float]:
    """The position of the unit in fractions of the graph, independent of its numbers' width."""
    return (_UNIT - _LEFT) / graph_width(look), 0.5


def shortened(text: str, pixels: float, *, wide: float = 1.0) -> str:
    """``text`` shortened to ``pixels``, in a font ``wide`` times as wide as the small one."""
    room = int(pixels / (_CHARACTER * wide))
    return text if len(text) <= room else text[: max(room - 1, 0)] + _ELLIPSIS


def has_room(text: str, pixels: float) -> bool:
    """Whether enough of ``text`` to be readable fits in ``pixels``."""
    return pixels / _CHARACTER >= min(4, len(text) + 1)


# -- axes --

DAY = 86_400
#: With larger numbers matplotlib's arithmetic overflows.
_HUGE = 1e150


def in_days(times: Sequence[int]) -> list[float]:
    """Epoch seconds as matplotlib's days since 1970."""
    return [time / DAY for time in times]


def bounded(value: float) -> float:
    """``value`` within the range that can be drawn; NaN is kept."""
    return value if math.isnan(value) else min(max(value, -_HUGE), _HUGE)


def axis_bounds(low: float, high: float) -> tuple[float, float]:
    """The bounds of an axis that shows values from ``low`` to ``high``."""
    low, high = bounded(low), bounded(high)
    largest = max(abs(low), abs(high))
    is_flat = high - low <= 1e-9 * largest
    room = max(0.1 * largest, 0.5) if is_flat else 0.07 * (high - low)
    return low - room, high + room


def tick(value: float) -> str:
    """A number at an axis, short, with k, M, G, T for thousands and more."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if size <= abs(value) and 1e4 <= abs(value) < 1e15:
            return f"{value / size:.6g}{unit}".replace("-", "−")
    return f"{value:.6g}".replace("-", "−")


# -- texts --

#: Replaces characters that cannot be shown.
REPLACEMENT = "�"
_ELLIPSIS = "…"


def one_line(text: str, longest: int) -> str:
    """``text`` in one line of at most ``longest`` characters.

    Characters that move a cursor or change the direction of writing, and invalid ones, are
    replaced.
    """
    # Cut first, since the text may be of any length.
    cut = text[: longest + 1]
    clean = "".join(map(_clean, cut))
    return clean if len(clean) <= longest else clean[: longest - 1] + _ELLIPSIS


def _clean(char: str) -> str:
    if char.isspace():
        return " "
    # Categories C*: control, format (direction), surrogate, private use, unassigned.
    return REPLACEMENT if unicodedata.category(char)[0] == "C" else char


def percent(part: float) -> str:
    """A share of 0 to 1 in percent; never rounded to 0 or 100 % unless it is exactly that."""
    if 0 < part < 0.001:
        return "< 0.1 %"
    if 0.999 < part < 1:
        return "> 99.9 %"
    return f"{100 * part:.4g} %" if part in (0, 1) else f"{100 * part:.1f} %"


def shares(parts: Mapping[str, float]) -> str:
    """The shares of the statuses that occur."""
    return ", ".join(f"{name} {percent(part)}" for name, part in parts.items() if part > 0)


def count(number: float) -> str:
    """A whole number with thousands separators."""
    return f"{round(number):,}"
