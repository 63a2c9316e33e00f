"""Whether the hosts of the pair match: compares what their instances wrote into the database.

It does no I/O.  What could not be compared never counts as equal, and each difference comes with
its remedy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from dataserver.store.processes import ServerProcess

#: The allowed difference of the hosts' clocks (seconds).
CLOCK_TOLERANCE = 1.0


class Outcome(StrEnum):
    """The result of a comparison."""

    EQUAL = "equal"
    DIFFERENT = "different"
    UNKNOWN = "not compared"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was compared, or could not be; ``text`` is the result, and what to do."""

    what: str
    outcome: Outcome
    text: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """All findings about ``hosts``, which is empty if there were not two to compare."""

    hosts: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def equal(self) -> bool:
        """Whether everything was compared and is equal."""
        return bool(self.hosts) and all(f.outcome is Outcome.EQUAL for f in self.findings)


@dataclass(frozen=True, slots=True)
class _Mark:
    """A fingerprint: how to get it, what to do if it differs, and why it may be missing."""

    what: str
    of: Callable[[ServerProcess], str | None]
    remedy: str
    absent: str


_MARKS = (
    _Mark(
        "SSH host keys",
        lambda seen: seen.host_keys,
        "copy /etc/ssh/ssh_host_*_key* from the host that agents know to the other one, with owner "
        "and mode, and restart sshd there",
        "its server can read no /etc/ssh/ssh_host_*_key.pub, or not all of them",
    ),
    _Mark(
        "authorized_keys",
        lambda seen: seen.authorized_keys,
        "copy uploads/authorized_keys in the home of the host that is right to the other one",
        "there is no uploads/authorized_keys in its home that its server can read",
    ),
    _Mark(
        "pair.toml",
        lambda seen: seen.pair,
        "copy keepalived/pair.toml in the home of the host that is right to the other one, and on "
        "both deploy what `dataserver keepalived render` makes of it",
        "there is no keepalived/pair.toml in its home that its server can read",
    ),
)


@dataclass(frozen=True, slots=True)
class _Host:
    name: str
    instances: dict[str, ServerProcess]


def compare(
    seen: Sequence[ServerProcess],
    live: float,
    named: Sequence[str] = (),
    wanted: Sequence[str] = (),
) -> Comparison:
    """Compare the two hosts that were seen, or of several those ``named`` in pair.toml.

    A host without a sign of life for ``live`` seconds is not compared.  ``wanted`` are the
    instances that pair.toml names.
    """
    names = sorted({each.host for each in seen})
    alive = [name for name in names if _live(name, seen, live).instances]
    chosen, trouble = _choose(names, alive, named)
    if trouble is not None:
        return Comparison((), (Finding("hosts", Outcome.UNKNOWN, trouble),))
    hosts = [_live(name, seen, live) for name in chosen]
    silent = [_silent(host.name, seen) for host in hosts if not host.instances]
    if silent:
        return Comparison((), tuple(silent))
    return Comparison(tuple(chosen), tuple(_compare(hosts[0], hosts[1], wanted)))


# -- which hosts --------------------------------------------------------------------


def _choose(
    names: Sequence[str], alive: Sequence[str], named: Sequence[str]
) -> tuple[list[str], str | None]:
    """The two hosts to compare, or why there are none."""
    shown = ", ".join(names)
    if not names:
        return [], "no server has been seen on this database in the last day; start both hosts"
    if named:
        # Live hosts first: a renamed host was also seen under its old name.
        found = {name: _called(name, alive) or _called(name, names) for name in named}
        absent = [name for name, host in found.items() if host is None]
        if absent:
            return [], (
                f"{' and '.join(absent)} of pair.toml not seen on this database in the last day "
                f"(seen: {shown}); start the instances there, with the same `database`, and check "
                "that its `hostname` is the name in pair.toml"
            )
        chosen = [host for host in found.values() if host is not None]
        if len(set(chosen)) == 2:
            return chosen, None
    if len(names) == 1:
        return [], (
            f"the twin of {shown} has not been seen on this database in the last day; start the "
            "instances there, with the same `database` (hosts are identified by their host names)"
        )
    if len(names) > 2:
        return [], (
            f"{len(names)} hosts use this database ({shown}); name the two of the pair in"
            " keepalived/pair.toml"
        )
    return list(names), None


def _called(name: str, hosts: Sequence[str]) -> str | None:
    """The host of this name, with or without its domain."""
    if name in hosts:
        return name
    short = name.partition(".")[0].casefold()
    found = [host for host in hosts if host.partition(".")[0].casefold() == short]
    return found[0] if len(found) == 1 else None


