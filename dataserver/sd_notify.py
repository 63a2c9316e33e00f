"""Notifying the service manager that this process is ready, alive, or stopping.

The protocol is systemd's sd_notify(3): lines ``KEY=VALUE`` in one datagram to the
socket in ``$NOTIFY_SOCKET``, which is a path, or ``@`` and an abstract address.
``dataserver up`` listens in the same way.
Source: https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping

#: The variable with the socket's address.
VARIABLE = "NOTIFY_SOCKET"
#: Variables that only concern the process that was started with them.
VARIABLES = frozenset({VARIABLE, "WATCHDOG_PID", "WATCHDOG_USEC"})

Notify = Callable[[str], None]


def notifier(environment: Mapping[str, str]) -> Notify:
    """A function that sends one message; it does nothing if there is no socket in the environment.

    It never raises or waits, even if no process listens.
    """
    address = environment.get(VARIABLE, "")
    if not address.startswith(("/", "@")):
        return lambda _: None
    if address.startswith("@"):
        address = "\0" + address[1:]
    listener = address

    def notify(message: str) -> None:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto(message.encode(), listener)
        except OSError:
            return

    return notify


def forget() -> None:
    """Remove the variables from the environment, so that child processes do not get them."""
    for variable in VARIABLES:
        os.environ.pop(variable, None)
