"""The lab for the tests: one for a module, and a new one after a test that failed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.failover import network
from tests.failover.lab import Lab, lab
from tests.failover.measure import Outcome, measure

#: Does a fault to the pair with this `advert_int`, and says what came of it.
Try = Callable[..., Outcome]


class Labs:
    """The lab that is there, if any."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stack = ExitStack()
        self._lab: Lab | None = None
        self._count = 0

    def get(self) -> Lab:
        if self._lab is None:
            self._count += 1
            folder = self._directory / f"lab{self._count}"
            folder.mkdir()
            self._lab = self._stack.enter_context(lab(folder, advert_int=1.0))
        return self._lab

    def close(self) -> None:
        """The end of it; the next test gets another one."""
        self._lab = None
        self._stack.close()


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labs]:
    if why := network.unfit():
        if os.environ.get("ALLOW_SKIP") == "1":
            pytest.skip(why)
        pytest.fail(f"{why}; ALLOW_SKIP=1 leaves these tests out")
    made = Labs(tmp_path_factory.mktemp("failover"))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def attempt(labs: Labs) -> Try:
    """Do a fault; a lab in which something went wrong is not used again."""

    def run(fault: str, *, advert_int: float = 1.0) -> Outcome:
        try:
            there = labs.get()
            if there.advert_int != advert_int:
                there.form_pair(advert_int)
            outcome = measure(there, fault)
        except BaseException:
            labs.close()
            raise
        if outcome.lost or outcome.twice or outcome.wrong:
            labs.close()
        return outcome

    return run
