"""A real browser on a real console, and everything that it complains about.

Debian's chromium, without a window.  One for each module of tests, since starting it takes its
time; each test has a context of its own, as a person with a fresh profile would.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Browser, Page, Request, sync_playwright

from tests.conftest import COMMAND
from tests.support import exhibits
from tests.support.consoles import running_console
from tests.support.databases import SQLITE, opened
from tests.support.exhibits import Exhibit
from tests.support.server import PATIENCE, Place

CHROMIUM = "/usr/bin/chromium"
#: A file name and a content that a page must show as they are.
REJECTED = "<img src=x onerror=window.hacked=1>.1.data"
CONTENT = b'<agent_data agent_name=""><script>window.hacked=1</script></agent_data>'

_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) => {
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`);
});
"""


@dataclass(frozen=True)
class Site:
    """A console, and what it shows."""

    url: str
    shown: Exhibit

    def module(self, name: str, query: str = "") -> str:
        return f"/modules/{self.shown.modules[name]}{query}"

    def agent(self, query: str = "") -> str:
        return f"/agents/{self.shown.agent}{query}"


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A home with an agent's two days and a rejected packet, shown by the installed command."""
    root = tmp_path_factory.mktemp("site") / "home"
    place = Place(root, "sqlite:///var/dataserver.db")
    with opened(SQLITE, root) as database:
        shown = exhibits.fill(database, int(time.time()))
    place.drop(REJECTED, CONTENT)
    once = [str(COMMAND), "--home", str(root), "run", "--once"]
    subprocess.run(once, check=True, capture_output=True, timeout=PATIENCE)
    assert [packet.name for packet in place.rejected()] == [REJECTED]
    with running_console(root) as url:
        yield Site(url.rstrip("/"), shown)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; it runs as root in a container, where it can make no sandbox of its own."""
    assert Path(CHROMIUM).exists(), "the tests in a browser need Debian's package chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
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
