"""Pictures: what is on them, told from the parts that they are drawn of."""

from __future__ import annotations

import os
import struct
import tomllib
import warnings
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import matplotlib as mpl
import pytest
from lxml import etree
from matplotlib.colors import to_hex
from matplotlib.text import Text

from dataserver.errors import DataserverError, UsageError
from dataserver.graphs.model import (
    AccessGraph,
    Band,
    Column,
    Mark,
    ModuleGraph,
    PacketColumn,
    Point,
    Shape,
    Silences,
    Span,
    StatusSpan,
    Zone,
)
from dataserver.pictures.access import access_canvas
from dataserver.pictures.canvas import Canvas, one_line, percent, settings
from dataserver.pictures.drawing import draw
from dataserver.pictures.module import module_canvas
from dataserver.pictures.options import DARK, LIGHT, Look, form_of, publish
from dataserver.rules.status import Status
from dataserver.store.read.modules import ModuleRecord
from tests.support.failures import failures

START, DAY = 1_767_225_600, 86_400
END = START + DAY
HOSTILE = [
    r"$\frac{",
    "$x^2$ and $",
    "<script>alert(1)</script>",
    "a\nb\x1b[31m\x00",
    "\u202egnp.exe",
    "温度 😀 \ud800",
    "x" * 600,
    "_hidden",
    "",
]


def module(**changes: Any) -> ModuleRecord:
    fields: dict[str, Any] = {
        "id": 7,
        "name": "load",
        "type": "generic_data",
        "value": 1.0,
        "unit": "%",
        "time": END,
        "saved": END,
        "interval": 300,
        "description": "",
        "disabled": False,
        "quiet": False,
        "status": Status.NORMAL,
        "pending": None,
        "since": START,
    }
    return ModuleRecord(**{**fields, **changes})


def graph(**changes: Any) -> ModuleGraph:
    fields: dict[str, Any] = {
        "agent_id": 1,
        "agent": "web1",
        "alias": "web1 (shop)",
        "module": module(),
        "shape": Shape.NUMBER,
        "start": START,
        "end": END,
        "until": END,
        "step": 100,
        "is_exact": True,
        "changes": 2,
        "points": (Point(START, 1.0), Point(START + 3_600, 5.0), Point(START + 7_200, 2.0)),
        "columns": (),
        "bands": (),
        "silences": Silences(START, ()),
        "statuses": (StatusSpan(START, END, "normal"),),
        "shares": {"normal": 1.0},
        "zones": (),
        "marks": (),
        "has_more_marks": False,
    }
    return ModuleGraph(**{**fields, **changes})


def access(**changes: Any) -> AccessGraph:
    columns = [
        PacketColumn(START + h * 3_600, START + (h + 1) * 3_600, 0 if h == 5 else 12, 12.0)
        for h in range(24)
    ]
    fields: dict[str, Any] = {
        "agent_id": 1,
        "agent": "web1",
        "alias": "",
        "start": START,
        "end": END,
        "interval": 300,
        "step": 3_600,
        "columns": tuple(columns),
        "packets": 276,
        "expected": 288.0,
        "share": 276 / 288,
        "silences": Silences(START, (Span(START + 5 * 3_600, START + 6 * 3_600),)),
    }
    return AccessGraph(**{**fields, **changes})


@pytest.fixture(autouse=True)
def ours() -> Iterator[None]:
    with settings():
        yield


def drawn(of: ModuleGraph | AccessGraph, look: Look | None = None) -> Canvas:
    look = look or Look()
    if isinstance(of, ModuleGraph):
        canvas = module_canvas(of, look, UTC)
    else:
        canvas = access_canvas(of, look, UTC)
    canvas.render("png")
    return canvas


def texts(canvas: Canvas) -> list[str]:
    return [text.get_text() for text in _texts(canvas) if text.get_text()]


def _texts(canvas: Canvas) -> list[Text]:
    return [each for each in canvas.figure.findobj(Text) if isinstance(each, Text)]


