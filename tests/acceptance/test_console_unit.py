"""The unit of docs/console.md, run by a real systemd beside the instances."""

from __future__ import annotations

import re
from pathlib import Path

import bcrypt
import httpx

from tests.support.systemd import HOME, PYTHON, installed
from tests.support.waiting import PATIENCE

DOCUMENT = Path(__file__).parents[2] / "docs" / "console.md"
UNIT = "dataserver-console.service"


def documented() -> str:
    """The unit, with the program where it is there, and on any free port."""
    found = re.search(r"```ini\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    assert found is not None
    written, ours = "/opt/dataserver/bin/dataserver", f"{PYTHON} -P -m dataserver"
    line = f"ExecStart={written} --home {HOME} console"
    assert f"{line}\n" in found[1]
    return found[1].replace(line, line.replace(written, ours) + " --listen 127.0.0.1:0")


def test_shows_a_rejected_packet_to_who_logs_in_and_ends_in_good_order(tmp_path: Path) -> None:
    with installed(tmp_path) as host:
        host.run("systemctl", "start", "dataserver.target")
        host.wait_state("running")
        host.upload("<b>.1.data", b"no XML <script>")
        users = host.home.root / "console.users"
        users.write_bytes(b"ann:" + bcrypt.hashpw(b"secret", bcrypt.gensalt(4)) + b"\n")
        host.run("chown", "root:dataserver", HOME / "console.users")
        users.chmod(0o640)
        host.outside(Path("/etc/systemd/system") / UNIT).write_text(documented())
        # An interpreter built by itself finds its library where the service may not look.
        host.adapt(UNIT, "[Service]\nEnvironment=LD_LIBRARY_PATH=/opt/base/lib\n")
        host.run("systemctl", "start", UNIT)

        def said() -> list[str]:
            lines = host.journal("--output=cat", f"_SYSTEMD_UNIT={UNIT}")
            return re.findall(r"^console: (http://\S+/)$", lines, re.MULTILINE)

        host.wait(said, "the console's address")
        with httpx.Client(base_url=said()[0], timeout=PATIENCE) as client:
            assert client.get("/").status_code == 401
            assert client.get("/healthz").text == "ok\n"
            client.auth = httpx.BasicAuth("ann", "secret")

            def packets() -> list[dict[str, dict[str, str]]]:
                return list(client.get("/api/rejected").json()["packets"])

            host.wait(packets, "the rejected packet")
            (listed,) = packets()
            assert listed["packet"]["name"] == "<b>.1.data"
            where = f"/rejected/main/{listed['packet']['id']}"
            assert "no XML &lt;script&gt;" in client.get(where).text
            assert client.get(f"{where}/content").content == b"no XML <script>"
            found = client.get("/api/servers").json()
            assert found["database_error"] is None
            assert found["manager"] == "systemd"
            assert [row["row"]["state"] for row in found["instances"]] == ["running"]
            host.run("systemctl", "stop", UNIT)
        assert host.show(UNIT, "Result", "ExecMainStatus") == {
            "Result": "success",
            "ExecMainStatus": "0",
        }
