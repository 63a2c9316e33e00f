"""A real browser on a real console, and everything that it complains about.

Debian's chromium, without a window.  One for each module of tests, since starting it takes its
time; each test has a context of its own, as a person with a fresh profile would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, Page, Request, sync_playwright

from dataserver.console.source import Source
from tests.support import exhibits
from tests.support.consoles import rejected, serving
from tests.support.databases import SQLITE, opened
from tests.support.exhibits import Exhibit
from tests.support.server import Place
from tests.support.waiting import PATIENCE

CHROMIUM = "/usr/bin/chromium"
#: When it is for the console, however long the tests take; by no clock of this machine.
NOW = 1_800_000_123
#: A file name and a content that a page must show as they are.
REJECTED = "<img src=x onerror=window.hacked=1>.1.data"
CONTENT = b'<agent_data agent_name=""><script>window.hacked=1</script></agent_data>'

_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) => {
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`);
});
"""

#: How many pixels of the first canvas have the colour of a variable of the page.
PIXELS = """(name) => {
  const probe = document.createElement("canvas").getContext("2d");
  probe.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(name);
  probe.fillRect(0, 0, 1, 1);
  const wanted = probe.getImageData(0, 0, 1, 1).data;
  const canvas = document.querySelector(".uplot canvas");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let count = 0;
  for (let place = 0; place < data.length; place += 4) {
    if (data[place] === wanted[0] && data[place + 1] === wanted[1]
      && data[place + 2] === wanted[2] && data[place + 3] === 255) count += 1;
  }
  return count;
}"""


@dataclass(frozen=True)
class Site:
    """A console, and what it shows."""

    url: str
    shown: Exhibit

    def module(self, name: str, query: str = "") -> str:
        return f"/modules/{self.shown.modules[name]}{query}"

    def agent(self, query: str = "") -> str:
        return f"/agents/{self.shown.agent}{query}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A home with an agent's two days and a rejected packet, shown by a console whose clock stands.

    As time passed the agent would fall silent, and its graphs would change.
    """
    root = tmp_path_factory.mktemp("site") / "home"
    with opened(SQLITE, root) as database:
        place = Place(root, database.url)
        shown = exhibits.fill(database, NOW)
        rejected(place, REJECTED, content=CONTENT)
        with serving(Source(place.home, {}, clock=lambda: NOW)) as client:
            yield Site(str(client.base_url).rstrip("/"), shown)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; it runs as root in a container, where it can make no sandbox of its own."""
    assert Path(CHROMIUM).exists(), "the tests in a browser need Debian's package chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"], timeout=1000 * PATIENCE
        )
        yield browser
        browser.close()


@dataclass
class Tab:
    """One page, with what was asked for and what went wrong on it."""

    page: Page
    site: Site
    asked: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    #: Words of problems that a test makes on purpose.
    expected: list[str] = field(default_factory=list)

    def watch(self) -> None:
        self.page.on("request", self._note)
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on(
            "console",
            lambda said: (
                self.problems.append(f"{said.type}: {said.text}")
                if said.type in {"error", "warning"}
                else None
            ),
        )

    def _note(self, request: Request) -> None:
        self.asked.append(request.url)
        if not request.url.startswith(f"{self.site.url}/"):
            self.problems.append(f"asked elsewhere: {request.url}")

    def open(self, path: str) -> None:
        answer = self.page.goto(f"{self.site.url}{path}")
        assert answer is not None
        assert answer.status == 200, (path, answer.status)

    def stop_clock(self) -> None:
        """Before a page is opened: its time passes only by ``page.clock.run_for``."""
        self.page.clock.install(time=NOW)
        # Until then it goes on; nothing is loaded yet that would notice.
        self.page.clock.pause_at(NOW + 3600)

    def graph(self, path: str) -> None:
        """Open a page and wait for its graph."""
        self.open(path)
        self.ready()

    def ready(self) -> None:
        self.page.wait_for_selector('.graph[data-state="ready"]')

    def asks(self, act: Callable[[], object]) -> dict[str, str]:
        """What the graph asks the server for after ``act``, once it is shown."""
        with self.page.expect_response(lambda answer: _is_graph(answer.url)) as found:
            act()
        self.page.wait_for_function(
            """() => document.querySelector(".graph").dataset.state === "ready" """
        )
        query = parse_qs(urlsplit(found.value.url).query)
        return {name: values[0] for name, values in query.items()}

    @property
    def query(self) -> dict[str, str]:
        """That of the page's own address."""
        found = parse_qs(urlsplit(self.page.url).query)
        return {name: values[0] for name, values in found.items()}

    def seconds(self) -> tuple[int, int]:
        """The span that the graph shows."""
        start, end = self.page.locator(".graph").get_attribute("data-shown").split()  # type: ignore[union-attr]
        return int(start), int(end)

    def text(self, selector: str) -> str:
        return self.page.locator(selector).first.inner_text()

    def evaluate(self, script: str, given: object = None) -> Any:
        return self.page.evaluate(script, given)

    def pixels(self, name: str) -> int:
        """How many pixels of the graph have that colour."""
        # Reading pixels is no use of a canvas that the page itself makes.
        self.expected.append("willReadFrequently")
        return int(self.evaluate(PIXELS, name))

    def left(self, moment: int) -> float:
        """Where a time lies on the plot, in pixels of the page."""
        start, end = self.seconds()
        box = self.page.locator(".u-over").bounding_box()
        assert box is not None
        return box["x"] + box["width"] * (moment - start) / (end - start)

    def point_at(self, moment: int) -> str:
        """Put the mouse on a time; what the graph then says."""
        box = self.page.locator(".u-over").bounding_box()
        assert box is not None
        self.page.mouse.move(self.left(moment), box["y"] + 20)
        return self.text(".graph-readout")

    def check(self) -> None:
        """Nothing went wrong, and nothing from a packet has run."""
        assert self.evaluate("() => window.hacked") is None
        found = [
            each for each in self.problems if not any(words in each for words in self.expected)
        ]
        assert found == []


def _is_graph(url: str) -> bool:
    return urlsplit(url).path.endswith(("/graph", "/access"))


@pytest.fixture
def new_tab(browser: Browser, site: Site) -> Iterator[Callable[..., Tab]]:
    """Makes tabs, each in a context of its own; at the end none may have a problem."""
    tabs: list[Tab] = []

    def make(**options: Any) -> Tab:
        # Not the server's zone, and not the one of the machine.
        settings = {"timezone_id": "America/New_York", "viewport": {"width": 1000, "height": 900}}
        context = browser.new_context(**{**settings, **options})
        context.set_default_timeout(PATIENCE * 1000)
        context.add_init_script(_VIOLATIONS)
        tab = Tab(context.new_page(), site)
        tab.watch()
        tabs.append(tab)
        return tab

    yield make
    for tab in tabs:
        tab.check()
        tab.page.context.close()


@pytest.fixture
def tab(new_tab: Callable[..., Tab]) -> Tab:
    """A tab on a desk's screen."""
    return new_tab()
