"""Answers in JSON: records as objects by the names of their fields."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from itertools import chain
from pathlib import Path
from typing import Any

from starlette.responses import JSONResponse


def reply(thing: object, status: int = 200) -> JSONResponse:
    """``thing`` as JSON."""
    return JSONResponse(plain(thing), status)


def plain(thing: Any) -> Any:
    """Records, enumerations, tuples, paths as JSON values; NaN and infinity as null."""
    if isinstance(thing, Enum):
        return thing.name.lower() if isinstance(thing.value, int) else thing.value
    if isinstance(thing, str):
        return whole(thing)
    if thing is None or isinstance(thing, int | bool):
        return thing
    if isinstance(thing, float):
        return thing if math.isfinite(thing) else None
    if isinstance(thing, Mapping):
        return {whole(str(key)): plain(value) for key, value in thing.items()}
    if isinstance(thing, tuple) and hasattr(thing, "_fields"):
        return {name: plain(value) for name, value in zip(thing._fields, thing, strict=True)}
    if isinstance(thing, list | tuple | set | frozenset):
        return [plain(each) for each in thing]
    if is_dataclass(thing):
        return {field.name: plain(getattr(thing, field.name)) for field in fields(thing)}
    if isinstance(thing, Path):
        return whole(str(thing))
    raise TypeError(f"{type(thing).__name__} has no form in JSON")


def whole(text: str) -> str:
    """``text`` as valid UTF-8: a byte of a file name that is not a character as `\\udcff`."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def begun(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same pieces, the first one read already: its error still sets the status."""
    return chain([next(pieces, b"")], pieces)