def legend(canvas: Canvas) -> list[str]:
    return [text.get_text() for each in canvas.figure.legends for text in each.get_texts()]


def spans(canvas: Canvas, *, hatched: bool) -> list[tuple[float, float]]:
    """The shaded spans of the graph, in hours from its start."""
    found = []
    for patch in canvas.axes.patches:
        if bool(patch.get_hatch()) is hatched and patch.get_height() == 1:
            left = patch.get_x() * DAY - START
            found.append((left / 3_600, (left + patch.get_width() * DAY) / 3_600))
    return [(round(a, 3), round(b, 3)) for a, b in found]


def blocks(canvas: Canvas) -> list[tuple[float, float, str, str | None]]:
    """Blocks of the graph: from and to in hours, colour, hatch."""
    found = []
    for each in canvas.axes.collections:
        for path in each.get_paths():
            left, right = (round((x * DAY - START) / 3_600, 3) for x in _reach(path))
            found.append((left, right, to_hex(each.get_facecolor()[0]), each.get_hatch()))
    return found


def _reach(path: Any) -> tuple[float, float]:
    across = path.vertices[:, 0]
    return across.min(), across.max()


# -- numbers ---------------------------------------------------------------------------------


def test_a_value_holds_until_the_next_one_and_the_last_until_the_end() -> None:
    (line,) = drawn(graph()).axes.lines
    assert line.get_drawstyle() == "steps-post"
    assert [round(x * DAY - START) for x in line.get_xdata()] == [0, 3_600, 7_200, DAY]
    assert list(line.get_ydata()) == [1.0, 5.0, 2.0, 2.0]


def test_the_line_ends_where_nothing_is_known_yet() -> None:
    (line,) = drawn(graph(until=START + 10_000)).axes.lines
    assert round(line.get_xdata()[-1] * DAY - START) == 10_000


def test_a_reduced_graph_has_a_band_from_least_to_greatest_and_the_mean_as_line() -> None:
    columns = (
        Column(START, START + 43_200, None, None, None, None, 0),
        Column(START + 43_200, END, -3.0, 90.0, 10.0, 4.0, 500),
    )
    canvas = drawn(graph(is_exact=False, points=(), columns=columns, changes=500))
    (line,) = canvas.axes.lines
    assert list(line.get_ydata())[1:] == [10.0, 10.0]
    (band,) = canvas.axes.collections
    ys = [y for path in band.get_paths() for y in path.vertices[:, 1]]
    assert (min(ys), max(ys)) == (-3.0, 90.0)
    low, high = canvas.axes.get_ylim()
    assert low < -3
    assert high > 90
    assert "least to greatest" in legend(canvas)
    assert any("mean over time" in text for text in texts(canvas))


def test_a_module_without_any_value_is_an_empty_graph() -> None:
    assert not drawn(graph(points=(), statuses=(), shares={"not known": 1.0})).axes.lines


@pytest.mark.parametrize(
    "values", [(0.0, 0.0), (1e308, -1e308), (1e15, 1e15 + 1e-3), (5e-324, 0.0), (-7.0, -7.0)]
)
def test_any_number_can_be_drawn(values: tuple[float, float]) -> None:
    points = tuple(Point(START + place * 3_600, value) for place, value in enumerate(values))
    canvas = drawn(graph(points=points))
    low, high = canvas.axes.get_ylim()
    assert low < high


def test_zones_are_shaded_as_far_as_the_graph_shows_them() -> None:
    zones = (Zone("warning", 3.0, 4.0), Zone("critical", 4.0, None), Zone("critical", 90.0, 95.0))
    canvas = drawn(graph(zones=zones))
    top = canvas.axes.get_ylim()[1]
    shaded = [
        (to_hex(patch.get_facecolor()), patch.get_y(), patch.get_y() + patch.get_height())
        for patch in canvas.axes.patches
    ]
    assert shaded == [(LIGHT.warning, 3.0, 4.0), (LIGHT.critical, 4.0, top)]
    assert {"warning zone", "critical zone"} <= set(legend(canvas))


