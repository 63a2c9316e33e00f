"""The agent's script uploads through the accounts that `dataserver uploads setup` makes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from dataserver.packet import parse
from tests.support.sshd import SCP, UPLOAD, Agent, Machine, agent, host
from tests.support.waiting import PATIENCE

__all__ = ["agent", "host"]

SCRIPT = Path(__file__).parents[2] / "docs" / "agent" / "agent.sh"


@pytest.mark.parametrize(("account", "options"), [(UPLOAD, ""), (SCP, "-O")])
def test_its_packets_arrive_and_no_word_is_said(
    host: Machine, agent: Agent, tmp_path: Path, account: str, options: str
) -> None:
    known = tmp_path / "known_hosts"
    key = (host.root / "etc/ssh/ssh_host_ed25519_key.pub").read_text()
    known.write_text(f"[127.0.0.1]:{agent.port} {key}")
    settings = {
        "NAME": account,
        "SERVER": "127.0.0.1",
        "PORT": agent.port,
        "ACCOUNT": account,
        "KEY": agent.key,
        "KNOWN_HOSTS": known,
        "SCP_OPTIONS": f"'{options} -F /dev/null -o KexAlgorithms=curve25519-sha256'",
        "OUTGOING": tmp_path / "outgoing",
    }
    conf = tmp_path / "agent.conf"
    conf.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    for _ in range(2):
        run = subprocess.run(
            ["dash", SCRIPT, "-f", conf],
            check=False,
            capture_output=True,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
            timeout=PATIENCE,
        )
        assert (run.returncode, run.stdout, run.stderr) == (0, b"", b"")
    arrived = [content for name, content in host.files().items() if name.startswith(account)]
    assert [parse.parse(content).agent_name for content in arrived] == [account, account]
    assert list((tmp_path / "outgoing").glob("*.data")) == []
    # By the user that runs the instances, not only by us.
    service = ("setpriv", "--reuid=dataserver", "--regid=dataserver", "--init-groups")
    for name in host.files():
        if name.startswith(account):
            host.run(*service, "cat", f"/var/lib/dataserver/data_in/{name}")
