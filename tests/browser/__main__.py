"""Pictures of the console for the docs: ``python -m tests.browser OUT_DIR``.

Starts a demo on a home that goes at the end, takes the pictures, and ends it.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.conftest import CHROMIUM
from tests.support.commands import COMMAND
from tests.support.waiting import PATIENCE, wait_until

#: No picture may be larger, in bytes: they lie in the repository.
LARGEST = 200_000
_DESK = {"width": 1000, "height": 760}
_PHONE = {"width": 360, "height": 900}


class Shot(NamedTuple):
    """One picture: a page of the console, or the part of it that ``selector`` means."""

    name: str
    path: str
    selector: str = ""
    dark: bool = False
    viewport: dict[str, int] = _DESK


def main(arguments: list[str]) -> None:
    """Take all pictures into the folder named."""
    if len(arguments) != 1:
        sys.exit(__doc__)
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    with _demo() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for shot in _shots(url):
            if shot.path == "/":
                _wait_for_packets(url)
            target = folder / f"{shot.name}.png"
            _take(browser, url, shot, target)
            size = target.stat().st_size
            print(f"{target}  {size:,} bytes")
            assert size < LARGEST, f"{target} is too large"
        browser.close()


def _shots(url: str) -> list[Shot]:
    """What is shown of the demo: found by name, since its ids may be others tomorrow."""
    silent = _agent(url, "erp-old")
    store = _agent(url, "coldstore")
    branch = _agent(url, "branch-north")
    load = _module(url, silent, "Load average")
    temperature = _module(url, store, "Temperature")
    return [
        Shot("agents", "/agents"),
        Shot("agent", f"/agents/{store}"),
        Shot("access", f"/agents/{branch}?from=-1d", ".graph"),
        Shot("module", f"/modules/{load}?from=-3d"),
        Shot("module-dark", f"/modules/{temperature}?from=-1w", dark=True),
        Shot("phone", f"/modules/{temperature}?from=-3d", viewport=_PHONE),
        # Last: by then the server has told how many packets it takes.
        Shot("servers", "/"),
    ]


def _take(browser: Browser, url: str, shot: Shot, target: Path) -> None:
    context = browser.new_context(
        viewport=shot.viewport,  # type: ignore[arg-type]  # a dict as good as theirs
        color_scheme="dark" if shot.dark else "light",
        reduced_motion="reduce",
    )
    context.set_default_timeout(1000 * PATIENCE)
    page = context.new_page()
    page.goto(f"{url}{shot.path}")
    _settle(page)
    whole = page.locator(shot.selector) if shot.selector else page
    whole.screenshot(path=target)
    context.close()


def _wait_for_packets(url: str) -> None:
    """Until some host is known to take packets: how many it takes is told now and then."""
    wait_until(
        lambda: "takes the packets" in httpx.get(url, timeout=PATIENCE).text,
        "a server that takes packets",
        pause=1,
    )


def _settle(page: Page) -> None:
    page.wait_for_load_state("networkidle")
    if page.locator(".graph").count():
        page.wait_for_selector('.graph[data-state="ready"]')


def _agent(url: str, name: str) -> int:
    found = _json(f"{url}/api/agents", q=name)["rows"]
    return next(int(row["agent"]["id"]) for row in found if row["agent"]["name"] == name)


def _module(url: str, agent: int, name: str) -> int:
    found = _json(f"{url}/api/agents/{agent}", q=name)["modules"]
    return next(int(row["module"]["id"]) for row in found if row["module"]["name"] == name)


def _json(url: str, **query: str) -> Any:
    return httpx.get(url, params=query).raise_for_status().json()


@contextmanager
def _demo() -> Iterator[str]:
    """A demo that runs, on any free port; where its console answers."""
    command = ["setpriv", "--pdeathsig", "TERM", str(COMMAND), "demo", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            lines = (re.match(r"http://\S+", line) for line in process.stdout)
            yield next(found[0].rstrip("/") for found in lines if found)
        finally:
            process.send_signal(signal.SIGINT)


if __name__ == "__main__":
    main(sys.argv[1:])
