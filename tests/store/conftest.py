"""Fixtures of the store tests."""

from __future__ import annotations

from tests.support.databases import (
    database,
    mariadb,
    mariadb_database,
    pandora_database,
    store_url,
)

__all__ = ["database", "mariadb", "mariadb_database", "pandora_database", "store_url"]
