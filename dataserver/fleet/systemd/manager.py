"""Instances run by systemd: asked for and known through systemctl and journalctl.

Each is the unit ``dataserver@NAME.service``.  That an instance is meant not to run stands in its
folder as well (the marker ``disabled``), so that it is so whoever runs the home.
Sources: systemctl(1), org.freedesktop.systemd1(5) for the properties.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from dataserver.config import load
from dataserver.config.paths import Home, Paths
from dataserver.errors import DataserverError
from dataserver.fleet.model import Instance, Managed, RunState
from dataserver.fleet.registry import disable, enable
from dataserver.fleet.systemd import names
from dataserver.fleet.systemd import names as programs
from dataserver.fleet.systemd.names import RUNS, TEMPLATE, drop_in_path, unit

# -- what instances said, from systemd's journal
#
# Source: journalctl(1), systemd.journal-fields(7).

#: How much of a last word is kept, in characters.
_LAST = 300


def follow_journal(name: str, lines: int, *, follow: bool) -> Iterator[str]:
    """The last ``lines`` of the instance ``name``, and of systemd about it; then those to come.

    Raises DataserverError where the journal cannot be read.
    """
    command = ["journalctl", "--quiet", "--no-pager", "--output=cat", f"--lines={lines}"]
    command += [f"--unit={unit(name)}", *(["--follow"] if follow else [])]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=programs.environment(),
        )
    except OSError as exc:
        raise DataserverError(f"journalctl cannot be run: {exc.strerror}") from exc
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            for line in process.stdout:
                yield line.rstrip(b"\n").decode("utf-8", "surrogateescape")
            said = process.stderr.read()
            code = process.wait()
        finally:
            # Nothing where it has ended; else nobody reads it any more.
            process.kill()
    if code:
        raise programs.failed(("journalctl",), said, code)


def last_words(names: Sequence[str]) -> dict[str, str]:
    """The last line that each instance itself said, by name, as far as it can be read."""
    if not names:
        return {}
    by_unit = {unit(name): name for name in names}
    matches = [f"_SYSTEMD_UNIT={each}" for each in by_unit]
    options = ["--quiet", "--no-pager", "--output=json", "--lines=500"]
    fields = "--output-fields=MESSAGE,_SYSTEMD_UNIT"
    try:
        said = programs.run("journalctl", *options, fields, *matches)
    except DataserverError:
        # Not for everybody; what systemd says of it is for all.
        return {}
    words = {}
    for line in said.splitlines():
        entry = json.loads(line)
        # A line that is no UTF-8 comes as a list of bytes.
        if isinstance(text := entry.get("MESSAGE"), str) and entry.get("_SYSTEMD_UNIT") in by_unit:
            words[by_unit[entry["_SYSTEMD_UNIT"]]] = _message(text)
    return words


def _message(text: str) -> str:
    """What a line says, without what else is in it."""
    with suppress(ValueError, TypeError, KeyError):
        text = str(json.loads(text)["message"])
    return text.strip().removeprefix("dataserver: ")[:_LAST]


# -- manager --

_PROPERTIES = (
    "Id",
    "LoadState",
    "ActiveState",
    "SubState",
    "Result",
    "MainPID",
    "NRestarts",
    "ExecMainCode",
    "ExecMainStatus",
    "ConditionResult",
    "ActiveEnterTimestampMonotonic",
    "StateChangeTimestampMonotonic",
)
#: In the template: the home that it runs.
_HOME = "Home="

#: ActiveState and SubState to ours; a sub-state of its own wins over the state alone.
_STATES: Mapping[str, RunState] = {
    "activating/auto-restart": RunState.WAITING,
    "activating/auto-restart-queued": RunState.WAITING,
    "activating": RunState.STARTING,
    "active": RunState.RUNNING,
    "reloading": RunState.RUNNING,
    "refreshing": RunState.RUNNING,
    "deactivating": RunState.STOPPING,
    "inactive": RunState.STOPPED,
    "failed": RunState.FAILED,
    "maintenance": RunState.STOPPED,
}
#: What a Result means, where the process's end does not say it.
_RESULTS: Mapping[str, str] = {
    "watchdog": "was stuck, and was killed",
    "timeout": "did not start or stop in time",
    "protocol": "did not say that it is ready",
    "start-limit-hit": "was started too often",
    "oom-kill": "was killed since memory ran out",
    "resources": "could not be started: see `systemctl status`",
}


class Systemd:
    """The :class:`dataserver.fleet.model.Manager` of a home whose units are installed."""

    name = "systemd"

    def __init__(self, home: Home) -> None:
        self._home = home
        # Once, so that what does not change is told as the same.
        self._boot = time.time() - time.monotonic()

    @staticmethod
    def applies(home: Home) -> bool:
        """Whether systemd runs this machine, and its units are those of this home."""
        return RUNS.is_dir() and _installed_home() == os.path.realpath(home.root)

    def start(self, instance: Instance) -> None:
        """Have it run, now and after a restart of the machine."""
        _mark(enable, instance)
        self._allow_paths(instance)
        self._begin(instance, "start")

    def stop(self, instance: Instance) -> None:
        """Have it not run."""
        _mark(disable, instance)
        # Before "disable", after which systemd reads its files again.
        _place(drop_in_path(instance.name), "")
        names.run("systemctl", "--no-ask-password", "disable", unit(instance.name))
        names.run("systemctl", "--no-ask-password", "--no-block", "stop", unit(instance.name))

    def restart(self, instance: Instance) -> int | None:
        """Have it end in good order and start again; the process that it had."""
        before = self.states([instance]).get(instance.name)
        if not instance.enabled:
            _mark(enable, instance)
        self._allow_paths(instance)
        self._begin(instance, "restart")
        return before.pid if before else None

    def states(self, instances: Sequence[Instance]) -> dict[str, Managed]:
        """What systemd says of them, all asked at once."""
        if not instances:
            return {}
        units = {unit(instance.name): instance for instance in instances}
        said = names.run(
            "systemctl", "show", "--no-pager", f"--property={','.join(_PROPERTIES)}", *units
        )
        found = {
            units[properties["Id"]].name: properties
            for properties in _blocks(said)
            if properties.get("Id") in units and properties.get("LoadState") == "loaded"
        }
        enabled = {instance.name for instance in instances if instance.enabled}
        failing = [name for name, properties in found.items() if _failing(properties)]
        words = last_words(failing)
        return {
            name: _managed(properties, self._boot, name in enabled, words.get(name, ""))
            for name, properties in found.items()
        }

    def follow(self, instance: Instance, lines: int, *, follow: bool) -> Iterator[str]:
        """From the journal."""
        return follow_journal(instance.name, lines, follow=follow)

    def _begin(self, instance: Instance, how: str) -> None:
        name = unit(instance.name)
        # Fails where it has not run yet; there is nothing to forget then.
        names.run("systemctl", "--no-ask-password", "reset-failed", name, check=False)
        names.run("systemctl", "--no-ask-password", "enable", name)
        names.run("systemctl", "--no-ask-password", "--no-block", how, name)

    def _allow_paths(self, instance: Instance) -> None:
        """Let it reach what it has outside of the home, and no more; its settings say what."""
        # Imported here: templates are loaded where something is started only.
        from dataserver.fleet.systemd.units import Needs, drop_in  # noqa: PLC0415

        try:
            # Not our environment: systemd gives it another one.
            settings = load.load(instance.paths, {})
        except DataserverError:
            return  # It will say so itself.
        file = drop_in(self._home, instance.name, Needs.of(settings, self._home))
        if _place(file.path, file.text):
            names.run("systemctl", "--no-ask-password", "daemon-reload")


def _installed_home() -> str | None:
    """The home, without links, that the installed units run; None: there are none."""
    with suppress(OSError):
        for text in TEMPLATE.read_text("utf-8", "replace").splitlines():
            if text.startswith(_HOME):
                return os.path.realpath(text.removeprefix(_HOME).replace("%%", "%"))
    return None


def _blocks(said: str) -> Iterator[dict[str, str]]:
    """The properties of each unit; `systemctl show` puts an empty line between them."""
    for block in said.split("\n\n"):
        pairs = (text.partition("=") for text in block.splitlines())
        yield {key: value for key, _, value in pairs}


def _failing(properties: Mapping[str, str]) -> bool:
    """Whether it ended otherwise than it was meant to."""
    state = _state(properties)
    return state in (RunState.FAILED, RunState.WAITING) and properties.get("Result") != "success"


def _state(properties: Mapping[str, str]) -> RunState:
    active, sub = properties.get("ActiveState", ""), properties.get("SubState", "")
    return _STATES.get(f"{active}/{sub}") or _STATES.get(active, RunState.STOPPED)


def _managed(properties: Mapping[str, str], boot: float, enabled: bool, last: str) -> Managed:
    """``boot`` is the epoch time at which systemd's clock began."""
    state = _state(properties)
    runs = state is RunState.RUNNING
    when = _number(properties, "ActiveEnter" if runs else "StateChange", "TimestampMonotonic")
    detail = None
    if _failing(properties):
        detail = _why(properties, last)
    elif state is RunState.STOPPED and enabled:
        detail = "not started; `systemctl start dataserver.target` starts all that are enabled"
    return Managed(
        state=state,
        pid=_number(properties, "MainPID") or None,
        since=boot + when / 1e6 if when else None,
        restarts=_number(properties, "NRestarts"),
        detail=detail,
    )