def test_silences_are_hatched_and_explained() -> None:
    silences = Silences(START, (Span(START + 3_600, START + 9_000),))
    canvas = drawn(graph(silences=silences))
    assert spans(canvas, hatched=True) == [(1.0, 2.5)]
    assert "no packet" in legend(canvas)


@pytest.mark.parametrize(("since", "until"), [(START + 36_000, 10.0), (None, 24.0)])
def test_where_the_ledger_knows_nothing_it_says_so(since: int | None, until: float) -> None:
    canvas = drawn(graph(silences=Silences(since, ())))
    assert spans(canvas, hatched=False) == [(0.0, until)]
    assert "packets not known" in legend(canvas)


def test_events_are_marks_in_the_colour_of_their_severity() -> None:
    marks = (
        Mark(1, START + 3_600, "going_up_critical", 4, "$\\frac{"),
        Mark(2, START + 7_200, "going_down_normal", 2, ""),
    )
    canvas = drawn(graph(marks=marks, has_more_marks=True))
    (found,) = canvas.axes.collections
    assert [round(x * DAY - START) for x, _ in found.get_offsets()] == [3_600, 7_200]
    assert [to_hex(colour) for colour in found.get_facecolor()] == [LIGHT.critical, LIGHT.normal]
    assert "newest 2 events" in legend(canvas)


def test_the_strip_shows_statuses_by_colour_and_the_legend_by_word() -> None:
    statuses = (
        StatusSpan(START, START + 3_600, None),
        StatusSpan(START + 3_600, START + 7_200, "critical"),
        StatusSpan(START + 7_200, END, "unknown"),
    )
    canvas = drawn(graph(statuses=statuses, shares={"critical": 1 / 24, "unknown": 23 / 24}))
    assert canvas.strip is not None
    colours = [to_hex(each.get_facecolor()[0]) for each in canvas.strip.collections]
    assert colours == [LIGHT.grid, LIGHT.critical, LIGHT.unknown]
    assert {"status not known", "critical", "unknown"} <= set(legend(canvas))
    assert any("critical 4.2 %, unknown 95.8 %" in text for text in texts(canvas))


# -- booleans and texts ------------------------------------------------------------------------


def test_up_and_down_are_bands_with_their_words() -> None:
    points = (Point(START, 1.0), Point(START + 36_000, 0.0), Point(START + 72_000, 7.0))
    canvas = drawn(graph(shape=Shape.BOOLEAN, points=points))
    assert blocks(canvas) == [
        (0.0, 10.0, LIGHT.normal, None),
        (10.0, 20.0, LIGHT.critical, None),
        (20.0, 24.0, LIGHT.normal, None),
    ]
    assert {"up", "down"} <= set(texts(canvas))


def test_a_column_that_was_up_and_down_is_neither() -> None:
    half = START + 43_200
    columns = (
        Column(START, half, 0.0, 1.0, 0.9, 1.0, 9),
        Column(half, END, 0.0, 0.0, 0.0, 0.0, 1),
    )
    canvas = drawn(graph(shape=Shape.BOOLEAN, is_exact=False, points=(), columns=columns))
    assert blocks(canvas) == [
        (0.0, 12.0, LIGHT.warning, "xxxx"),
        (12.0, 24.0, LIGHT.critical, None),
    ]
    assert "up and down" in legend(canvas)


def test_an_outage_too_short_for_a_pixel_is_seen() -> None:
    points = (Point(START, 1.0), Point(START + 3_600, 0.0), Point(START + 3_605, 1.0))
    canvas = drawn(graph(shape=Shape.BOOLEAN, points=points))
    down = [
        each for each in canvas.axes.collections if to_hex(each.get_facecolor()[0]) != LIGHT.normal
    ]
    assert [to_hex(each.get_edgecolor()[0]) for each in down] == [LIGHT.critical]
    assert down[0].get_linewidth()[0] > 0