def _live(name: str, seen: Sequence[ServerProcess], live: float) -> _Host:
    here = (each for each in seen if each.host == name and not each.has_left)
    return _Host(name, {each.instance: each for each in here if abs(each.age) <= live})


def _silent(name: str, seen: Sequence[ServerProcess]) -> Finding:
    last = min((each for each in seen if each.host == name), key=lambda each: each.age)
    what = "its last instance stopped" if last.has_left else "its last sign of life was"
    text = f"{name}: {what} {int(max(last.age, 0))} s ago; start it, then check again"
    return Finding("hosts", Outcome.UNKNOWN, text)


# -- what is compared ---------------------------------------------------------------


def _compare(one: _Host, two: _Host, wanted: Sequence[str]) -> Iterator[Finding]:
    for mark in _MARKS:
        yield _compare_marks(mark, one, two)
    yield _compare_clocks(one, two)
    yield _compare_versions(one, two)
    for instance in sorted({*one.instances, *two.instances, *wanted}):
        here, there = one.instances.get(instance), two.instances.get(instance)
        if here is None and there is None:
            text = "pair.toml names it, and it runs on neither host; start it on both"
            yield Finding(f"instance {instance}", Outcome.UNKNOWN, text)
        elif here is None or there is None:
            on, off = (one, two) if there is None else (two, one)
            text = f"runs on {on.name} only; start it on {off.name}, or stop it on {on.name}"
            yield Finding(f"instance {instance}", Outcome.DIFFERENT, text)
        else:
            yield from _compare_instances(instance, here, there)


def _compare_marks(mark: _Mark, one: _Host, two: _Host) -> Finding:
    values = []
    for host in (one, two):
        found = {mark.of(each) for each in host.instances.values()} - {None}
        if not found:
            return Finding(mark.what, Outcome.UNKNOWN, f"{host.name}: {mark.absent}")
        if len(found) > 1:
            text = (
                f"the instances of {host.name} do not agree on it: check again in two minutes if "
                "it was just changed; otherwise they have different homes"
            )
            return Finding(mark.what, Outcome.UNKNOWN, text)
        values.append(found.pop())
    if values[0] == values[1]:
        return Finding(mark.what, Outcome.EQUAL, "equal")
    return Finding(mark.what, Outcome.DIFFERENT, f"they differ; {mark.remedy}")


def _compare_clocks(one: _Host, two: _Host) -> Finding:
    offsets = []
    for host in (one, two):
        newest = min(host.instances.values(), key=lambda each: abs(each.age))
        if newest.clock_offset is None:
            text = f"{host.name}: unknown, since the database answers it too slowly"
            return Finding("clock", Outcome.UNKNOWN, text)
        offsets.append(newest.clock_offset)
    ahead = offsets[0] - offsets[1]
    if abs(ahead) <= CLOCK_TOLERANCE:
        return Finding("clock", Outcome.EQUAL, f"{abs(ahead):.1f} s apart")
    first, second = (one, two) if ahead > 0 else (two, one)
    text = (
        f"{first.name} is {abs(ahead):.1f} s ahead of {second.name}; let both keep time by NTP "
        "(`timedatectl set-ntp true`)"
    )
    return Finding("clock", Outcome.DIFFERENT, text)


def _compare_versions(one: _Host, two: _Host) -> Finding:
    found = [
        ", ".join(sorted({each.version for each in host.instances.values()})) for host in (one, two)
    ]
    if found[0] == found[1] and "," not in found[0]:
        return Finding("version", Outcome.EQUAL, found[0])
    text = (
        f"{one.name} runs {found[0]}, {two.name} {found[1]}; install the same on both and restart "
        "all instances"
    )
    return Finding("version", Outcome.DIFFERENT, text)


def _compare_instances(instance: str, one: ServerProcess, two: ServerProcess) -> Iterator[Finding]:
    what = f"server name of {instance}"
    if one.server_name == two.server_name:
        yield Finding(what, Outcome.EQUAL, one.server_name)
    else:
        text = (
            f"{one.server_name} on {one.host}, {two.server_name} on {two.host}; set the same "
            f"`server_name` on both and restart {instance}"
        )
        yield Finding(what, Outcome.DIFFERENT, text)
    what = f"configuration of {instance}"
    silent = [each.host for each in (one, two) if each.configuration is None]
    if silent:
        text = f"{silent[0]}: its server does not report it; restart {instance} there"
        yield Finding(what, Outcome.UNKNOWN, text)
    elif one.configuration == two.configuration:
        yield Finding(what, Outcome.EQUAL, "equal")
    else:
        text = (
            "it differs; compare the output of `dataserver config show "
            f"{instance}` on both, correct dataserver.toml or instances/{instance}/instance.toml,"
            f" and restart {instance}"
        )
        yield Finding(what, Outcome.DIFFERENT, text)
