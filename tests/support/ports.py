"""TCP ports for servers that tests start."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_LOWEST = 10_000
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """A loopback port on which nothing listens now.

    Not one that the kernel gives to outgoing connections: such a port may be taken between two
    lives of one server, by any program.
    """
    below = int(_EPHEMERAL.read_text().split()[0])
    choose = random.SystemRandom()
    while True:
        port = choose.randrange(_LOWEST, max(below, _LOWEST + 1_000))
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
