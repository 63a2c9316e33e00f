"""Instances run by ``dataserver up``: asked through their folders, known by what it writes."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from dataserver.errors import DataserverError
from dataserver.fleet import by_hand
from dataserver.fleet.model import (
    Instance,
    Managed,
    SupervisorState,
    log_file,
    supervisor_file,
)
from dataserver.fleet.registry import disable, enable
from dataserver.fleet.supervision import tail
from dataserver.home import Home
from dataserver.spool.lock import holder


class BySupervisor:
    """The :class:`dataserver.fleet.model.Manager` of a home in which ``dataserver up`` runs."""

    name = "dataserver up"

    def __init__(self, home: Home) -> None:
        self._home = home

    def alive(self) -> bool:
        """Whether it runs, as far as this user can see."""
        try:
            state = self._state()
        except DataserverError:
            return False
        return state is not None and state.alive

    def start(self, instance: Instance) -> None:
        """Have it run; noticed within half a second."""
        with _changing(instance):
            enable(instance.paths)

    def stop(self, instance: Instance) -> None:
        """Have it not run."""
        with _changing(instance):
            disable(instance.paths)

    def restart(self, instance: Instance) -> int | None:
        """Tell its process to leave: the supervisor starts another one at once.

        It is touched as well: that tells one who was asked to leave from one who cannot stay.
        """
        managed = self.states([instance]).get(instance.name)
        with _changing(instance):
            running = instance.enabled and holder(instance.paths.var)
            if not running:
                # One that is only starting reads its files anew without being told to end.
                enable(instance.paths)
                return None
            if managed is None or managed.pid != running:
                raise DataserverError(
                    f"{instance.name} is run by process {running}, which nobody supervises",
                    hint=f"`dataserver instances stop {instance.name}`, then start it",
                )
            with suppress(PermissionError):
                enable(instance.paths)
            return by_hand.send(instance.paths, signal.SIGTERM)

    def states(self, instances: Sequence[Instance]) -> dict[str, Managed]:
        """What it last wrote of them, if it is alive."""
        state = self._state()
        if state is None or not state.alive:
            return {}
        names = {instance.name for instance in instances}
        return {name: managed for name, managed in state.instances.items() if name in names}

    def follow(self, instance: Instance, lines: int, *, follow: bool) -> Iterator[str]:
        """From the log that it keeps for each instance."""
        path = log_file(instance.paths)
        try:
            yield from tail.follow(path, lines) if follow else tail.last(path, lines)
        except OSError as exc:
            raise DataserverError(f"cannot read {exc.filename or path}: {exc.strerror}") from exc

    def _state(self) -> SupervisorState | None:
        path = supervisor_file(self._home)
        try:
            return SupervisorState.read(path)
        except OSError as exc:
            raise DataserverError(f"cannot read {path}: {exc.strerror}") from exc


@contextmanager
def _changing(instance: Instance) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise DataserverError(
            f"{instance.name} cannot be changed: {exc.filename or instance.paths.config}: "
            f"{exc.strerror}",
            hint=f"{instance.paths.folder} has to be writable for this user",
        ) from exc
