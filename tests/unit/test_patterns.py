"""Operators' regular expressions: what they mean, and that none of them holds the server up."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dataserver.errors import ConfigError
from dataserver.rules import patterns
from dataserver.rules.patterns import PATTERNS, Allowance, Patterns, compiled
from dataserver.rules.pcre2 import Engine, InvalidPatternError, StepsExceededError
from tests.support.clock import Clock
from tests.support.waiting import PATIENCE

#: What Perl says: True found, False not found, None invalid.
PERL = [
    # what operators write
    ("error", "an error 42", True),
    ("error", "ERROR", False),
    ("^error", "an error", False),
    ("warn|degraded", "status=degraded", True),
    ("(?i)ERROR", "error 42", True),
    ("[0-9]+%$", "100%", True),
    ("[0-9]+%$", "100% full", False),
    ("a(b", "a(b", None),
    ("^(?!.*OK)", "all OK", False),
    ("^(?!.*OK)", "down", True),
    ("(?<!in)active", "inactive", False),
    ("(.)\\1", "noon", True),
    ("|", "x", True),
    # ends, lines
    ("down$", "down\n", True),
    ("down\\Z", "down\n", True),
    ("down\\z", "down\n", False),
    ("\\Adown", "up\ndown", False),
    ("^down", "up\ndown", False),
    ("(?m)^down", "up\ndown", True),
    ("up.down", "up\ndown", False),
    ("(?s)up.down", "up\ndown", True),
    ("up.down", "up\rdown", True),
    ("\\R", "\r\n", True),
    ("\\N", "\n", False),
    ("\\Gb", "ab", False),
    # flags in the middle
    ("a(?i)b", "aB", True),
    ("a(?i)b", "AB", False),
    ("(?i:a)b", "AB", False),
    ("(?^:a)", "a", True),
    ("(?x) a b # ab", "ab", True),
    ("(?x) a b # (", "ab", True),
    ("(?xx)[a b]", " ", False),
    ("a(?#b)c", "ac", True),
    # Unicode
    ("\\d", "٣", True),
    ("\\w", "é", True),
    ("\\s", "\u00a0", True),
    ("^[[:alpha:]]+$", "éa", True),
    ("[[:word:]]", "é", True),
    ("\\bé", "né", False),
    ("(?i)É", "é", True),
    ("\\p{Greek}", "α", True),
    ("\\x{263a}", "☺", True),
    ("\\N{U+263A}", "☺", True),
    ("^\\x41\\o{101}\\101$", "AAA", True),
    ("^.$", "☺", True),
    # Perl's own
    ("\\h", "\t", True),
    ("\\H", "\t", False),
    ("\\v", "\n", True),
    ("a\\Kb", "ab", True),
    ("^a++ab", "aaab", False),
    ("^(?>a+)ab", "aaab", False),
    ("^(a(?1)?b)$", "aabb", True),
    ("^(a(?1)?b)$", "aab", False),
    ("(?<n>a)\\k<n>", "aa", True),
    ("(?P<n>a)(?P=n)", "aa", True),
    ("(?|(a)|(b))\\1", "bb", True),
    ("(a)?(?(1)b|c)", "c", True),
    # a pattern in a variable is not read again
    ("$x", "$x", False),
    ("@x", "@x", True),
    ("\\Qa.c\\E", "a.c", False),
    ("\\Qa.c\\E", "QabcE", True),
    ("\\\\Q", "\\Q", True),
    ("^[\\Q]$", "Q", True),
    ("\\Uerror\\L", "UerrorL", True),
    ("\\y", "y", True),
    # what is not special
    ("{", "{", True),
    ("a{", "a{", True),
    ("^a{x}$", "a{x}", True),
    ("]", "]", True),
    ("[(*]", "*", True),
    ("[^](*]", "*", False),
    ("[[:alpha:](*)]", "*", True),
    ("\\(*", "a", True),
    # invalid
    ("[a", "[a", None),
    ("+", "+", None),
    ("*a", "*a", None),
    ("a**", "a", None),
    ("a{2}{3}", "aaaaaa", None),
    ("\\p{Nothing}", "a", None),
    ("a)(b", "ab", None),
    ("(?{1})", "a", None),
    ("\\C", "a", None),
    ("[z-a]", "a", None),
    ("(*UTF)a", "a", None),
    ("(*LIMIT_MATCH=1)a", "a", None),
    ("\\8", "8", None),
    ("a\\", "a\\", None),
    ("[[:nothing:]]", "a", None),
]

#: Where this server differs from Perl, on purpose or not; docs/status.md says so.
#: Pattern, value, what Perl 5.36 says, what we say.
DIFFERENT = [
    ("(*SKIP)a", "a", True, None),
    ("^(?:a(?R)?b)", "ab", True, None),
    ("^(?:a|b(?0)?)", "b", True, None),
    ("^a{,2}b", "ab", True, False),
    ("(?<=a{1,3})b", "aab", True, None),
    ("(?C1)a", "a", None, True),
    ("\\b{wb}a", "a", True, False),
    ("[:alpha:]", "a", True, None),
    ("^?a", "a", True, None),
    ("{2,3}", "{2,3}", True, None),
    ("\\\\p{L}", "\\p{L}", None, True),
    ("(?i)ss", "\u00df\u263a", True, False),
]

#: Reads patterns and values, each ended by a NUL; says of each pair found, none or invalid.
PERL_PROGRAM = """
    no warnings; binmode STDIN, ":utf8"; local $/ = "\\0";
    while (defined(my $pattern = <STDIN>)) {
        chomp $pattern;
        chomp(my $value = <STDIN>);
        my $found = eval { $value =~ /$pattern/ ? "found" : "none" };
        print $found // "invalid", "\\n";
    }
