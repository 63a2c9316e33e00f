"""Instances run by systemd: controlled through systemctl, their logs read by journalctl.

Each is the unit ``dataserver@NAME.service``.  Disabling an instance also sets the marker
``disabled`` in its folder, so that any other manager of the home respects it.
Sources: systemctl(1), org.freedesktop.systemd1(5) for the properties, journalctl(1),
systemd.journal-fields(7).
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

from dataserver.config.load import load
from dataserver.config.paths import Home, Paths
from dataserver.errors import DataserverError
from dataserver.fleet.model import Instance, Managed, RunState
from dataserver.fleet.registry import disable, enable
from dataserver.fleet.systemd.names import (
    RUNS,
    TEMPLATE,
    drop_in_path,
    environment,
    failed,
    run,
    unit,
)

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
#: The line of the template that names its home.
_HOME = "Home="
#: ActiveState, or ActiveState/SubState (which has precedence), to our states.
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
#: The meaning of a Result that the end of the process does not explain.
_RESULTS: Mapping[str, str] = {
    "watchdog": "was stuck, and was killed",
    "timeout": "did not start or stop in time",
    "protocol": "did not notify that it is ready",
    "start-limit-hit": "was started too often",
    "oom-kill": "was killed because memory ran out",
    "resources": "could not be started: see `systemctl status`",
}
#: How much of the last line is kept, in characters.
_LAST = 300


class Systemd:
    """The :class:`dataserver.fleet.model.Manager` of a home whose units are installed."""

    name = "systemd"

    def __init__(self, home: Home) -> None:
        self._home = home
        # Computed once, so that unchanged times stay equal.
        self._boot = time.time() - time.monotonic()

    @staticmethod
    def applies(home: Home) -> bool:
        """Whether systemd runs this machine, and its units are those of this home."""
        return RUNS.is_dir() and _installed_home() == os.path.realpath(home.root)

    def start(self, instance: Instance) -> None:
        """Start the instance, now and after each boot."""
        _mark(enable, instance)
        self._allow_paths(instance)
        self._begin(instance, "start")

    def stop(self, instance: Instance) -> None:
        """Stop the instance and disable it."""
        _mark(disable, instance)
        # Before "disable", which makes systemd reload its files.
        _place(drop_in_path(instance.name), "")
        run("systemctl", "--no-ask-password", "disable", unit(instance.name))
        run("systemctl", "--no-ask-password", "--no-block", "stop", unit(instance.name))

    def restart(self, instance: Instance) -> int | None:
        """Restart the instance gracefully; returns the pid of its former process."""
        before = self.states([instance]).get(instance.name)
        if not instance.enabled:
            _mark(enable, instance)
        self._allow_paths(instance)
        self._begin(instance, "restart")
        return before.pid if before else None

    def states(self, instances: Sequence[Instance]) -> dict[str, Managed]:
        """The states of all instances, by one call of systemctl."""
        if not instances:
            return {}
        units = {unit(instance.name): instance for instance in instances}
        output = run(
            "systemctl", "show", "--no-pager", f"--property={','.join(_PROPERTIES)}", *units
        )
        found = {
            units[properties["Id"]].name: properties
            for properties in _blocks(output)
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
        """The lines of systemd's journal."""
        return follow_journal(instance.name, lines, follow=follow)

    def _begin(self, instance: Instance, how: str) -> None:
        name = unit(instance.name)
        # Fails if it has never run: then there is nothing to reset.
        run("systemctl", "--no-ask-password", "reset-failed", name, check=False)
        run("systemctl", "--no-ask-password", "enable", name)
        run("systemctl", "--no-ask-password", "--no-block", how, name)

    def _allow_paths(self, instance: Instance) -> None:
        """Write the drop-in with the paths outside of the home that its settings need."""
        # Imported here: templates are needed only to start something.
        from dataserver.fleet.systemd.units import Needs, drop_in  # noqa: PLC0415

        try:
            # Without our environment: systemd does not pass it on.
            settings = load(instance.paths, {})
        except DataserverError:
            return  # The instance will report it.
        file = drop_in(self._home, instance.name, Needs.of(settings, self._home))
        if _place(file.path, file.text):
            run("systemctl", "--no-ask-password", "daemon-reload")


