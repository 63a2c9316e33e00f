"""Fixtures of the store tests."""

from __future__ import annotations

from tests.support.databases import database, mariadb, store_url

__all__ = ["database", "mariadb", "store_url"]
