"""Graphs in a browser: what they draw and say, zooming by link, button and key.

That they are drawn at all, and zoomed with the mouse, is among the tests of the pages.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise

import pytest

from tests.browser.conftest import PIXELS, Tab
from tests.support import exhibits
from tests.support.exhibits import HOSTILE, INTERVAL, SCRIPT

pytestmark = pytest.mark.long

HOUR, DAY = 3600, 86_400

#: How many pixels of the first canvas are painted at all.
_PAINTED = """() => {
  const canvas = document.querySelector(".uplot canvas");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return data.filter((part, place) => place % 4 === 3 && part > 0).length;
}"""


def painted(tab: Tab) -> int:
    tab.expected.append("willReadFrequently")
    count = tab.evaluate(_PAINTED)
    assert isinstance(count, int)
    return count


#: In which rows of a column of the canvas (a pixel of the page) that colour is.
_ROWS = """([name, left]) => {
  const probe = document.createElement("canvas").getContext("2d");
  probe.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(name);
  probe.fillRect(0, 0, 1, 1);
  const wanted = probe.getImageData(0, 0, 1, 1).data;
  const canvas = document.querySelector(".uplot canvas");
  const x = Math.round(left - canvas.getBoundingClientRect().left);
  const { data } = canvas.getContext("2d").getImageData(x, 0, 1, canvas.height);
  const rows = [];
  for (let row = 0; row < canvas.height; row += 1) {
    const near = [0, 1, 2].every((part) => Math.abs(data[row * 4 + part] - wanted[part]) < 60);
    if (near) rows.push(row);
  }
  return rows;
}"""


def rows(tab: Tab, name: str, moment: int) -> list[int]:
    tab.expected.append("willReadFrequently")
    found = tab.evaluate(_ROWS, [name, tab.left(moment)])
    assert isinstance(found, list)
    return found


def legend(tab: Tab) -> str:
    return tab.text(".graph-legend")


def lost(tab: Tab) -> tuple[int, int]:
    """When the agent was silent."""
    start = tab.site.shown.start
    return start + exhibits.LOST.start * INTERVAL, start + exhibits.LOST.stop * INTERVAL


class TestNumber:
    def test_what_holds_is_drawn_level(self, tab: Tab) -> None:
        # The value changes with every sixth packet.
        time = tab.site.shown.start + 546 * INTERVAL
        tab.graph(tab.site.module("load", f"?from={time - HOUR}&to={time + HOUR}"))
        before = rows(tab, "--accent", time - 5 * 60)
        early, late = (rows(tab, "--accent", time + minutes * 60) for minutes in (5, 25))
        assert abs(early[0] - late[0]) <= 1
        assert 1 <= len(early) <= 3
        assert abs(before[0] - early[0]) > 4

    def test_times_are_those_of_the_server(self, tab: Tab) -> None:
        moment = tab.site.shown.end - 3 * HOUR
        tab.graph(tab.site.module("load"))
        said = tab.point_at(moment)
        shown = tab.evaluate(
            """(text) => Date.parse(text.slice(0, 19).replace(" ", "T") + "Z") / 1000""", said
        )
        assert abs(shown - moment) < 200
        assert "times: UTC" in legend(tab)

    def test_a_silence_is_told_by_pattern_and_word(self, tab: Tab) -> None:
        start, end = lost(tab)
        tab.graph(tab.site.module("load", "?from=-2d"))
        assert "no packet" in legend(tab)
        assert "no packet" in tab.point_at((start + end) // 2)
        assert "no packet" not in tab.point_at(start - HOUR)

    def test_a_silence_is_drawn(self, tab: Tab) -> None:
        start, end = lost(tab)
        tab.graph(tab.site.module("cold", f"?from={start - HOUR}&to={start - 5 * 60}"))
        heard = painted(tab)
        assert "no packet" not in legend(tab)
        tab.graph(tab.site.module("cold", f"?from={start + INTERVAL}&to={end}"))
        assert painted(tab) > heard + 20_000
        assert "no packet" in legend(tab)

    def test_many_values_are_told_by_least_greatest_and_mean(self, tab: Tab) -> None:
        tab.graph(tab.site.module("ticks", "?from=-2d"))
        assert "least to greatest" in legend(tab)
        said = tab.point_at(tab.site.shown.end - 12 * HOUR)
        assert "mean " in said
        assert "changes" in said
        tab.asks(lambda: tab.page.get_by_role("link", name="hour", exact=True).click())
        assert "value, holds until the next one" in legend(tab)

    def test_thresholds_are_zones(self, tab: Tab) -> None:
        tab.graph(tab.site.module("load", "?from=-2d"))
        assert "values that are warning" in legend(tab)
        assert tab.pixels("--critical") > 50
        time = tab.site.shown.start + 89 * INTERVAL
        tab.graph(tab.site.module("load", f"?from={time - HOUR}&to={time + HOUR}"))
        assert "9.5 jobs · critical" in tab.point_at(time + 60)
        assert "critical" not in tab.point_at(time - 60)


def test_up_and_down_are_told_by_place_and_word(tab: Tab) -> None:
    tab.graph(tab.site.module("up", "?from=-1d"))
    time = tab.site.shown.start + 500 * INTERVAL
    assert "· down ·" in tab.point_at(time + INTERVAL)
    assert "· up ·" in tab.point_at(time - INTERVAL)
    assert "down" in legend(tab)


def test_a_text_is_a_band_with_its_whole_text_beside_it(tab: Tab) -> None:
    tab.graph(tab.site.module("state", "?from=-2d"))
    said = tab.point_at(tab.site.shown.start + 80 * INTERVAL)
    assert SCRIPT in said
    assert HOSTILE[-5:] not in said, "a character that turns the text around it is left as it is"
    assert tab.page.locator(".u-over").get_attribute("title") == said
    tab.point_at(tab.site.shown.start + 220 * INTERVAL)
    assert "broken" in tab.text(".graph-readout")
    assert "critical" in tab.text(".graph-readout")


def test_texts_too_close_to_tell_apart_are_counted(tab: Tab) -> None:
    tab.page.route(
        "**/graph?*", lambda route: route.fulfill(json=_many_texts(route.fetch().text()))
    )
    tab.graph(tab.site.module("state", "?from=-1h"))
    assert "several texts" in legend(tab)
    assert "17 changes" in tab.text(".graph-readout")


def _many_texts(answer: str) -> dict[str, object]:
    graph: dict[str, object] = json.loads(answer)
    band = {"start": graph["start"], "end": graph["until"], "text": "last one", "changes": 17}
    return {**graph, "bands": [band], "is_exact": False}


class TestAccess:
    def test_it_says_which_share_of_the_packets_came(self, tab: Tab) -> None:
        tab.graph(tab.site.agent("?from=-2d"))
        assert tab.text(".graph-headline").endswith("expected packets arrived")
        assert tab.text(".graph-headline")[:2] == "95"
        assert tab.pixels("--accent") > 1000

    def test_a_hole_has_no_packets_and_is_hatched(self, tab: Tab) -> None:
        start, end = lost(tab)
        tab.graph(tab.site.agent("?from=-1d"))
        assert "0 packets, 1 expected · no packet" in tab.point_at((start + end) // 2)
        assert "1 packet, 1 expected" in tab.point_at(start - HOUR)


class TestZoom:
    @pytest.fixture(autouse=True)
    def _graph(self, tab: Tab) -> None:
        tab.graph(tab.site.module("load"))

    def test_a_link_chooses_a_span_without_a_new_page(self, tab: Tab) -> None:
        tab.evaluate("() => { window.same = true; }")
        asked = tab.asks(lambda: tab.page.get_by_role("link", name="week").click())
        assert (asked["from"], asked["to"]) == ("-1w", "now")
        assert tab.query == {"from": "-1w"}
        assert tab.evaluate("() => window.same")
        assert tab.page.locator("[aria-current='true']").all_inner_texts() == ["week"]
        start, end = tab.seconds()
        assert end - start == 7 * DAY

    def test_the_width_asked_for_is_that_of_the_drawing(self, tab: Tab) -> None:
        asked = tab.asks(lambda: tab.page.get_by_role("link", name="week").click())
        assert int(asked["width"]) == tab.evaluate(
            """() => document.querySelector(".u-over").clientWidth"""
        )

    def test_buttons_zoom_and_move(self, tab: Tab) -> None:
        def press(name: str) -> tuple[int, int]:
            asked = tab.asks(lambda: tab.page.get_by_role("button", name=name).click())
            assert asked["from"] == tab.query["from"]
            return tab.seconds()

        start, end = press("Zoom in")
        assert end - start == DAY // 2
        earlier = press("Earlier")
        assert earlier[1] - earlier[0] == DAY // 2
        assert abs(earlier[1] - (end - DAY // 4)) < 60
        wider = press("Zoom out")
        assert wider[1] - wider[0] == DAY
        press("Later")
        assert press("Later")[1] >= end

    def test_keys_zoom_move_and_go_back(self, tab: Tab) -> None:
        first = tab.seconds()
        tab.page.locator(".graph-plot").focus()
        seen = [first]
        for key in ("+", "ArrowLeft", "ArrowLeft", "-", "ArrowRight", "Escape"):
            asked = tab.asks(lambda key=key: tab.page.keyboard.press(key))
            assert asked["from"] == tab.query["from"]
            seen.append(tab.seconds())
        lengths = [end - start for start, end in seen]
        assert lengths == [DAY, DAY // 2, DAY // 2, DAY // 2, DAY, DAY, DAY]
        assert seen[2][1] < seen[1][1]
        assert seen[5][1] > seen[4][1]
        assert tab.query == {"from": "-1d"}

    def test_what_is_seen_can_be_sent_to_somebody(
        self, tab: Tab, new_tab: Callable[..., Tab]
    ) -> None:
        for name in ("Zoom in", "Earlier"):
            tab.asks(lambda name=name: tab.page.get_by_role("button", name=name).click())
        other = new_tab(viewport={"width": 700, "height": 700})
        other.graph(tab.page.url.removeprefix(tab.site.url))
        assert other.seconds() == tab.seconds()

    def test_the_file_is_of_what_is_seen(self, tab: Tab) -> None:
        tab.asks(lambda: tab.page.get_by_role("button", name="Earlier").click())
        start, end = tab.seconds()
        link = tab.page.locator("a.csv").get_attribute("href")
        assert link is not None
        assert link.endswith(f"data.csv?from={start}&to={end}")


class TestReading:
    def test_the_keyboard_reads_values(self, tab: Tab) -> None:
        tab.graph(tab.site.module("load"))
        tab.page.locator(".graph-plot").focus()
        said = []
        for key in ("End", "Shift+ArrowLeft", "Shift+ArrowLeft", "Home"):
            tab.page.keyboard.press(key)
            said.append(tab.text(".graph-readout")[:19])
        assert all(later > earlier for later, earlier in pairwise(said))
        assert tab.page.locator(".graph-readout").get_attribute("aria-live") == "polite"

    def test_where_nobody_points_it_says_what_there_is_now(self, tab: Tab) -> None:
        tab.graph(tab.site.module("load"))
        assert f"{exhibits.load(exhibits.PACKETS - 1):g} jobs" in tab.text(".graph-readout")

    def test_events_tell_their_text_to_mouse_and_keyboard(self, tab: Tab) -> None:
        tab.graph(tab.site.module("cold"))
        mark = tab.page.locator(".graph-mark").last
        assert SCRIPT in (mark.get_attribute("aria-label") or "")
        mark.hover()
        assert SCRIPT in tab.text(".graph-readout")

    def test_the_arrows_go_from_event_to_event(self, tab: Tab) -> None:
        tab.graph(tab.site.module("load", "?from=-2d"))
        marks = tab.page.locator(".graph-mark")
        assert marks.count() > 3
        marks.first.focus()
        told = []
        for _ in range(3):
            told.append(tab.text(".graph-readout"))
            tab.page.keyboard.press("ArrowRight")
        assert len(set(told)) == 3
        assert all("is going to" in text for text in told)
        # They are one stop for Tab.
        assert tab.page.locator(".graph-mark[tabindex='0']").count() == 1

    def test_the_shares_are_those_of_the_span(self, tab: Tab) -> None:
        tab.graph(tab.site.module("load", "?from=-2d"))
        rows = tab.page.locator(".shares tbody tr").all_inner_texts()
        shares = dict(_share(row) for row in rows)
        assert {"normal", "warning", "critical", "unknown"} <= set(shares)
        assert 98 < sum(shares.values()) <= 100
        assert tab.page.locator(".shares-bar span").count() == len(rows)


def _share(row: str) -> tuple[str, float]:
    """A row of the table of shares: the status, and its percents."""
    status, _, told = row.partition("\t")
    return status, 0.0 if told.startswith("less") else float(told.split()[0])


class TestTroubles:
    def test_a_database_that_is_away_is_said_and_asked_again(self, tab: Tab) -> None:
        tab.expected.append("503")
        tab.stop_clock()
        tab.page.route(
            "**/graph?*",
            lambda route: route.fulfill(status=503, json={"error": "the database is away"}),
        )
        tab.open(tab.site.module("load"))
        tab.page.clock.run_for(1000)
        tab.page.wait_for_selector('.graph[data-state="error"]')
        assert "the database is away. Trying again in 3 s" in tab.text(".graph-failure")
        assert tab.page.locator(".graph-plot").is_hidden()
        tab.page.unroute("**/graph?*")
        tab.page.clock.run_for(5000)
        tab.ready()
        assert tab.page.locator(".graph-failure").is_hidden()
        assert tab.pixels("--accent") > 500

    def test_what_will_never_work_is_asked_once(self, tab: Tab) -> None:
        tab.expected.append("404")
        tab.stop_clock()
        tab.page.route(
            "**/graph?*",
            lambda route: route.fulfill(status=404, json={"error": "there is no module 7"}),
        )
        tab.open(tab.site.module("load"))
        tab.page.clock.run_for(1000)
        tab.page.wait_for_selector('.graph[data-state="error"]')
        tab.page.clock.run_for(120_000)
        assert tab.text(".graph-failure") == "No graph: there is no module 7."
        assert len([url for url in tab.asked if "/graph?" in url]) == 1


def test_what_ends_now_is_asked_again_after_an_interval(tab: Tab) -> None:
    tab.stop_clock()
    tab.open(tab.site.module("load"))
    tab.page.clock.run_for(1000)
    tab.ready()
    asked = tab.asks(lambda: tab.page.clock.run_for((INTERVAL + 1) * 1000))
    assert (asked["from"], asked["to"]) == ("-1d", "now")
    shown = tab.site.shown
    tab.asks(lambda: tab.page.get_by_role("button", name="Earlier").click() or _run(tab))
    before = len(tab.asked)
    tab.page.clock.run_for(3 * INTERVAL * 1000)
    assert len(tab.asked) == before, shown


def _run(tab: Tab) -> None:
    tab.page.clock.run_for(1000)


def test_quick_steps_ask_once(tab: Tab) -> None:
    tab.stop_clock()
    tab.open(tab.site.module("load"))
    tab.page.clock.run_for(1000)
    tab.ready()
    before = len(tab.asked)
    tab.page.locator(".graph-plot").focus()
    for _ in range(4):
        tab.page.keyboard.press("+")
        tab.page.clock.run_for(20)
    asked = tab.asks(lambda: tab.page.clock.run_for(1000))
    assert asked["from"] == "-90m"
    assert len([url for url in tab.asked[before:] if "/graph?" in url]) == 1


def test_dark_and_light_are_drawn_with_their_own_colours(tab: Tab) -> None:
    tab.graph(tab.site.module("up"))
    light = tab.evaluate(
        "() => getComputedStyle(document.documentElement).getPropertyValue('--normal')"
    )
    assert tab.pixels("--normal") > 100
    tab.page.emulate_media(color_scheme="dark")
    dark = tab.evaluate(
        "() => getComputedStyle(document.documentElement).getPropertyValue('--normal')"
    )
    assert dark != light
    tab.page.wait_for_function(f"() => ({PIXELS})('--normal') > 100")
    tab.page.locator("#theme").click()
    tab.page.wait_for_function(f"() => ({PIXELS})('--normal') > 100")


def test_a_narrower_window_makes_a_narrower_graph(tab: Tab) -> None:
    tab.graph(tab.site.module("ticks", "?from=-2d"))
    asked = tab.asks(lambda: tab.page.set_viewport_size({"width": 500, "height": 800}))
    assert int(asked["width"]) < 500
    assert tab.evaluate("() => document.documentElement.scrollWidth") <= 500


def test_a_sharp_screen_gets_a_sharp_graph(new_tab: Callable[..., Tab]) -> None:
    tab = new_tab(device_scale_factor=2)
    tab.graph(tab.site.module("load"))
    canvas = "() => document.querySelector('.uplot canvas')"
    ratio = tab.evaluate(f"() => {{ const it = ({canvas})(); return it.width / it.clientWidth; }}")
    assert ratio == 2


_PARTS = """async () => {
  const { percent, duration, number, plain } = await import("/static/graph/texts.js");
  const { Clock } = await import("/static/graph/clock.js");
  const { Span } = await import("/static/graph/span.js");
  const madrid = new Clock("Europe/Madrid");
  const day = Span.last(86400, 1000000);
  return {
    percents: [0.99999, 1, 0.973, 0.0001, 0].map(percent),
    durations: [59, 300, 7500, 90000, 0].map(duration),
    numbers: [number(1234567.891), number(0.000012), number(-3.5, "°C")],
    plain: plain("a\\u202eb\\nc\\u0000"),
    doubled: [1792888200, 1792891800].map((time) => madrid.text(time)),
    labels: madrid.labels([1767222000, 1767225600, 1767308400], 3600),
    odd: new Clock("No/Where").zone,
    spans: {
      day: day.query,
      ahead: day.moved(5, 1000000).query,
      before: day.moved(-0.5, 1000000).query,
      shortest: day.zoomed(1e-9, 1000000).query,
      beginning: Span.between(-5, 100, 1000000).query,
      fixed: Span.between(900, 500, 1000000).query,
    },
  };
}"""


def test_the_parts_say_numbers_times_and_spans_as_they_are(tab: Tab) -> None:
    tab.open("/")
    assert tab.evaluate(_PARTS) == {
        # All is said of all only.
        "percents": ["99.9 %", "100 %", "97.3 %", "less than 0.1 %", "0.0 %"],
        "durations": ["59 s", "5 min", "2 h 5 min", "1 d 1 h", "0 s"],
        "numbers": ["1,234,568", "0.0000120000", "-3.5 °C"],
        "plain": "a\\u202eb c\\u0000",
        "doubled": ["2026-10-25 02:30:00", "2026-10-25 02:30:00"],
        "labels": ["00:00\n2026-01-01", "01:00", "00:00\n2026-01-02"],
        "odd": "UTC",
        "spans": {
            "day": {"from": "-1d", "to": "now"},
            "ahead": {"from": "-1d", "to": "now"},
            "before": {"from": "870400", "to": "956800"},
            "shortest": {"from": "-1m", "to": "now"},
            "beginning": {"from": "0", "to": "100"},
            "fixed": {"from": "500", "to": "900"},
        },
    }