"""

#: Each takes longer than the stars last, if nobody stops it.
PATHOLOGICAL = [
    ("(a+)+$", "a" * 40 + "b"),
    ("(a|aa)+$", "a" * 60 + "b"),
    ("^(?:a?){40}a{40}$", "a" * 39 + "ba"),
    ("^(\\w+\\s?)*\\$$", "word " * 20 + "$!"),
    ("^(([a-z])+.)+[A-Z]([a-z])+$", "a" * 60),
    ("(?:(?=[^b]*+)a??){1000}c", "a" * 1_200 + "bc"),
]

#: Small texts that mean large things.
BOMBS = [
    "((a{1,999}){1,999}){1,999}",
    "(?:(?:(?:a?){60}){60}){10}",
    "(?:a|b){1,60000}",
    "(x)(?1){1,60000}",
    "(" * 300 + ")" * 300,
    "(?:" + "()" * 160 + "){500}",
    "(?:" + "(?:" * 60 + "a|b" + "){2}" * 14 + ")*" * 46 + ")",
    "a" * (patterns.MAX_PATTERN + 1),
    "[" * patterns.MAX_PATTERN,
]


#: The share of time that dear searches have does not depend on how slow this machine is.
STANDING = Patterns(Clock())


def found(pattern: str, value: str) -> bool | None:
    """What this server says: None is invalid."""
    it = STANDING.compiled(pattern)
    return None if it is None else it.matches(value)


def test_a_pattern_means_what_it_means_to_perl():
    assert [row for row in PERL if found(*row[:2]) is not row[2]] == []


def test_the_known_differences_are_these():
    assert [row for row in DIFFERENT if found(*row[:2]) is not row[3]] == []


def test_perl_itself_says_what_the_tables_say():
    rows = [*PERL, *(row[:3] for row in DIFFERENT)]
    done = subprocess.run(
        ["perl", "-e", PERL_PROGRAM],
        input="".join(f"{pattern}\0{value}\0" for pattern, value, _ in rows).encode(),
        capture_output=True,
        check=True,
        timeout=PATIENCE,
    )
    meaning = {"found": True, "none": False, "invalid": None}
    said = [meaning[word] for word in done.stdout.decode().split()]
    wrong = [(row, ours) for row, ours in zip(rows, said, strict=True) if ours is not row[2]]
    assert wrong == []


def test_the_patterns_of_a_process_are_compiled_once():
    it = compiled("^error")
    assert it is compiled("^error")
    assert it is PATTERNS.compiled("^error")
    assert it is not None
    assert it.matches("error 42")
    assert compiled("a(b") is None


def test_a_search_without_end_is_given_up_and_counted():
    mine = Patterns(Clock())
    its = [mine.compiled(pattern) for pattern, _ in PATHOLOGICAL]
    assert None not in its
    found = [it.matches(value) for it, (_, value) in zip(its, PATHOLOGICAL, strict=True)]
    assert found == [False] * len(PATHOLOGICAL)
    assert mine.undecided == len(PATHOLOGICAL)


def test_a_search_is_bounded_also_where_it_begins_anew_at_each_character():
    # Each beginning takes a thousand steps, which is little; of all of them it is a million.
    code = Patterns(Clock()).code("a(?:b|c){0,1000}d")
    with pytest.raises(StepsExceededError):
        code.search(("a" + "b" * 1_000).encode() * 1_000, patterns.MANY_STEPS)


def test_memory_of_a_search_is_bounded(monkeypatch):
    monkeypatch.setattr("dataserver.rules.pcre2.HEAP_LIMIT", 100)
    code = Engine().compile("^(?:a|b)*$")
    assert code.search(b"ab" * 50, 1_000_000)
    with pytest.raises(StepsExceededError, match="-63"):
        code.search(b"ab" * 50_000, 1_000_000)


def test_endless_recursion_is_no_match():
    mine = Patterns(Clock())
    it = mine.compiled("(a?(?1))b")
    assert it is None or it.matches("aab") is False


def test_what_grows_when_compiled_is_refused():
    assert [bomb[:80] for bomb in BOMBS if compiled(bomb) is not None] == []


def test_looking_for_verbs_goes_through_a_text_once():
    # A class without an end is one find; tried anew at each bracket it would be thousands.
    assert len(list(patterns._VERB.finditer("[:" * 2_000))) == 1
    assert compiled("(?#" + "[" * 4_000 + ")a") is not None


def test_clusters_which_take_cubic_time_without_a_step_are_refused():
    texts = [r"\X*+1", r"\c\\X", r"(?#[)\X", r"(?#\)\X", "(?x) #\\c\n\\X", r"\\\X"]
    assert [text for text in texts if compiled(text) is not None] == []


def test_an_x_behind_a_backslash_that_is_meant_is_none_of_them():
    assert found(r"C:\\Xerox", "in C:\\Xerox") is True
    assert found(r"\c\X", "\x1cX") is True


def test_a_pattern_may_be_long():
    names = "|".join(f"server{number}" for number in range(400))
    assert len(names) < patterns.MAX_PATTERN
    assert found(names, "server399 is down") is True


def test_a_pattern_that_runs_out_of_steps_rests_and_is_tried_again():
    clock = Clock()
    mine = Patterns(clock)
    it = mine.compiled("(a+)+$")
    tried = counting(mine, it)
    bad = "a" * 40 + "b"
    for _ in range(10):
        assert it.matches(bad) is False
    assert tried.count(patterns.MANY_STEPS) == patterns.MAX_UNFINISHED
    assert mine.undecided == 10
    assert mine.fetch_resting() == ["(a+)+$"]
    assert mine.fetch_resting() == []
    # Meanwhile, what needs few steps is judged as ever.
    assert it.matches("aaa") is True
    clock.advance(patterns.REST)
    for _ in range(10):
        assert it.matches(bad) is False
    assert tried.count(patterns.MANY_STEPS) == patterns.MAX_UNFINISHED + 1
    assert mine.fetch_resting() == ["(a+)+$"]


def test_all_dear_searches_together_have_a_share_of_the_time():
    clock = Clock(step=0.25)
    mine = Patterns(clock)
    its = [mine.compiled(f"(a+)+${'|never' * number}") for number in range(40)]
    tried = [counting(mine, it) for it in its]
    begin = clock.now
    for it in its:
        it.matches("a" * 40 + "b")
    dear = sum(one.count(patterns.MANY_STEPS) for one in tried)
    # Each takes 0.25 s by this clock.
    assert 0 < dear * 0.25 <= Allowance.MOST + (clock.now - begin) * Allowance.SHARE + 0.25
    assert mine.undecided == 40
    # Cheap ones go on, and dear ones after a while.
    assert its[0].matches("aaa") is True
    clock.advance(60)
    before = len(tried[-1])
    its[-1].matches("a" * 40 + "b")
    assert patterns.MANY_STEPS in tried[-1][before:]


def test_searches_that_take_next_to_no_time_use_nothing_up():
    clock = Clock(step=Allowance.FREE / 4)
    mine = Patterns(clock)
    it = mine.compiled("error")
    for _ in range(20_000):  # five seconds in all, by this clock
        assert it.matches("x" * 600 + "error") is True
    assert mine.undecided == 0


def counting(mine, it):
    """The steps that each search of a pattern was given; its code is replaced."""
    tried = []
    code = mine.code(it._text)

    class Counting:
        def search(self, value, steps):
            tried.append(steps)
            return code.search(value, steps)

    real = mine.code
    text = it._text
    mine.code = lambda asked: Counting() if asked == text else real(asked)
    return tried


def test_a_long_value_is_searched_up_to_a_bound():
    most = patterns.MAX_VALUE
    assert found("error", "x" * (most - 5) + "error") is True
    assert found("error", "x" * (most - 4) + "error") is False
    assert found("x$", "x" * (most * 2) + "error") is True
    assert found("error", "x" * 600 + "error") is True


def test_one_pattern_is_one_object_and_what_is_kept_is_bounded():
    mine = Patterns(Clock())
    assert mine.compiled("same") is mine.compiled("same")
    for number in range(patterns.REMEMBERED + 10):
        mine.compiled(f"p{number}")
    assert mine.compiled.cache_info().currsize == patterns.REMEMBERED
    assert mine.code.cache_info().currsize == patterns.COMPILED
    # A pattern outlives its code.
    first = mine.compiled("same")
    mine.code.cache_clear()
    assert first.matches("the same") is True


def test_what_is_told_of_resting_patterns_is_bounded():
    mine = Patterns(Clock())
    for number in range(patterns.MAX_REPORTED * 2):
        mine.report_resting(f"p{number}")
    assert mine.fetch_resting() == [f"p{number}" for number in range(patterns.MAX_REPORTED)]


def test_code_gives_its_memory_back(monkeypatch):
    engine = Engine()
    freed = []
    free = engine.free
    monkeypatch.setattr(engine, "free", lambda pointer: (freed.append(pointer), free(pointer)))
    code = engine.compile("a")
    with pytest.raises(InvalidPatternError):
        engine.compile("(")
    del code
    assert len(freed) == 1


def test_a_system_without_the_library_is_told_what_to_install():
    for library in ("libnothing.so.9", "libc.so.6"):
        with pytest.raises(ConfigError, match="install PCRE2"):
            Engine(library)


half = st.characters(codec=None)
odd = st.lists(
    st.one_of(
        st.text(alphabet=half, max_size=3),
        st.sampled_from(
            [
                *["(", ")", "(?:", "(?=", "(?<!", "[", "[^", "]", "[:alpha:]", "*", "+?", "{2,3}"],
                *["\\", "\\Q", "\\E", "\\1", "\\K", "\\b", "(?1)", "(?i)", "(?x)#", "|", ".*", "^"],
                *["$", "(*ACCEPT)", "(?|", "(?(1)", "\\p{L}", "\\x{41}", "\0", "\ud800", "\n", "a"],
            ]
        ),
    ),
    max_size=12,
).map("".join)


@given(pattern=odd, value=st.text(alphabet=half, max_size=60))
@example(pattern="\ud800", value="a")
@example(pattern="a", value="\ud800")
@example(pattern="a\0b", value="a\0b")
def test_no_text_raises(pattern, value):
    assert found(pattern, value) in (True, False, None)


def test_what_is_no_character_matches_as_a_question_mark():
    assert found("^a.b$", "a\ud800b") is True
    assert found("a\0b", "a\0b") is True