def _number(properties: Mapping[str, str], *name: str) -> int:
    try:
        return int(properties.get("".join(name), ""))
    except ValueError:
        return 0


def _why(properties: Mapping[str, str], last: str) -> str:
    """Why it does not run, in one line."""
    result = properties.get("Result", "")
    status = _number(properties, "ExecMainStatus")
    if result == "exit-code":
        how = f"ended with exit code {status}"
    elif result in ("signal", "core-dump"):
        how = f"was ended by {_signal(status)}"
    else:
        how = _RESULTS.get(result, f"failed: {result}")
    # What it said before a signal says nothing of that.
    return f"{how} ({last})" if last and result == "exit-code" else how


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _mark(change: Callable[[Paths], None], instance: Instance) -> None:
    try:
        change(instance.paths)
    except OSError as exc:
        raise DataserverError(
            f"{instance.name} cannot be changed: {exc.filename}: {exc.strerror}",
            hint="what systemd runs is changed by root: try it with sudo",
        ) from exc


def _place(path: Path, text: str) -> bool:
    """Have ``path`` hold ``text``, empty: not be there; whether that changed anything."""
    old = path.read_text("utf-8", "replace") if path.is_file() else ""
    if old == text:
        return False
    try:
        if text:
            path.parent.mkdir(mode=0o755, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            path.chmod(0o644)
        else:
            path.unlink(missing_ok=True)
            with suppress(OSError):
                path.parent.rmdir()  # unless an administrator has something there
    except OSError as exc:
        raise DataserverError(
            f"{path} cannot be written: {exc.strerror}", hint="systemd's files take root"
        ) from exc
    return True
