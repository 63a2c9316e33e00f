"""What holds for every sequence of values: the status that grows with each value is that of a
reference which replays them all; events fit the statuses before and after them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import UTC

from hypothesis import given, settings
from hypothesis import strategies as st

from dataserver.model import Arrival, Packet
from dataserver.model import Module as Carried
from dataserver.rules import status
from dataserver.rules.events import MINOR, Event, forgotten_event, unknown_event
from dataserver.rules.status import FRESH, FRESH_ASYNC, Rules, Standing, Status
from dataserver.store.cache import AgentEntry, ModuleEntry
from dataserver.store.changes import Changes
from dataserver.store.evaluate import Evaluator
from dataserver.store.standing import standing_from
from tests.support.randomness import examples
from tests.support.replay import Happened, Level, Module, State, Sweep, Told, Value, replay

START = 1_767_225_600
LATER = 1_800_000_000

# -- what may happen ---------------------------------------------------------------------

TYPES = [
    *("generic_data", "generic_proc", "generic_data_string"),
    *("async_data", "async_proc", "async_string"),
]
#: Few numbers, so that values meet thresholds and each other; the last ones are of other signs.
THRESHOLDS = [0.0, 0.0, 0.0, 1.0, 10.0, 50.0, -5.0]
NUMBERS = ["0", "0", "1", "5", "10", "12", "50", "60", "-5", "-6", "0.5", "9.99999", "49.95"]
TEXTS = ["ok", "error 5", "warn: disk", "ERROR", "a.b", "7"]
PATTERNS = ["", "", "err", "^warn", "ok|a", "[", "\\d$", "."]
GIVEN = [None, None, None, None, "CRITICAL", "warning", "Normal", "odd"]
REFUSED = "none"

flags = st.booleans()
rarely = st.sampled_from([False, False, False, True])
limits = st.sampled_from([0, 0, 1, 2, 3, 300])

levels = st.builds(
    Level,
    min=st.sampled_from(THRESHOLDS),
    max=st.sampled_from(THRESHOLDS),
    text=st.sampled_from(PATTERNS),
    inverse=rarely,
    percentage=rarely,
)

modules = st.builds(
    Module,
    type=st.sampled_from(TYPES),
    critical=levels,
    warning=levels,
    warning_time=st.sampled_from([0, 0, 0, 1, 2]),
    ff_type=st.sampled_from([0, 0, 1]),
    min_ff_event=limits,
    each_ff=flags,
    min_ff_event_normal=limits,
    min_ff_event_warning=limits,
    min_ff_event_critical=limits,
    ff_timeout=st.sampled_from([0, 0, 400, 1000]),
    module_ff_interval=st.sampled_from([0, 30]),
    module_interval=st.sampled_from([300, 600]),
    quiet=rarely,
)


@dataclass(frozen=True)
class Sent:
    """One value as an agent sends it, so many seconds after the one before."""

    after: int
    number: str
    text: str
    given: str | None


#: The module is read again from the database, as it is there or as the console left it there.
RELOADED = "reloaded"

Todo = list[Sent | Sweep | Module | str]

_SETTABLE = sorted({each.name for each in fields(Module)} - {"type", "agent_interval"})


@st.composite
def histories(draw: st.DrawFn) -> tuple[Module, Todo]:
    """A module and what becomes of it: runs of few values, so that they are counted and meet."""
    module = first = draw(modules)
    numbers = draw(st.lists(st.sampled_from([*NUMBERS, REFUSED]), min_size=1, max_size=4))
    texts = draw(st.lists(st.sampled_from([*TEXTS, ""]), min_size=1, max_size=3))
    values = st.builds(
        Sent,
        after=st.sampled_from([300, 300, 300, 300, 0, 1, 900, -400]),
        number=st.sampled_from(numbers),
        text=st.sampled_from(texts),
        given=st.sampled_from(GIVEN),
    )
    todo: Todo = []
    for what in draw(st.lists(st.sampled_from("vvvvvvvsrcC"), max_size=14)):
        if what == "v":
            todo += [draw(values)] * draw(st.integers(1, 4))
        elif what == "s":
            todo.append(Sweep(0))
        elif what == "r":
            todo.append(RELOADED)
        else:
            # The console changes one thing, or all.
            names = _SETTABLE if what == "C" else [draw(st.sampled_from(_SETTABLE))]
            other = draw(modules)
            module = replace(module, **{name: getattr(other, name) for name in names})
            todo.append(module)
    return first, todo


# -- the server's way ------------------------------------------------------------------------


def rules_of(module: Module) -> Rules:
    return status.rules(
        min_critical=module.critical.min,
        max_critical=module.critical.max,
        min_warning=module.warning.min,
        max_warning=module.warning.max,
        str_critical=module.critical.text,
        str_warning=module.warning.text,
        critical_inverse=module.critical.inverse,
        warning_inverse=module.warning.inverse,
        percentage_critical=module.critical.percentage,
        percentage_warning=module.warning.percentage,
        warning_time=module.warning_time,
        each_ff=module.each_ff,
        min_ff_event=module.min_ff_event,
        min_ff_event_normal=module.min_ff_event_normal,
        min_ff_event_critical=module.min_ff_event_critical,
        min_ff_event_warning=module.min_ff_event_warning,
        ff_type=module.ff_type,
        ff_timeout=module.ff_timeout,
        module_ff_interval=module.module_ff_interval,
    )


class Server:
    """One module as the server has it: an entry of its cache, value after value."""

    def __init__(self, module: Module) -> None:
        self.evaluator = Evaluator(UTC, 16_000_000, 3650 * 86_400)
        self.agent = AgentEntry(1, "agent")
        self.module = module
        self.entry = ModuleEntry(1, "module")
        self.entry.stand(FRESH_ASYNC if module.is_async else FRESH)
        self.set(module)
        self.events: list[Event] = []
        #: The standing before and after each step, and what was told of it.
        self.steps: list[tuple[Standing, Standing, Event | None]] = []

    def set(self, module: Module) -> None:
        """The entry as it is read from the database after the console set ``module``."""
        old, new = self.entry, ModuleEntry(1, "module")
        new.value, new.time, new.saved = old.value, old.time, old.saved
        new.interval, new.quiet, new.rules = module.module_interval, module.quiet, rules_of(module)
        new.stand(standing_from(tuple(map(int, old.standing))))
        self.module, self.entry = module, new

    def value(self, text: str, time: int, told: str | None) -> None:
        before, batch = self.entry.standing, Changes(LATER)
        tags = {} if told is None else {"status": told}
        carried = Carried("module", self.module.type, text, (), tags)
        arrival = Arrival(Packet("agent", b""), time, 0, 0)
        types = frozenset(TYPES)
        self.evaluator.module(batch, self.agent, self.entry, carried, arrival, types, False)
        self._step(before, batch.events)

    def sweep(self, time: int) -> None:
        """As :mod:`dataserver.store.sweeps.unknown` does it, with SQL."""
        before = self.entry.standing
        if not self.entry.time:
            return
        if self.module.is_async:
            if before.status is Status.NORMAL:
                return
            after = Standing(*[Status.NORMAL] * 4, *before[4:])._replace(changed_at=time)
            told = forgotten_event(1, 1, "module", self.entry.value)
        else:
            if before.status is Status.UNKNOWN:
                return
            unknown = Status.UNKNOWN
            after = before._replace(status=unknown, last=unknown, changed_at=time)
            told = unknown_event(1, 1, "module", self.entry.value)
        self.entry.stand(after)
        self.set(self.module)
        self._step(before, [] if self.module.quiet else [told])

    def _step(self, before: Standing, events: list[Event]) -> None:
        assert len(events) <= 1
        self.events += events
        self.steps.append((before, self.entry.standing, events[0] if events else None))


def play(module: Module, todo: Todo) -> tuple[Server, list[Happened]]:
    """Let the server go through it; and what of it the reference is to know."""
    server = Server(module)
    happened: list[Happened] = []
    time, newest = START, 0
    for each in todo:
        if isinstance(each, str):
            server.set(server.module)
        elif isinstance(each, Module):
            server.set(each)
            happened.append(each)
        elif isinstance(each, Sweep):
            time += 1000
            server.sweep(time)
            happened.append(Sweep(time))
        else:
            at = max(time, newest) + each.after
            time = max(time, at)
            text = each.text if server.module.is_text else each.number
            server.value(text, at, each.given)
            if text not in ("", REFUSED) and at >= newest:
                newest = at
                kept = text if server.module.is_text else f"{float(text):.5f}"
                happened.append(Value(at, kept, each.given))
    return server, happened


def state_of(server: Server) -> State:
    s = server.entry.standing
    return State(
        *map(int, s[:4]),
        status_changes=s.changes,
        ff_normal=s.normal,
        ff_warning=s.warning,
        ff_critical=s.critical,
        ff_start=s.run_start,
        last_status_change=s.changed_at,
        warning_count=s.warnings,
        current_interval=server.entry.next_interval(),
    )


# -- what must hold ----------------------------------------------------------------------------


@settings(max_examples=examples(600, 5000))
@given(histories())
def test_the_status_after_each_value_is_that_of_a_replay_of_them_all(
    history: tuple[Module, Todo],
) -> None:
    module, todo = history
    server, happened = play(module, todo)
    state, told = replay(module, happened)
    found = state_of(server)
    if not happened or not isinstance(happened[-1], Value):
        # Only a value sets it.
        found.current_interval = state.current_interval
    assert found == state
    assert [(it.type, it.severity, it.data, it.module_status) for it in server.events] == [
        (it.type, it.severity, it.data, it.status) for it in told
    ]


@settings(max_examples=examples(100, 2000))
@given(histories())
def test_every_event_fits_the_status_before_and_after_it(history: tuple[Module, Todo]) -> None:
    module, todo = history
    server, _ = play(replace(module, quiet=False), [loud(it) for it in todo])
    shown = Status.NORMAL
    for before, after, event in server.steps:
        if event is None:
            silent = before.status is after.status or before.status is Status.NOT_INITIALISED
            assert silent
            assert before.status is after.status or after.status is Status.NORMAL
            continue
        assert event.module_status == after.status
        assert event.type in expected_types(before, after)
        # A normal value needs nobody's attention; that a module fell silent does.
        assert event.closed == (after.status is Status.NORMAL and event.severity != MINOR)
        shown = after.status
    assert server.entry.standing.status in (shown, Status.NOT_INITIALISED)


def loud(step: Sent | Sweep | Module | str) -> Sent | Sweep | Module | str:
    return replace(step, quiet=False) if isinstance(step, Module) else step


def expected_types(before: Standing, after: Standing) -> set[str]:
    if after.status is Status.WARNING:
        return {"going_down_warning" if before.known is Status.CRITICAL else "going_up_warning"}
    return {
        {
            Status.NORMAL: "going_down_normal",
            Status.CRITICAL: "going_up_critical",
            Status.UNKNOWN: "going_unknown",
        }[after.status]
    }


@settings(max_examples=examples(100, 2000))
@given(histories(), st.sampled_from([0, 1, 300, 5000]))
def test_a_steady_module_is_changed_by_no_value_of_its_status(
    history: tuple[Module, Todo], after: int
) -> None:
    module, todo = history
    server, _ = play(module, todo)
    settled = server.entry.settled
    if settled is None:
        return
    rules, standing, is_async = server.entry.rules, server.entry.standing, module.is_async
    step = status.advance(rules, standing, settled, LATER + after, is_async)
    assert step.standing == standing
    assert step.event_status is None


@given(modules, st.lists(st.sampled_from(list(Status)[:3]), max_size=8), st.sampled_from([0, 300]))
def test_any_number_of_equal_values_settles_in_the_end_and_shows_itself(
    module: Module, first: list[Status], after: int
) -> None:
    """Whatever came before: enough values of one status are that status."""
    rules = rules_of(replace(module, ff_timeout=0, warning_time=0))
    standing, time = FRESH, START
    for new in [*first, *[Status.CRITICAL] * 304]:
        time += after
        standing = status.advance(rules, standing, new, time, False).standing
    limit = rules.limits[Status.CRITICAL]
    assert standing.status is Status.CRITICAL or limit > 254
    assert standing.changes <= 255


def test_the_reference_and_the_server_tell_of_something() -> None:
    """The properties above would hold of a server that does nothing."""
    todo: Todo = [Sent(300, n, "", None) for n in ("0", "60", "12")]
    server, happened = play(Module(critical=Level(50, 0), warning=Level(10, 50)), todo)
    assert [event.type for event in server.events] == ["going_up_critical", "going_down_warning"]
    told: list[Told] = replay(server.module, happened)[1]
    assert len(told) == 2
