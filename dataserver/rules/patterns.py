"""Perl regular expressions in thresholds, with bounds on the time that matching takes.

A pattern comes from the console or from any uploader's packet, and so does the value.  So no
pattern is trusted: the size of its code is bounded when it is compiled, and each search in steps,
which are the same on every machine.  Three bounds apply in turn:

1. A search in a short value first gets few steps.  Usual patterns and values never need more.
2. A search that needs more, or in a long value, gets many steps; but all such searches
   together may take only a small share of the time (:class:`Allowance`).
3. A pattern that has exceeded the many steps three times rests: for a minute it only gets few.

An unfinished search counts as not found.  It is counted, and the pattern is reported once for each
rest, so that an operator can correct it.

What differs from Perl: ``docs/status.md``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import lru_cache

from dataserver.rules.pcre2 import Code, Engine, InvalidPatternError, StepsExceededError

#: Maximum length of a valid pattern (characters).
MAX_PATTERN = 4_096
#: Longer values are searched as if they ended here (characters).
MAX_VALUE = 16_384
#: Maximum length of a short value (characters).
SHORT_VALUE = 512
#: Steps of a search in a short value, and of any other one.
FEW_STEPS = 2_000
MANY_STEPS = 100_000
#: Number of unfinished searches after which a pattern rests, and for how long (s).
MAX_UNFINISHED = 3
REST = 60.0
#: Maximum number of resting patterns that are remembered until they are fetched.
MAX_REPORTED = 100
#: Patterns cached, valid or not, with their unfinished searches.
REMEMBERED = 4_096
#: Patterns whose code is cached; each has at most 64 KiB, and most a few hundred bytes.
COMPILED = 1_024

# Where "(*" opens a verb such as (*SKIP): not after a backslash, not in a class.  A class without
# an end extends to the end of the text, so any text is scanned only once.
_VERB = re.compile(
    r"\\. | \[\^?\]?(?: \\. | \[:\^?\w++:\] | [^\]\\] )*+(?:\]|\Z) | (?P<verb> \(\* )",
    re.DOTALL | re.VERBOSE,
)
# The whole pattern within itself.
_WHOLE = re.compile(r"\(\?(?:R|[+-]?0+)\)")
# One escape; that of a control character includes any next character, even a backslash.
_ESCAPE = re.compile(r"\\(c.|.)", re.DOTALL)
#: The escape for a character with its accents.  The engine searches backwards for its beginning: in
#: a row of flags (regional indicators) that is cubic time, an hour for one value, without counting
#: as a step.
_CLUSTER = "X"
#: Letters that a backslash gives no meaning.
_PLAIN = frozenset("EFIJLMOQTUYijlmquy")


class Allowance:
    """The time for searches with many steps: a share of all time, saved up to a limit.

    The last search may overdraw it by a second or so, which later ones have to wait for.
    """

    SHARE = 0.05
    MOST = 2.0  # s
    #: Time of each search that is not counted (s): twice what the longest value takes at least.
    FREE = 0.0005

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._left = self.MOST
        self._then = clock()

    def is_left(self) -> bool:
        """Whether there is time for one more search."""
        now = self._clock()
        self._left = min(self.MOST, self._left + (now - self._then) * self.SHARE)
        self._then = now
        return self._left > 0

    def spend(self, seconds: float) -> None:
        """Subtract the time that a search took."""
        self._left -= max(0.0, seconds - self.FREE)


class Patterns:
    """Compiles patterns, and holds what all patterns share: the engine, caches and time.

    Attributes:
        undecided: number of unfinished searches since the start.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.allowance = Allowance(clock)
        self.undecided = 0
        self._engine = Engine()
        self._resting: dict[str, None] = {}
        self.compiled = lru_cache(maxsize=REMEMBERED)(self._compiled)
        # Callers may keep any number of patterns; their code is only kept here.
        self.code = lru_cache(maxsize=COMPILED)(self._compile)

    def _compiled(self, text: str) -> Pattern | None:
        try:
            self.code(text)
        except InvalidPatternError:
            return None
        return Pattern(self, text)

    def fetch_resting(self) -> list[str]:
        """Patterns that began to rest since the last call, in order; at most MAX_REPORTED."""
        resting = list(self._resting)
        self._resting.clear()
        return resting

    def report_resting(self, text: str) -> None:
        """Remember that the pattern ``text`` begins to rest."""
        if len(self._resting) < MAX_REPORTED:
            self._resting[text] = None

    def _compile(self, text: str) -> Code:
        if len(text) > MAX_PATTERN:
            raise InvalidPatternError("too long")
        text = _as_perl_reads(text)
        if _WHOLE.search(text) or any(found["verb"] for found in _VERB.finditer(text)):
            raise InvalidPatternError("needs to be the whole pattern")
        if any(found[1] == _CLUSTER for found in _ESCAPE.finditer(text)):
            raise InvalidPatternError("takes unbounded time")
        code = self._engine.compile(text)
        return code if code.is_anchored else self._anywhere(text)

    def _anywhere(self, text: str) -> Code:
        """The pattern behind an anchored prefix that matches any text.

        The engine counts steps anew for each starting position, so a value of n characters would
        have n times the steps.  Anchored, it has only one starting position.
        """
        try:
            return self._engine.compile(rf"\A(?s:.*?)(?:{text})")
        except InvalidPatternError:
            # It is valid by itself, so its last line is a comment, (?x), which a line feed ends.
            return self._engine.compile(f"\\A(?s:.*?)(?:{text}\n)")


class Pattern:
    """A valid pattern."""

    __slots__ = ("_patterns", "_rests_until", "_text", "_unfinished")

    def __init__(self, patterns: Patterns, text: str) -> None:
        self._patterns = patterns
        self._text = text
        self._unfinished = 0
        self._rests_until = 0.0

    @property
    def text(self) -> str:
        """As the operator wrote it."""
        return self._text

    def matches(self, value: str) -> bool:
        """Whether it matches ``value``; also False if the search was not finished."""
        code = self._patterns.code(self._text)
        data = value[:MAX_VALUE].encode(errors="replace")
        if len(value) <= SHORT_VALUE:
            try:
                return code.search(data, FEW_STEPS)
            except StepsExceededError:
                pass
        return self._search_long(code, data)

    def _search_long(self, code: Code, data: bytes) -> bool:
        patterns = self._patterns
        begin = patterns.clock()
        if begin < self._rests_until or not patterns.allowance.is_left():
            patterns.undecided += 1
            return False
        try:
            return code.search(data, MANY_STEPS)
        except StepsExceededError:
            self._fail()
            return False
        finally:
            patterns.allowance.spend(patterns.clock() - begin)

    def _fail(self) -> None:
        patterns = self._patterns
        patterns.undecided += 1
        self._unfinished += 1
        if self._unfinished >= MAX_UNFINISHED:
            self._unfinished = MAX_UNFINISHED - 1  # after its rest, one more attempt
            self._rests_until = patterns.clock() + REST
            patterns.report_resting(self._text)


def _as_perl_reads(text: str) -> str:
    r"""``text`` without backslashes that have no meaning in Perl: ``\y`` is y.

    Among them are ``\Q``, ``\E``, ``\U`` and the like, since Perl interprets these only in a
    program's text, not in the text of a variable.
    """
    return _ESCAPE.sub(lambda found: found[1] if found[1] in _PLAIN else found[0], text)


#: The patterns of this process.
PATTERNS = Patterns()


def compiled(text: str) -> Pattern | None:
    """The pattern ``text``, or None if it is invalid: then there is no such threshold."""
    return PATTERNS.compiled(text)
