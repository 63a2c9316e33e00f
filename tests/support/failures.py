"""One test of many inputs: all of them are tried, and it tells which ones failed, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import pytest

T = TypeVar("T")


def failures(check: Callable[[T], object], inputs: Iterable[T]) -> dict[str, str]:
    """What was wrong with each input at which ``check`` failed; a test wants it to be empty."""
    found = {}
    for each in inputs:
        try:
            check(each)
        # An input that breaks the check is told as one that fails it; the others have their turn.
        except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001
            found[repr(each)[:200]] = f"{type(error).__name__}: {error}"
    return found