def test_texts_are_bands_with_as_much_of_the_text_as_fits() -> None:
    bands = (
        Band(START, START + 43_200, "running"),
        Band(START + 43_200, START + 46_800, "a rather long state"),
        Band(START + 46_800, END, "several", 12),
    )
    canvas = drawn(graph(shape=Shape.TEXT, points=(), bands=bands, statuses=()))
    assert [(left, right) for left, right, *_ in blocks(canvas)] == [
        (0.0, 12.0),
        (12.0, 13.0),
        (13.0, 24.0),
    ]
    found = texts(canvas)
    assert "running" in found
    assert "a rather long state" not in found
    assert any(text.startswith("a ra") and text.endswith("…") for text in found)
    assert "12 changes" in found
    assert "several" not in found
    assert "several changes" in legend(canvas)


# -- packets -----------------------------------------------------------------------------------


def test_packets_are_bars_beside_what_was_due() -> None:
    canvas = drawn(access())
    heights = [patch.get_height() for patch in canvas.axes.patches if not patch.get_hatch()]
    assert heights == [12.0] * 5 + [0.0] + [12.0] * 18
    (due,) = canvas.axes.lines
    assert set(due.get_ydata()) == {12.0}
    assert due.get_drawstyle() == "steps-post"
    assert spans(canvas, hatched=True) == [(5.0, 6.0)]
    assert {"packets", "expected", "no packet"} <= set(legend(canvas))


def test_the_share_of_packets_stands_in_the_title() -> None:
    assert "web1: 95.8 % of 288 expected packets arrived" in texts(drawn(access()))
    nothing = access(columns=(), packets=0, expected=0.0, share=None)
    assert "web1: no packet was expected" in texts(drawn(nothing))


@pytest.mark.parametrize(
    ("part", "text"), [(1.0, "100 %"), (0.99999, "> 99.9 %"), (0.0, "0 %"), (1e-9, "< 0.1 %")]
)
def test_a_share_is_not_rounded_to_all_or_nothing(part: float, text: str) -> None:
    assert percent(part) == text


# -- what packets may say ------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
def test_hostile_texts_are_drawn_as_texts(form: str) -> None:
    def check(of: ModuleGraph | AccessGraph) -> None:
        # Where all are beside each other they need the room.
        look = Look() if isinstance(of, ModuleGraph) and of.bands else Look(500, 300)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            picture = draw(of, look, UTC, form)
        assert picture
        if form == "svg":
            elements = etree.fromstring(picture).iter("{*}*")
            assert "script" not in {etree.QName(element).localname for element in elements}

    step = DAY // len(HOSTILE)
    starts = range(START, START + step * len(HOSTILE), step)
    bands = tuple(Band(at, at + step, text) for at, text in zip(starts, HOSTILE, strict=True))
    graphs: list[ModuleGraph | AccessGraph] = [
        graph(shape=Shape.TEXT, points=(), bands=bands, alias="".join(HOSTILE)),
        *(
            graph(
                agent=text,
                alias=text,
                module=module(name=text, unit=text),
                marks=(Mark(1, START, text, 4, text),),
            )
            for text in HOSTILE
        ),
    ]
    if form == "png":
        # Its title is drawn as the others' are, whatever the form.
        graphs += [access(agent=text, alias=text) for text in HOSTILE]
    assert failures(check, graphs) == {}


def test_no_text_is_a_formula() -> None:
    bands = (Band(START, END, "$x$"),)
    for of in (graph(shape=Shape.TEXT, points=(), bands=bands, alias="$y$"), access(alias="$z$")):
        canvas = drawn(of)
        assert not any(text.get_parse_math() or text.get_usetex() for text in _texts(canvas))
        assert any("$" in text for text in texts(canvas))


def test_what_is_shown_is_one_bounded_line() -> None:
    for text in HOSTILE:
        found = one_line(text, 40)
        assert len(found) <= 40, text
        assert found.isprintable(), text
        assert "\u202e" not in found, text