def _installed_home() -> str | None:
    """The home, without links, of the installed units, or None if none are installed."""
    with suppress(OSError):
        for text in TEMPLATE.read_text("utf-8", "replace").splitlines():
            if text.startswith(_HOME):
                return os.path.realpath(text.removeprefix(_HOME).replace("%%", "%"))
    return None


def _blocks(output: str) -> Iterator[dict[str, str]]:
    """The properties of each unit; `systemctl show` puts an empty line between them."""
    for block in output.split("\n\n"):
        pairs = (text.partition("=") for text in block.splitlines())
        yield {key: value for key, _, value in pairs}


def _failing(properties: Mapping[str, str]) -> bool:
    """Whether it ended with a failure."""
    state = _state(properties)
    return state in (RunState.FAILED, RunState.WAITING) and properties.get("Result") != "success"


def _state(properties: Mapping[str, str]) -> RunState:
    active, sub = properties.get("ActiveState", ""), properties.get("SubState", "")
    return _STATES.get(f"{active}/{sub}") or _STATES.get(active, RunState.STOPPED)


def _managed(properties: Mapping[str, str], boot: float, enabled: bool, last: str) -> Managed:
    """The state of a unit; ``boot`` is the epoch time at which systemd's clock started."""
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
    # The last line before a signal does not explain it.
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
            hint="only root can change what systemd runs: try it with sudo",
        ) from exc


def _place(path: Path, text: str) -> bool:
    """Write ``text`` to ``path``, or remove it if ``text`` is empty; whether it changed."""
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
                path.parent.rmdir()  # unless an administrator has files there
    except OSError as exc:
        raise DataserverError(
            f"{path} cannot be written: {exc.strerror}", hint="systemd's files need root"
        ) from exc
    return True


# -- what instances logged, from systemd's journal --


def follow_journal(name: str, lines: int, *, follow: bool) -> Iterator[str]:
    """The last ``lines`` of the instance ``name``, and of systemd about it; then new ones.

    Raises DataserverError if the journal cannot be read.
    """
    command = ["journalctl", "--quiet", "--no-pager", "--output=cat", f"--lines={lines}"]
    command += [f"--unit={unit(name)}", *(["--follow"] if follow else [])]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
    except OSError as exc:
        raise DataserverError(f"journalctl cannot be run: {exc.strerror}") from exc
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            for line in process.stdout:
                yield line.rstrip(b"\n").decode("utf-8", "surrogateescape")
            output = process.stderr.read()
            code = process.wait()
        finally:
            # Does nothing if it has ended; else nothing reads its output any more.
            process.kill()
    if code:
        raise failed(("journalctl",), output, code)


def last_words(names: Sequence[str]) -> dict[str, str]:
    """The last line that each instance itself logged, by name, as far as it can be read."""
    if not names:
        return {}
    by_unit = {unit(name): name for name in names}
    matches = [f"_SYSTEMD_UNIT={each}" for each in by_unit]
    options = ["--quiet", "--no-pager", "--output=json", "--lines=500"]
    fields = "--output-fields=MESSAGE,_SYSTEMD_UNIT"
    try:
        output = run("journalctl", *options, fields, *matches)
    except DataserverError:
        # Only some users may read the journal; the state of a unit is for all.
        return {}
    words = {}
    for line in output.splitlines():
        entry = json.loads(line)
        # A line that is not UTF-8 comes as a list of bytes.
        if isinstance(text := entry.get("MESSAGE"), str) and entry.get("_SYSTEMD_UNIT") in by_unit:
            words[by_unit[entry["_SYSTEMD_UNIT"]]] = _message(text)
    return words


def _message(text: str) -> str:
    """The message of a log line."""
    with suppress(ValueError, TypeError, KeyError):
        text = str(json.loads(text)["message"])
    return text.strip().removeprefix("dataserver: ")[:_LAST]
