"""The console's pages in a browser: they load, draw graphs, show hostile names, fit a phone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.browser.conftest import REJECTED, Site, Tab
from tests.support import exhibits
from tests.support.exhibits import INTERVAL, SCRIPT

HOUR = 3600
#: A page of each kind, and further ones.
EACH = ("/", "/agents", "/agents/ID", "/modules/load", "/events")
PAGES = (*EACH, "/modules/cold", "/rejected")

long = pytest.mark.long


def address(site: Site, page: str) -> str:
    name = page.rpartition("/")[2]
    if page == "/agents/ID":
        return site.agent()
    return site.module(name) if page.startswith("/modules/") else page


def settle(tab: Tab) -> None:
    """Wait until the page has nothing more to fetch."""
    tab.page.wait_for_load_state("networkidle")
    if tab.page.locator(".graph").count():
        tab.ready()


@pytest.mark.parametrize(
    "page", [*EACH, *(pytest.param(page, marks=long) for page in PAGES if page not in EACH)]
)
def test_a_page_loads_without_a_complaint_and_asks_nobody_else(tab: Tab, page: str) -> None:
    tab.open(address(tab.site, page))
    settle(tab)
    assert tab.page.locator("h1").count() == 1
    assert tab.page.title().endswith("dataserver")


def test_the_graph_of_a_number_is_a_line_in_steps(tab: Tab) -> None:
    tab.graph(tab.site.module("load", "?from=-6h"))
    assert tab.pixels("--accent") > 500
    place = exhibits.PACKETS - 20
    time = tab.site.shown.start + place * INTERVAL
    # Between two packets it is what the first of them said.
    for moment in (time + 30, time + INTERVAL - 30):
        assert f"{exhibits.load(place):g} jobs" in tab.point_at(moment)


def test_dragging_zooms_a_graph_and_a_double_click_goes_back(tab: Tab) -> None:
    tab.graph(tab.site.module("load"))
    end = tab.site.shown.end
    wanted = (end - 8 * HOUR, end - 5 * HOUR)
    box = tab.page.locator(".u-over").bounding_box()
    assert box is not None

    def drag() -> None:
        tab.page.mouse.move(tab.left(wanted[0]), box["y"] + 50)
        tab.page.mouse.down()
        tab.page.mouse.move(tab.left(wanted[1]), box["y"] + 60, steps=5)
        tab.page.mouse.up()

    asked = tab.asks(drag)
    assert abs(int(asked["from"]) - wanted[0]) < 300
    assert abs(int(asked["to"]) - wanted[1]) < 300
    assert tab.query == {"from": asked["from"], "to": asked["to"]}
    asked = tab.asks(lambda: tab.page.mouse.dblclick(box["x"] + 300, box["y"] + 50))
    assert asked["to"] == "now"
    assert tab.query == {"from": "-1d"}


@long
@pytest.mark.parametrize("page", PAGES)
def test_no_page_is_wider_than_a_phone(new_tab: Callable[..., Tab], page: str) -> None:
    tab = new_tab(viewport={"width": 360, "height": 740}, device_scale_factor=2)
    tab.open(address(tab.site, page))
    settle(tab)
    width = tab.evaluate("() => document.documentElement.scrollWidth")
    assert width <= 360


@long
def test_hostile_names_are_shown_as_they_are(tab: Tab) -> None:
    site = tab.site
    for page in ("/agents", site.agent(), site.module("cold"), site.module("state"), "/events"):
        tab.open(page)
        settle(tab)
        assert SCRIPT in tab.text("main"), page
        # What a script from a name would have made.
        assert tab.page.locator("main script").count() == 0, page
        assert tab.page.locator("main img").count() == 0, page
        tab.check()


@long
def test_a_rejected_packet_is_text_down_to_its_name(tab: Tab) -> None:
    tab.open("/rejected")
    assert REJECTED in tab.text("main")
    tab.page.locator("main a[href^='/rejected/']").first.click()
    tab.page.wait_for_load_state("networkidle")
    assert SCRIPT in tab.text("main")
    assert tab.page.locator("main img").count() == 0


@long
def test_dark_follows_the_system_until_somebody_chooses(tab: Tab) -> None:
    background = "() => getComputedStyle(document.body).backgroundColor"
    tab.open("/")
    light = tab.evaluate(background)
    tab.page.emulate_media(color_scheme="dark")
    dark = tab.evaluate(background)
    assert dark != light
    tab.page.locator("#theme").click()
    assert tab.evaluate(background) == light
    # The choice holds on the next page, too.
    tab.open("/agents")
    assert tab.evaluate(background) == light


@long
def test_the_first_stop_of_the_keyboard_leads_to_the_content(tab: Tab) -> None:
    tab.open("/agents")
    tab.page.keyboard.press("Tab")
    assert tab.evaluate("() => document.activeElement.className") == "skip"
    tab.page.keyboard.press("Enter")
    assert tab.page.url.endswith("#main")


@long
def test_from_the_agents_one_gets_to_a_graph_by_links(tab: Tab) -> None:
    tab.open("/agents")
    tab.page.locator(f"main a[href='{tab.site.agent()}']").first.click()
    tab.page.locator(f"main a[href='{tab.site.module('load')}']").first.click()
    tab.ready()
    assert tab.text("h1") == "load"


@long
def test_without_scripts_a_module_still_says_what_it_is(new_tab: Callable[..., Tab]) -> None:
    tab = new_tab(java_script_enabled=False)
    tab.open(tab.site.module("load"))
    assert "jobs" in tab.text(".module-now")
    assert tab.page.locator(".changes tbody tr").count() == 20
    tab.page.get_by_role("link", name="week").click()
    assert tab.page.get_by_role("link", name="week").get_attribute("aria-current") == "true"