def test_ones_own_settings_of_matplotlib_do_not_count_and_stay() -> None:
    odd = {"text.usetex": True, "savefig.dpi": 300, "savefig.bbox": "tight", "axes.grid": True}
    picture = draw(graph(alias="$\\input{/etc/passwd}$"), Look(), UTC, "png")
    with mpl.rc_context(odd):
        assert draw(graph(alias="$\\input{/etc/passwd}$"), Look(), UTC, "png") == picture
        assert {key: mpl.rcParams[key] for key in odd} == odd


# -- the picture as a whole ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(240, 240), (1_000, 420), (333, 777)])
def test_a_picture_has_the_size_that_was_asked_for(size: tuple[int, int]) -> None:
    for of in (graph(), access()):
        picture = draw(of, Look(*size), UTC, "png")
        assert picture.startswith(b"\x89PNG\r\n")
        assert struct.unpack(">II", picture[16:24]) == size


def test_dark_is_dark() -> None:
    canvas = drawn(graph(), Look(colours=DARK))
    assert to_hex(canvas.figure.get_facecolor()) == DARK.background
    assert to_hex(canvas.axes.lines[0].get_color()) == DARK.line


def test_nothing_lies_outside_of_the_picture() -> None:
    statuses = tuple(
        StatusSpan(START + place * 3_600, START + (place + 1) * 3_600, status)
        for place, status in enumerate(["normal", "warning", "critical", "unknown", None])
    )
    silences = Silences(START + 3_600, (Span(START + 7_200, START + 9_000),))
    zones = (Zone("warning", 2.0, 3.0), Zone("critical", 3.0, None))
    look = Look(320, 260)
    full = graph(
        statuses=statuses,
        silences=silences,
        zones=zones,
        marks=(Mark(1, START, "going_unknown", 3, ""),),
        module=module(name="n" * 100, unit="u" * 30),
    )
    canvas = drawn(full, look)
    for box in (each.get_window_extent() for each in canvas.figure.legends):
        assert box.x0 >= 0
        assert box.x1 <= look.width
        assert box.y0 >= canvas.axes.get_window_extent().y1 - 1


def test_times_are_those_of_the_zone() -> None:
    zone = ZoneInfo("Asia/Kolkata")
    canvas = module_canvas(graph(end=START + 7_200, until=START + 7_200), Look(), zone)
    canvas.render("png")
    assert canvas.strip is not None
    labels = [text.get_text() for text in canvas.strip.get_xticklabels()]
    assert "06:00" in labels


def test_the_same_graph_is_the_same_file() -> None:
    for form in ("png", "svg", "pdf"):
        assert draw(graph(), Look(), UTC, form) == draw(graph(), Look(), UTC, form)


# -- files -----------------------------------------------------------------------------------


def test_a_file_is_replaced_whole_and_a_link_followed(tmp_path: Path) -> None:
    real, link = tmp_path / "real.png", tmp_path / "link.png"
    real.write_bytes(b"old")
    link.symlink_to(real)
    publish(link, b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"
    assert sorted(os.listdir(tmp_path)) == ["link.png", "real.png"]


def test_what_is_no_file_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    with pytest.raises(UsageError, match="is not a file"):
        publish(pipe, b"new")
    assert pipe.is_fifo()


def test_a_place_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataserverError, match=r"cannot write .*/none/x\.png: No such file"):
        publish(tmp_path / "none" / "x.png", b"new")


def test_a_name_without_a_known_ending_is_refused() -> None:
    assert form_of(Path("x.PNG")) == "png"
    for name in ("x", "x.gif", ".png", "x.png.exe"):
        with pytest.raises(UsageError, match="no suffix of a picture format"):
            form_of(Path(name))


def test_the_extra_names_what_is_imported() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert any(
        "matplotlib" in each for each in project["project"]["optional-dependencies"]["graph"]
    )


def test_dates_far_apart_can_be_drawn() -> None:
    long = graph(start=0, end=4_000_000_000, until=START, points=(Point(0, 1.0),))
    assert draw(long, Look(), UTC, "png")
    short = replace(graph(), end=START + 1, until=START + 1, points=(Point(START, 1.0),))
    assert draw(short, Look(), UTC, "png")
