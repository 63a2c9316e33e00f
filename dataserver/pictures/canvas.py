"""The one place for matplotlib: a figure with a graph, a strip below it, and their parts.

No pyplot and none of its global state; settings of whoever runs this (a ``matplotlibrc`` that
asks for TeX, say) do not count.  Times are epoch seconds, in and out.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
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

from dataserver.pictures import layout, scale
from dataserver.pictures.look import DPI, Look
from dataserver.pictures.text import REPLACEMENT

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
        self.axes = self._axes(layout.graph_box(look, 1, strip=strip))
        self.strip = self._axes(layout.strip_box(look)) if strip else None
        for axes in filter(None, (self.axes, self.strip)):
            axes.set_xlim(start / scale.DAY, max(end, start + 1) / scale.DAY)
        self._date_axis(zone)

    # -- what is drawn -----------------------------------------------------------------

    def steps(self, times: Sequence[int], values: Sequence[float]) -> None:
        """A line that holds each value until the next time; not a number: a gap."""
        self.axes.plot(
            scale.days(times),
            [scale.bounded(value) for value in values],
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
            scale.days(times),
            [scale.bounded(value) for value in low],
            [scale.bounded(value) for value in high],
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
            [start / scale.DAY for start, _ in pairs],
            heights,
            width=[(end - start) / scale.DAY for start, end in pairs],
            align="edge",
            facecolor=self.colours.line,
            linewidth=0,
            zorder=3,
        )
        self._legend.setdefault(name, Patch(facecolor=self.colours.line))

    def level(self, times: Sequence[int], values: Sequence[float], name: str) -> None:
        """A thin dashed line in steps: what ought to be."""
        style: dict[str, Any] = {"color": self.colours.text, "linestyle": "--", "linewidth": 0.9}
        self.axes.plot(scale.days(times), values, drawstyle="steps-post", zorder=5, **style)
        self._legend.setdefault(name, Line2D([], [], **style))

    def hatched(self, start: int, end: int, name: str) -> None:
        """A span of which the graph is not to be trusted."""
        style: dict[str, Any] = {
            "facecolor": "none",
            "edgecolor": self.colours.muted,
            "hatch": "////",
            "linewidth": 0,
        }
        self.axes.axvspan(start / scale.DAY, end / scale.DAY, zorder=2, alpha=0.75, **style)
        self._legend.setdefault(name, Patch(**style))

    def tinted(self, start: int, end: int, name: str) -> None:
        """A span of which something is not known."""
        style: dict[str, Any] = {"facecolor": self.colours.grid, "linewidth": 0}
        self.axes.axvspan(start / scale.DAY, end / scale.DAY, zorder=0.5, alpha=0.5, **style)
        self._legend.setdefault(name, Patch(**style))

    def zone(self, low: float | None, high: float | None, status: str) -> None:
        """The values of a status, as far as the graph shows them; after :meth:`reach`."""
        least, most = self.axes.get_ylim()
        bottom = least if low is None else max(scale.bounded(low), least)
        top = most if high is None else min(scale.bounded(high), most)
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
        begin, finish = max(start / scale.DAY, left), min(end / scale.DAY, right)
        pixels = layout.graph_width(self.look) * (finish - begin) / (right - left)
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
        if text and layout.has_room(text, pixels):
            axes.text(
                (begin + finish) / 2,
                0.5,
                self.fit(layout.cut(text, pixels)),
                ha="center",
                va="center",
                color=self.colours.text,
                clip_on=True,
                zorder=5,
            )

    def marks(self, times: Sequence[int], colours: Sequence[str], name: str) -> None:
        """Small triangles at the upper edge."""
        self.axes.scatter(
            scale.days(times),
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
        self.axes.set_ylim(*scale.reach(low, high))

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
                *layout.place(self.look, 12, up),
                self.fit(layout.cut(text, self.look.width - 24, wide=wide)),
                va="top",
                fontsize=size,
                fontweight=weight,
                color=colour,
            )

    def unit(self, text: str) -> None:
        """What the values are in."""
        self.axes.set_ylabel(self.fit(text), color=self.colours.muted)
        self.axes.yaxis.set_label_coords(*layout.unit_place(self.look))

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
        columns = layout.legend_columns(self.look, len(self._legend))
        rows = -(-len(self._legend) // columns)
        self.axes.set_position(layout.graph_box(self.look, rows, strip=self.strip is not None))
        self.figure.legend(
            list(self._legend.values()),
            list(self._legend),
            loc="upper left",
            bbox_to_anchor=layout.place(self.look, 4, 38),
            ncols=columns,
            frameon=False,
            fontsize=8,
            labelcolor=self.colours.text,
            handlelength=1.4,
            columnspacing=1.2,
            borderpad=0.2,
        )

    def _axes(self, box: layout.Box) -> Axes:
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
        locator = dates.AutoDateLocator(
            tz=zone, maxticks=max(4, layout.graph_width(self.look) // 70)
        )
        lowest.xaxis.set_major_locator(locator)
        lowest.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, tz=zone))
        lowest.xaxis.get_offset_text().set_color(self.colours.muted)
        self.axes.yaxis.set_major_locator(MaxNLocator(max(3, self.look.height // 60)))
        self.axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: scale.tick(value)))
        self.axes.grid(visible=True, axis="y", color=self.colours.grid, linewidth=0.6, zorder=0)
        self.axes.set_axisbelow(True)
        if self.strip is not None:
            self.axes.tick_params(labelbottom=False, bottom=False)
            self.axes.set_xticks([])
            self.strip.set_ylim(0, 1)
            self.strip.set_yticks([])
