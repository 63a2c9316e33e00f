"""The worker's outer loop: what it tells whoever started it."""

from __future__ import annotations

import os

from dataserver.config.load import load
from dataserver.config.paths import Home
from dataserver.config.settings import Settings
from dataserver.ingest.worker import Worker
from tests.support.waiting import wait_until


def test_that_the_configuration_is_read_again_is_not_told_as_an_end(home: Home) -> None:
    settings = load(home.instance(), os.environ)
    told: list[str] = []

    def reload() -> Settings:
        before = len(told)
        wait_until(lambda: len(told) > before, "the next beat")
        assert not any("STOPPING=1" in each for each in told), told
        worker.stop()
        return settings

    worker = Worker(settings, home.instance(), reload=reload, notify=told.append)
    worker.reread()
    worker.run()
    assert "STOPPING=1" in told[-1]
