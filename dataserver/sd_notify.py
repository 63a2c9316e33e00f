"""Telling whoever started this process that it is ready, alive, or leaving.

The protocol is that of systemd's sd_notify(3): lines ``KEY=VALUE`` in one datagram to the
socket that ``$NOTIFY_SOCKET`` names, a path, or ``@`` and an abstract address.
``dataserver up`` listens in the same way.
Source: https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping

#: Names the socket.
VARIABLE = "NOTIFY_SOCKET"
#: What concerns only the process that was started with it.
VARIABLES = frozenset({VARIABLE, "WATCHDOG_PID", "WATCHDOG_USEC"})

Notify = Callable[[str], None]


def notifier(environment: Mapping[str, str]) -> Notify:
    """A function that sends one message; it does nothing where nobody asked to be told.

    It never raises nor waits: nobody's listening must not harm the work.
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
    """Keep all of it from processes that this one starts."""
    for variable in VARIABLES:
        os.environ.pop(variable, None)
