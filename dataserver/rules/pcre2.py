"""Perl regular expressions, with the system's PCRE2 library: compile, and search in bounded steps.

Only what thresholds need is bound: whether a pattern is found.  The interpreter is used, not the
just-in-time compiler, which has had more security holes and does not count its steps.  Compiled
code has at most 64 KiB, whatever a pattern repeats: offsets in it have two bytes, which is checked
when the library is loaded.

Source: pcre2api(3), pcre2pattern(3).  Numbers are those of ``pcre2.h``, stable since 10.30.
"""

from __future__ import annotations

import ctypes
import threading
from typing import Any, Final

from dataserver.errors import ConfigError

LIBRARY = "libpcre2-8.so.0"

#: Memory that one search may use for backtracking (KiB).
HEAP_LIMIT = 16_384

_UTF: Final = 0x00080000
_UCP: Final = 0x00020000  # \d, \w, \s and [:alpha:] by Unicode, as Perl has them
_NEVER_BACKSLASH_C: Final = 0x00100000
_ANCHORED: Final = 0x80000000
_NEWLINE_LF: Final = 2
_BSR_UNICODE: Final = 1
_INFO_ALLOPTIONS: Final = 0
_CONFIG_LINKSIZE: Final = 3
_NO_MATCH: Final = -1

_POINTER = ctypes.c_void_p
_NUMBER = ctypes.c_uint32
_SIZE = ctypes.c_size_t

#: Functions (less their suffix ``_8``): what they return, what they take.
_FUNCTIONS: Final[dict[str, tuple[Any, list[Any]]]] = {
    "pcre2_config": (ctypes.c_int, [_NUMBER, _POINTER]),
    "pcre2_compile_context_create": (_POINTER, [_POINTER]),
    "pcre2_set_newline": (ctypes.c_int, [_POINTER, _NUMBER]),
    "pcre2_set_bsr": (ctypes.c_int, [_POINTER, _NUMBER]),
    "pcre2_match_context_create": (_POINTER, [_POINTER]),
    "pcre2_set_heap_limit": (ctypes.c_int, [_POINTER, _NUMBER]),
    "pcre2_set_match_limit": (ctypes.c_int, [_POINTER, _NUMBER]),
    "pcre2_match_data_create": (_POINTER, [_NUMBER, _POINTER]),
    "pcre2_compile": (
        _POINTER,
        [
            ctypes.c_char_p,
            _SIZE,
            _NUMBER,
            ctypes.POINTER(ctypes.c_int),
            ctypes.POINTER(_SIZE),
            _POINTER,
        ],
    ),
    "pcre2_pattern_info": (ctypes.c_int, [_POINTER, _NUMBER, _POINTER]),
    "pcre2_code_free": (None, [_POINTER]),
    "pcre2_match": (
        ctypes.c_int,
        [_POINTER, ctypes.c_char_p, _SIZE, _SIZE, _NUMBER, _POINTER, _POINTER],
    ),
}


class InvalidPatternError(ValueError):
    """The text is not a regular expression, or one that is too large."""


class StepsExceededError(Exception):
    """A search exceeded its limit of steps or memory, or recursed without end."""


class Engine:
    """The library, with the contexts that every pattern shares; one search at a time.

    Raises:
        ConfigError: the system does not have the library.
    """

    def __init__(self, library: str = LIBRARY) -> None:
        self._library = pcre2 = _load(library)
        self._lock = threading.Lock()
        self._compiling = pcre2.pcre2_compile_context_create_8(None)
        self._matching = pcre2.pcre2_match_context_create_8(None)
        # Room for one pair of offsets: the position of a match is not used.
        self._data = pcre2.pcre2_match_data_create_8(1, None)
        if not (self._compiling and self._matching and self._data):
            raise MemoryError
        pcre2.pcre2_set_newline_8(self._compiling, _NEWLINE_LF)
        pcre2.pcre2_set_bsr_8(self._compiling, _BSR_UNICODE)
        pcre2.pcre2_set_heap_limit_8(self._matching, HEAP_LIMIT)

    def compile(self, text: str) -> Code:
        """The pattern ``text``, compiled.

        Raises:
            InvalidPatternError: it is invalid, or has more than 64 KiB when compiled.
        """
        try:
            pattern = text.encode()
        except UnicodeEncodeError as error:  # half a surrogate pair
            raise InvalidPatternError(str(error)) from error
        error_number, offset = ctypes.c_int(), _SIZE()
        pointer = self._library.pcre2_compile_8(
            pattern,
            len(pattern),
            _UTF | _UCP | _NEVER_BACKSLASH_C,
            ctypes.byref(error_number),
            ctypes.byref(offset),
            self._compiling,
        )
        if not pointer:
            raise InvalidPatternError(f"error {error_number.value} at byte {offset.value}")
        return Code(self, pointer)

    def is_anchored(self, pointer: int) -> bool:
        """Whether code can match in one place only, such as that of ``^up``."""
        options = _NUMBER()
        self._library.pcre2_pattern_info_8(pointer, _INFO_ALLOPTIONS, ctypes.byref(options))
        return bool(options.value & _ANCHORED)

    def search(self, pointer: int, value: bytes, steps: int) -> bool:
        """Whether code matches in ``value`` (UTF-8); see :meth:`Code.search`."""
        pcre2 = self._library
        with self._lock:  # ctypes lets other threads run, and the contexts are shared
            pcre2.pcre2_set_match_limit_8(self._matching, steps)
            result = pcre2.pcre2_match_8(
                pointer, value, len(value), 0, 0, self._data, self._matching
            )
        # Zero means a match with more groups than there is room for.
        if result < _NO_MATCH:
            raise StepsExceededError(f"error {result}")
        return bool(result != _NO_MATCH)

    def free(self, pointer: int) -> None:
        """Free the memory of code."""
        self._library.pcre2_code_free_8(pointer)


class Code:
    """A compiled pattern, which owns its memory."""

    __slots__ = ("_engine", "_pointer")

    def __init__(self, engine: Engine, pointer: int) -> None:
        self._engine = engine
        self._pointer = pointer

    def __del__(self) -> None:
        self._engine.free(self._pointer)

    @property
    def is_anchored(self) -> bool:
        """Whether it can match in one place only, such as ``^up``."""
        return self._engine.is_anchored(self._pointer)

    def search(self, value: bytes, steps: int) -> bool:
        """Whether it matches anywhere in ``value`` (UTF-8).

        Args:
            value: the text to search.
            steps: limit of the matcher's steps *from each starting position*.

        Raises:
            StepsExceededError: it needs more steps, or too much memory.
        """
        return self._engine.search(self._pointer, value, steps)


def _load(library: str) -> ctypes.CDLL:
    """The library with its functions' types."""
    try:
        pcre2 = ctypes.CDLL(library)
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(pcre2, f"{name}_8")
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        raise _unusable(str(error)) from error
    linksize = _NUMBER()
    pcre2.pcre2_config_8(_CONFIG_LINKSIZE, ctypes.byref(linksize))
    if linksize.value != 2:
        raise _unusable(f"{library} is built for patterns of any size (link size not 2)")
    return pcre2


def _unusable(reason: str) -> ConfigError:
    return ConfigError(
        f"cannot load the library for regular expressions: {reason}",
        hint="install PCRE2 10.30 or later (Debian: apt install libpcre2-8-0)",
    )
