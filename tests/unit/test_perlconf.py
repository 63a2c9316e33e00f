"""Taking over a Perl server's configuration: what becomes of each key."""

from __future__ import annotations

import pytest

from dataserver.config.perl import Takeover, decode, parse, read
from dataserver.errors import ConfigError
from tests.support.failures import failures

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
    assert taken().others == ["networkserver"]


def test_every_key_of_the_file_is_accounted_for() -> None:
    found = taken()
    said = {key for note in found.notes for key in note.key.split(", ")}
    assert parse(TYPICAL).keys() - said - {*found.others, *found.same} == {"dbengine"}


#: What the Perl server does with each key when its value is this one, this server does anyway.
SAME = {
    "dataserver": "1",
    "dataserver_threads": "1",
    "dataserver_lifo": "0",
    "dataserver_smart_queue": "0",
    "use_xml_timestamp": "1",
    "unknown_interval": "2",
    "unknown_block_size": "1000",
    "unknown_events": "1",
    "unknown_updates": "0",
    "async_recovery": "1",
    "warmup_unknown_interval": "300",
    "warmup_event_interval": "0",
    "warmup_alert_interval": "0",
    "event_auto_validation": "1",
    "event_expiry_time": "0",
    "event_inhibit_alerts": "0",
    "text_going_down_normal": "Module '_module_' is going to NORMAL (_data_)",
    "text_going_up_critical": "Module '_module_' is going to CRITICAL (_data_)",
    "text_going_up_warning": "Module '_module_' is going to WARNING (_data_)",
    "text_going_down_warning": "Module '_module_' is going to WARNING (_data_)",
    "text_going_unknown": "Module '_module_' is going to UNKNOWN",
    "graph_precision": "1",
    "activate_gis": "0",
    "master": "0",
    "alertserver": "0",
    "alertserver_queue": "0",
    "dbssl": "0",
}


def test_a_value_that_means_what_this_server_does_anyway_is_no_difference() -> None:
    def check(key: str) -> None:
        found = taken(f"{key} {SAME[key]}\n")
        assert (found.same, found.others) == ([key], [])
        assert all(note.setting for note in found.notes)

    assert failures(check, SAME) == {}


def test_any_other_value_of_a_key_on_which_packets_statuses_or_events_depend_is_told() -> None:
    always = ["too_many_xml", "max_queue_files", "server_threshold", "enc_dir", "event_file"]
    always += ["mta_address", "global_alert_timeout", "ha_hosts_file"]

    def check(key: str) -> None:
        found = taken(f"{key} 7\n")
        (note,) = (note for note in found.notes if note.setting is None)
        assert (note.key, note.value, found.others) == (key, "7", [])
        assert note.text

    assert failures(check, [*SAME, *always]) == {}


def test_a_key_that_means_nothing_without_another_one_is_told_with_it() -> None:
    alone = taken("event_expiry_window 60\ndbsslcafile /etc/ca.pem\ndbssl 0\n")
    assert alone.same == ["dbssl", "dbsslcafile", "event_expiry_window"]
    both = taken("event_expiry_time 50\nevent_expiry_window 60\n")
    assert why_left("event_expiry_time 50\nevent_expiry_window 60\n", "event_expiry_window")
    assert both.same == []


def test_the_interval_of_its_signs_of_life_is_taken_over() -> None:
    intervals = [taken(text).shared["server_keepalive"] for text in ("", "server_keepalive 45\n")]
    assert intervals == [60, 45]
    assert taken("server_keepalive 99999\n").shared["server_keepalive"] == 3600


def test_passwords_are_not_among_what_is_told() -> None:
    found = taken("dbpass secret1\nmta_pass secret2\nconsole_pass secret3\nmta_user me\n")
    told = [*found.notes, *found.others, *found.same, *found.warnings]
    assert "secret" not in str(told)


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


def test_a_line_that_the_perl_server_does_not_read_is_not_taken_over_but_told() -> None:
    found = taken("dbname one\n  dbname two\ndbuser +\ndbhost\n\tcomment from me\n")
    assert found.shared["database"] == "mysql://pandora@localhost/one"
    assert [warning.split(":")[0] for warning in found.warnings] == [
        "line 2 (dbname) is indented",
        "line 3 (dbuser) has a value that the Perl server does not read",
    ]


def test_what_follows_a_number_is_dropped_as_there() -> None:
    assert taken("autocreate_group 10 # the default\n").shared["autocreate_group"] == 10
    assert taken("autocreate_group -1\n").shared["autocreate_group"] == 0


def test_only_line_feeds_end_a_line() -> None:
    assert parse("dbpass a\x0bb\x85c\u2028d\n") == {"dbpass": "a\x0bb\x85c\u2028d"}


def test_the_file_is_utf_8_and_other_bytes_are_read_and_told() -> None:
    text, warnings = decode("\ufeffservername café\ndbpass paßwort".encode())
    assert (parse(text), warnings) == ({"servername": "café", "dbpass": "paßwort"}, [])
    text, warnings = decode("# ü\nservername café\n".encode() + b"dbpass pa\xdfwort\xe9")
    assert parse(text) == {"servername": "café", "dbpass": "paßworté"}
    assert [warning.split(":")[0] for warning in warnings] == ["line 3 (dbpass) is not UTF-8"]
