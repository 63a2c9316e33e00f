"""Operators' regular expressions, as Perl reads them, with a bound on the time they take.

A pattern comes from the console or, in a packet, from anybody, and so does the value.  So no
pattern is trusted: what it may multiply is bounded when it is compiled, and each search in steps,
a thing that is the same on every machine.  Three bounds hold in turn:

1. A short value is searched in few steps, always.  Everyday's patterns and values never need more.
2. What needs more, and every long value, gets many steps; but the time that all such searches
   take together is a small share of all time (:class:`Allowance`).
3. A pattern that ran out of many steps three times rests: for a minute it gets few steps only.

A search that came to no end counts as not found: the server does not know.  It is counted, and
the pattern is told once for each rest, so somebody can mend it.

What differs from Perl: ``docs/status.md``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import lru_cache

from dataserver.rules.pcre2 import Code, Engine, InvalidPatternError, StepsExceededError

#: A longer pattern is invalid (characters).
MAX_PATTERN = 4_096
#: Longer values are searched up to here, as if they ended there (characters).
MAX_VALUE = 16_384
#: A value is short up to here (characters), and then has so many steps.
SHORT_VALUE = 512
FEW_STEPS = 2_000
MANY_STEPS = 100_000
#: A pattern rests after so many searches in vain, and so long (s).
MAX_VAIN = 3
REST = 60.0
#: What is told of patterns that rest is bounded, since what is not fetched must not pile up.
MAX_TOLD = 100
#: Patterns remembered, valid or not, with how they fared.
REMEMBERED = 4_096
#: Patterns of which the code is kept; each has at most 64 KiB, and most a few hundred bytes.
COMPILED = 1_024

# Where "(*" opens a verb such as (*SKIP): not behind a backslash, not in a class.  A class
# without an end takes all that is left, so a text is looked through once, whatever it is.
_VERB = re.compile(
    r"\\. | \[\^?\]?(?: \\. | \[:\^?\w++:\] | [^\]\\] )*+(?:\]|\Z) | (?P<verb> \(\* )",
    re.DOTALL | re.VERBOSE,
)
# The whole pattern within itself.
_WHOLE = re.compile(r"\(\?(?:R|[+-]?0+)\)")
# One escape; that of a control character takes any character, a backslash too.
_ESCAPE = re.compile(r"\\(c.|.)", re.DOTALL)
#: A character with its accents.  The engine looks for its beginning backwards: in a row of
#: flags (regional indicators) that is cubic time, an hour for one value, and counts as no step.
_CLUSTER = "X"
#: Letters that a backslash gives no meaning.
_PLAIN = frozenset("EFIJLMOQTUYijlmquy")


class Allowance:
    """Time for dear searches: a share of all time, saved up to a limit.

    The last search may overdraw it, by a second or so; that is made up for later.
    """

    SHARE = 0.05
    MOST = 2.0  # s
    #: What each search has for nothing (s): twice what the longest value takes by itself.
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
        """Take what a search took."""
        self._left -= max(0.0, seconds - self.FREE)


class Patterns:
    """Compiles patterns and searches values; what all patterns share is here.

    Attributes:
        undecided: how many searches came to no end, since the start.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.allowance = Allowance(clock)
        self.undecided = 0
        self._engine = Engine()
        self._told: dict[str, None] = {}
        self.compiled = lru_cache(maxsize=REMEMBERED)(self._compiled)
        # Patterns are kept by whoever uses them, and may be many; their code only here.
        self.code = lru_cache(maxsize=COMPILED)(self._compile)

    def _compiled(self, text: str) -> Pattern | None:
        try:
            self.code(text)
        except InvalidPatternError:
            return None
        return Pattern(self, text)

    def fetch_resting(self) -> list[str]:
        """Patterns that began to rest since this was asked last, in order; at most 100."""
        resting = list(self._told)
        self._told.clear()
        return resting

    def tell(self, text: str) -> None:
        """The pattern ``text`` begins to rest."""
        if len(self._told) < MAX_TOLD:
            self._told[text] = None

    def _compile(self, text: str) -> Code:
        if len(text) > MAX_PATTERN:
            raise InvalidPatternError("too long")
        text = _as_perl_reads(text)
        if _WHOLE.search(text) or any(found["verb"] for found in _VERB.finditer(text)):
            raise InvalidPatternError("needs to be the whole pattern")
        if any(found[1] == _CLUSTER for found in _ESCAPE.finditer(text)):
            raise InvalidPatternError("takes time beyond all bounds")
        code = self._engine.compile(text)
        return code if code.is_anchored else self._anywhere(text)

    def _anywhere(self, text: str) -> Code:
        """The pattern, moved along the value by an expression of ours.

        The engine counts steps anew wherever it begins, so a value of n characters would have n
        times the steps.  Beginning in one place only, it has them once.
        """
        try:
            return self._engine.compile(rf"\A(?s:.*?)(?:{text})")
        except InvalidPatternError:
            # It is valid by itself, so its last line is a comment, (?x): this ends with the line.
            return self._engine.compile(f"\\A(?s:.*?)(?:{text}\n)")


class Pattern:
    """A valid pattern."""

    __slots__ = ("_patterns", "_rests_until", "_text", "_vain")

    def __init__(self, patterns: Patterns, text: str) -> None:
        self._patterns = patterns
        self._text = text
        self._vain = 0
        self._rests_until = 0.0

    @property
    def text(self) -> str:
        """As the operator wrote it."""
        return self._text

    def matches(self, value: str) -> bool:
        """Whether it is found in ``value``; False also if that could not be found out in time."""
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
        self._vain += 1
        if self._vain >= MAX_VAIN:
            self._vain = MAX_VAIN - 1  # after its rest it has one more try
            self._rests_until = patterns.clock() + REST
            patterns.tell(self._text)


def _as_perl_reads(text: str) -> str:
    r"""``text`` without backslashes that mean nothing to Perl: ``\y`` is y.

    Among them are ``\Q``, ``\E``, ``\U`` and their like, since Perl looks for these in a program's
    text, not in the text of a variable.
    """
    return _ESCAPE.sub(lambda found: found[1] if found[1] in _PLAIN else found[0], text)


#: Those of this process.
PATTERNS = Patterns()


def compiled(text: str) -> Pattern | None:
    """The pattern ``text``; None: it is invalid, and its threshold counts as none."""
    return PATTERNS.compiled(text)
