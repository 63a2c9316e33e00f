"""The kinds of store that the tests of one file run on, where the others would add nothing.

A database of our own on MariaDB and Pandora's have the same columns (``test_schema.py``); they
differ in the keys of the history and of the counters, in the indexes and in the collation of
names.  What concerns none of this runs once on SQLite and once on MariaDB.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.databases import Database, opened


def database_of(*kinds: str) -> Any:
    """The fixture ``database`` for these kinds; a file assigns it to that name at its top."""

    @pytest.fixture(params=kinds)
    def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
        with opened(request.param, tmp_path) as new:
            yield new

    return database
