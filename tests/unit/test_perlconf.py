"""Taking over a Perl server's configuration: what becomes of each key."""

from __future__ import annotations

import pytest

from dataserver.errors import ConfigError
from dataserver.perlconf import Takeover, parse, read

TYPICAL = """\
# A comment
servername   gateway
incomingdir /var/spool/pandora/data_in/
dbengine mysql
dbname pandora
dbuser pan/dora
dbpass p@ss word#1
dbhost 127.0.0.1
dbport 3307
  verbosity 3
autocreate_group 10
autocreate 1
dataserver_threads 4
log_file /var/log/pandora/pandora_server.log
networkserver 1
"""


def taken(text: str = TYPICAL) -> Takeover:
    return read(text, "thishost")


def why_left(text: str, key: str) -> str:
    return next(n.text for n in taken(text).notes if n.setting is None and key in n.key.split(", "))


def test_the_database_is_taken_over_as_one_url_without_the_password() -> None:
    assert taken().shared["database"] == "mysql://pan%2Fdora@127.0.0.1:3307/pandora"
    assert taken().password == "p@ss word#1"


def test_an_ipv6_host_is_put_in_brackets() -> None:
    assert taken("dbhost ::1\n").shared["database"] == "mysql://pandora@[::1]/pandora"


def test_the_drop_directory_is_taken_over() -> None:
    assert taken().data_in == "/var/spool/pandora/data_in"


def test_the_servers_name_is_taken_over() -> None:
    assert taken().shared["server_name"] == "gateway"


def test_without_a_name_the_host_name_that_it_used_is_written_down() -> None:
    assert taken("").shared["server_name"] == "thishost"


def test_where_the_file_is_silent_its_own_defaults_are_taken_over() -> None:
    shared = taken("").shared
    assert shared["autocreate_group"] == 0
    assert shared["autocreate_group_force"] is True
    assert shared["update_parent"] is False
    assert shared["database"] == "mysql://pandora@localhost/pandora"


def test_the_group_for_new_agents_is_taken_over() -> None:
    shared = taken("autocreate_group 4\nautocreate_group_name Servers\nautocreate 0\n").shared
    assert shared["autocreate_group"] == 4
    assert shared["autocreate_group_name"] == "Servers"
    assert shared["autocreate"] is False


@pytest.mark.parametrize(("level", "ours"), [(0, "warning"), (3, "info"), (10, "debug")])
def test_the_verbosity_becomes_the_log_level(level: int, ours: str) -> None:
    assert taken(f"verbosity {level}\n").shared["log_level"] == ours


def test_reports_on_itself_are_taken_over_where_the_file_speaks_of_them() -> None:
    stated = "self_monitoring 1\nself_monitoring_interval 1\nself_monitoring_agent_name me\n"
    shared = taken(stated).shared
    assert shared["self_monitoring"] is True
    assert shared["self_monitoring_interval"] == 10
    assert shared["self_monitoring_agent"] == "me"
    assert "self_monitoring" not in taken().shared
    assert not [note for note in taken(stated).notes if note.setting is None]


def test_what_has_no_counterpart_is_named_with_the_reason() -> None:
    assert "more instances" in why_left(TYPICAL, "dataserver_threads")
    assert "stderr" in why_left(TYPICAL, "log_file")


def test_keys_of_its_other_servers_are_named_together() -> None:
    assert why_left(TYPICAL, "networkserver") == "not about packets from files"


def test_every_key_of_the_file_is_accounted_for() -> None:
    said = {key for note in taken().notes for key in note.key.split(", ")}
    assert parse(TYPICAL).keys() - said == {"dbengine"}


def test_another_database_is_refused() -> None:
    with pytest.raises(ConfigError, match="oracle"):
        taken("dbengine oracle\n")


def test_a_relative_drop_directory_is_refused() -> None:
    with pytest.raises(ConfigError, match="relative"):
        taken("incomingdir data_in\n")


def test_a_number_that_is_none_is_named() -> None:
    with pytest.raises(ConfigError, match="dbport"):
        taken("dbport standard\n")


def test_keys_are_read_without_case_and_the_last_one_wins() -> None:
    assert parse("DBNAME one\r\ndbname  two \r\n#dbname three\nlonely\n") == {"dbname": "two"}
