"""The tables: Pandora FMS's own, under its names, and the few that are ours.

This is the only file that knows the database's (largely Spanish) table and
column names; everywhere else the English keys given here are used:
``agent.c.description`` is ``tagente.comentarios``.

Metadata objects keep apart who owns what:

* ``pandora``: tables of Pandora FMS 777 / Pandora Open 1.0.  In an existing
  Pandora database they are used as found and never altered; in a database of
  our own they are created from here, each with a primary key (Galera and NDB
  need them; Pandora's history tables have none), history keyed by
  (module, time, ordinal).
* ``ours``: added to either.
* ``others``: of another server's business in a Pandora database; never created by us.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Enum,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
)
from sqlalchemy.dialects import mysql

pandora = MetaData()
ours = MetaData()
others = MetaData()

#: Options of every table that we create on MySQL and MariaDB.
_MYSQL: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_unicode_520_ci",
}

#: Of tables from which the console deletes.  SQLite would give the id of the last row, once it
#: is deleted, to the next one, which then takes over its history, ledger and place in time.
_IDS_USED_ONCE: dict[str, Any] = {"sqlite_autoincrement": True}

#: Rows lie in the order of the primary key, as InnoDB has them: read twice as fast in that order.
_IN_ORDER_OF_KEY: dict[str, Any] = {"sqlite_with_rowid": False}

#: What Pandora has for a time that never was.
NEVER = "1970-01-01 00:00:00"

#: MySQL takes an index over a TEXT column only with a length; Pandora's own is this one.
_TEXT_PREFIX = 254

# SQLite grows an INTEGER PRIMARY KEY by itself, but only under that very type,
# so every integer keeps SQLAlchemy's plain Integer there.
Int = Integer()
UInt = Integer().with_variant(mysql.INTEGER(unsigned=True), "mysql", "mariadb")
Big = BigInteger().with_variant(Integer(), "sqlite")
UBig = Integer().with_variant(mysql.BIGINT(unsigned=True), "mysql", "mariadb")
Small = SmallInteger()
USmall = Integer().with_variant(mysql.SMALLINT(unsigned=True), "mysql", "mariadb")
Tiny = SmallInteger().with_variant(mysql.TINYINT(), "mysql", "mariadb")
UTiny = SmallInteger().with_variant(mysql.TINYINT(unsigned=True), "mysql", "mariadb")
Medium = Integer().with_variant(mysql.MEDIUMINT(), "mysql", "mariadb")
UMedium = Integer().with_variant(mysql.MEDIUMINT(unsigned=True), "mysql", "mariadb")
Flag = SmallInteger().with_variant(mysql.TINYINT(1), "mysql", "mariadb")
Tinytext = String(255).with_variant(mysql.TINYTEXT(), "mysql", "mariadb")
Long = Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
Code = LargeBinary()
Blob = LargeBinary().with_variant(mysql.MEDIUMBLOB(), "mysql", "mariadb")
#: Local time as text "YYYY-MM-DD HH:MM:SS", the way Pandora writes it.
Clock = String(19).with_variant(mysql.DATETIME(), "mysql", "mariadb")
#: Time of day as "HH:MM:SS".
DayTime = String(10).with_variant(mysql.TIME(), "mysql", "mariadb")
Stamp = String(19).with_variant(mysql.TIMESTAMP(), "mysql", "mariadb")
#: Sixteen or thirty-two raw bytes.
Digest = LargeBinary(16).with_variant(mysql.BINARY(16), "mysql", "mariadb")
Key = LargeBinary(32).with_variant(mysql.BINARY(32), "mysql", "mariadb")


def _name(length: int) -> String:
    """A name, compared without case as Pandora's collation does (SQLite: ASCII only)."""
    return String(length).with_variant(String(length, collation="NOCASE"), "sqlite")


agent = Table(
    "tagente",
    pandora,
    Column("id_agente", UInt, key="id", primary_key=True),
    Column("nombre", _name(600), key="name", nullable=False, server_default=""),
    Column("direccion", String(100), key="address"),
    Column("comentarios", String(255), key="description", server_default=""),
    Column("id_grupo", UInt, key="group_id", nullable=False, server_default="0"),
    Column("ultimo_contacto", Clock, key="contact", nullable=False, server_default=NEVER),
    Column("modo", Tiny, key="mode", nullable=False, server_default="0"),
    Column("intervalo", UInt, key="interval", nullable=False, server_default="300"),
    Column("id_os", UInt, key="os_id", server_default="0"),
    Column("os_version", String(100), server_default=""),
    Column("agent_version", String(100), server_default=""),
    Column("ultimo_contacto_remoto", Clock, key="packet_contact", server_default=NEVER),
    Column("disabled", Tiny, nullable=False, server_default="0"),
    Column("remote", Tiny, nullable=False, server_default="0"),
    Column("id_parent", UInt, key="parent_id", server_default="0"),
    Column("custom_id", String(255), server_default=""),
    Column("server_name", String(100), server_default=""),
    Column("cascade_protection", Tiny, nullable=False, server_default="0"),
    Column("cascade_protection_module", UInt, nullable=False, server_default="0"),
    Column("timezone_offset", Tiny, server_default="0"),
    Column("icon_path", String(127)),
    Column("update_gis_data", Tiny, nullable=False, server_default="1"),
    Column("url_address", Long),
    Column("quiet", Tiny, nullable=False, server_default="0"),
    Column("normal_count", Big, nullable=False, server_default="0"),
    Column("warning_count", Big, nullable=False, server_default="0"),
    Column("critical_count", Big, nullable=False, server_default="0"),
    Column("unknown_count", Big, nullable=False, server_default="0"),
    Column("notinit_count", Big, nullable=False, server_default="0"),
    Column("total_count", Big, nullable=False, server_default="0"),
    Column("fired_count", Big, nullable=False, server_default="0"),
    Column("update_module_count", Tiny, nullable=False, server_default="0"),
    Column("update_alert_count", Tiny, nullable=False, server_default="0"),
    Column("update_secondary_groups", Tiny, nullable=False, server_default="0"),
    Column("alias", String(600), nullable=False, server_default=""),
    Column("alias_as_name", Tiny, nullable=False, server_default="0"),
    Column("safe_mode_module", UInt, nullable=False, server_default="0"),
    Column("cps", Int, nullable=False, server_default="0"),
    Column("satellite_server", Int, nullable=False, server_default="0"),
    Column("fixed_ip", Tiny, nullable=False, server_default="0"),
    Column("disabled_by_downtime", Tiny, nullable=False, server_default="0"),
    Column("vul_scan_enabled", Tiny, nullable=False, server_default="2"),
    Column("ignore_unknown", Tiny, nullable=False, server_default="0"),
    Index("tagente_direccion", "address"),
    Index("tagente_disabled", "disabled"),
    Index("tagente_id_grupo", "group_id"),
    Index("tagente_nombre", "name"),
    **_MYSQL,
    **_IDS_USED_ONCE,
)

#: Keys of an agent's counts of its enabled modules: by status, in the order of
#: :class:`dataserver.rules.status.Status`, and with the total.
STATUS_COUNT_KEYS = (
    "normal_count",
    "critical_count",
    "warning_count",
    "unknown_count",
    "notinit_count",
)
COUNT_KEYS = (*STATUS_COUNT_KEYS, "total_count")

module = Table(
    "tagente_modulo",
    pandora,
    Column("id_agente_modulo", UInt, key="id", primary_key=True),
    Column("id_agente", UInt, key="agent_id", nullable=False, server_default="0"),
    Column("id_tipo_modulo", Small, key="type_id", nullable=False, server_default="0"),
    Column("descripcion", Text(), key="description"),
    Column("extended_info", Text()),
    Column("nombre", Text().with_variant(Text(collation="NOCASE"), "sqlite"), key="name"),
    Column("unit", Text()),
    Column("max", Big, server_default="0"),
    Column("min", Big, server_default="0"),
    Column("module_interval", UInt, server_default="0"),
    Column("cron_interval", String(100), server_default=""),
    Column("module_ff_interval", UInt, server_default="0"),
    Column("tcp_port", UInt, server_default="0"),
    Column("tcp_send", Text()),
    Column("tcp_rcv", Text()),
    Column("snmp_community", String(100), server_default=""),
    Column("snmp_oid", String(255), server_default="0"),
    Column("ip_target", String(100), server_default=""),
    Column("id_module_group", UInt, key="group_id", server_default="0"),
    Column("flag", UTiny, server_default="1"),
    Column("id_modulo", UInt, key="server_kind", server_default="0"),
    Column("disabled", UTiny, nullable=False, server_default="0"),
    Column("disabled_by_safe_mode", UTiny, nullable=False, server_default="0"),
    Column("id_export", USmall, server_default="0"),
    Column("plugin_user", Text()),
    Column("plugin_pass", Text()),
    Column("plugin_parameter", Text()),
    Column("id_plugin", Int, server_default="0"),
    Column("post_process", Double(), server_default="0"),
    Column("prediction_module", Big, server_default="0"),
    Column("max_timeout", UInt, server_default="0"),
    Column("max_retries", UInt, server_default="0"),
    Column("custom_id", String(255), server_default=""),
    Column("history_data", UTiny, server_default="1"),
    Column("min_warning", Double(), server_default="0"),
    Column("max_warning", Double(), server_default="0"),
    Column("str_warning", Text()),
    Column("min_critical", Double(), server_default="0"),
    Column("max_critical", Double(), server_default="0"),
    Column("str_critical", Text()),
    Column("min_ff_event", UInt, server_default="0"),
    Column("delete_pending", UInt, server_default="0"),
    Column("custom_string_1", Long),
    Column("custom_string_2", Text()),
    Column("custom_string_3", Text()),
    Column("custom_integer_1", Int, server_default="0"),
    Column("custom_integer_2", Int, server_default="0"),
    Column("wizard_level", Enum("basic", "advanced", "nowizard"), server_default="nowizard"),
    Column("macros", Text()),
    Column("critical_instructions", Text()),
    Column("warning_instructions", Text()),
    Column("unknown_instructions", Text()),
    Column("quiet", Tiny, nullable=False, server_default="0"),
    Column("critical_inverse", UTiny, server_default="0"),
    Column("warning_inverse", UTiny, server_default="0"),
    Column("id_category", Int, server_default="0"),
    Column("disabled_types_event", Text()),
    Column("module_macros", Text()),
    Column("min_ff_event_normal", UInt, server_default="0"),
    Column("min_ff_event_warning", UInt, server_default="0"),
    Column("min_ff_event_critical", UInt, server_default="0"),
    Column("ff_type", UTiny, server_default="0"),
    Column("each_ff", UTiny, server_default="0"),
    Column("ff_timeout", UInt, server_default="0"),
    Column("dynamic_interval", UInt, server_default="0"),
    Column("dynamic_max", Int, server_default="0"),
    Column("dynamic_min", Int, server_default="0"),
    Column("dynamic_next", Big, nullable=False, server_default="0"),
    Column("dynamic_two_tailed", UTiny, server_default="0"),
    Column("prediction_sample_window", Int, server_default="0"),
    Column("prediction_samples", Int, server_default="0"),
    Column("prediction_threshold", Int, server_default="0"),
    Column("parent_module_id", UInt, nullable=False, server_default="0"),
    Column("cps", Int, nullable=False, server_default="0"),
    Column("debug_content", Text()),
    Column("percentage_critical", UTiny, server_default="0"),
    Column("percentage_warning", UTiny, server_default="0"),
    Column("warning_time", UInt, server_default="0"),
    Column("quiet_by_downtime", Tiny, nullable=False, server_default="0"),
    Column("disabled_by_downtime", Tiny, nullable=False, server_default="0"),
    Column("last_compact", Stamp),
    Column("made_enabled", UTiny, server_default="0"),
    Column("ignore_unknown", Tiny, nullable=False, server_default="0"),
    Index("tagente_modulo_disabled", "disabled"),
    Index("tagente_modulo_id_tipo_modulo", "type_id"),
    Index("tagente_modulo_main_idx", "id", "agent_id"),
    Index("tagente_modulo_module", "server_kind"),
    Index("tagente_modulo_module_group", "group_id"),
    Index("tagente_modulo_nombre", "name", mysql_length=_TEXT_PREFIX),
    Index("tagente_modulo_tam_agente", "agent_id"),
    **_MYSQL,
    **_IDS_USED_ONCE,
)

state = Table(
    "tagente_estado",
    pandora,
    Column("id_agente_estado", UInt, key="id", primary_key=True),
    Column("id_agente_modulo", Int, key="module_id", nullable=False, server_default="0"),
    Column("datos", Long, key="value"),
    Column("timestamp", Clock, key="local_time", nullable=False, server_default=NEVER),
    Column("estado", Int, key="status", nullable=False, server_default="0"),
    Column("known_status", Tiny, server_default="0"),
    Column("id_agente", Int, key="agent_id", nullable=False, server_default="0"),
    Column("last_try", Clock, key="saved"),
    Column("utimestamp", Big, key="processed", nullable=False, server_default="0"),
    Column("current_interval", UInt, nullable=False, server_default="0"),
    Column("running_by", USmall, server_default="0"),
    Column("last_execution_try", Big, nullable=False, server_default="0"),
    Column("status_changes", UTiny, server_default="0"),
    Column("last_status", Tiny, server_default="0"),
    Column("last_known_status", Tiny, server_default="0"),
    Column("last_error", Int, nullable=False, server_default="0"),
    Column("ff_start_utimestamp", Big, server_default="0"),
    Column("ff_normal", UInt, server_default="0"),
    Column("ff_warning", UInt, server_default="0"),
    Column("ff_critical", UInt, server_default="0"),
    Column("last_dynamic_update", Big, nullable=False, server_default="0"),
    Column("last_unknown_update", Big, nullable=False, server_default="0"),
    Column("last_status_change", Big, nullable=False, server_default="0"),
    Column("warning_count", UInt, server_default="0"),
    Index("tagente_estado_idx_agente", "agent_id"),
    Index("tagente_estado_running_by", "running_by"),
    Index("tagente_estado_status_index_1", "module_id"),
    **_MYSQL,
    **_IDS_USED_ONCE,
)

number_history = Table(
    "tagente_datos",
    pandora,
    Column("id_agente_modulo", UInt, key="module_id", primary_key=True, autoincrement=False),
    Column("datos", Double(), key="value"),
    Column("utimestamp", Big, key="time", primary_key=True, autoincrement=False),
    Column("ordinal", USmall, primary_key=True, autoincrement=False, server_default="0"),
    Index("tagente_datos_idx_utimestamp", "time"),
    **_MYSQL,
    **_IN_ORDER_OF_KEY,
)

text_history = Table(
    "tagente_datos_string",
    pandora,
    Column("id_agente_modulo", UInt, key="module_id", primary_key=True, autoincrement=False),
    Column("datos", Long, key="value"),
    Column("utimestamp", UInt, key="time", primary_key=True, autoincrement=False),
    Column("ordinal", USmall, primary_key=True, autoincrement=False, server_default="0"),
    Index("tagente_datos_string_idx_utimestamp", "time"),
    **_MYSQL,
)

counter = Table(
    "tagente_datos_inc",
    pandora,
    Column("id_agente_modulo", UInt, key="module_id", primary_key=True, autoincrement=False),
    Column("datos", Double(), key="value"),
    Column("utimestamp", UInt, key="time", server_default="0"),
    **_MYSQL,
)

inventory_history = Table(
    "tagente_datos_inventory",
    pandora,
    Column(
        "id_agent_module_inventory", Int, key="inventory_id", primary_key=True, autoincrement=False
    ),
    Column("data", Blob, nullable=False),
    Column("utimestamp", Big, key="time", primary_key=True, autoincrement=False),
    Column("timestamp", Clock, key="local_time", server_default=NEVER),
    Index("tagente_datos_inventory_idx_utimestamp", "time"),
    **_MYSQL,
)

inventory = Table(
    "tagent_module_inventory",
    pandora,
    Column("id_agent_module_inventory", Int, key="id", primary_key=True),
    Column("id_agente", UInt, key="agent_id", nullable=False),
    Column("id_module_inventory", Int, key="inventory_module_id", nullable=False),
    Column("target", String(100), server_default=""),
    Column("interval", UInt, nullable=False, server_default="3600"),
    Column("username", String(100), server_default=""),
    Column("password", String(100), server_default=""),
    Column("data", Blob, nullable=False),
    Column("timestamp", Clock, key="local_time", server_default=NEVER),
    Column("utimestamp", Big, key="time", server_default="0"),
    Column("flag", UTiny, server_default="1"),
    Column("custom_fields", Blob, nullable=False),
    Index("tagent_module_inventory_id_agente", "agent_id"),
    Index("tagent_module_inventory_id_module_inventory", "inventory_module_id"),
    **_MYSQL,
)

inventory_module = Table(
    "tmodule_inventory",
    pandora,
    Column("id_module_inventory", Int, key="id", primary_key=True),
    Column("id_os", UInt, key="os_id"),
    Column("name", Text()),
    Column("description", Text()),
    Column("interpreter", String(100), server_default=""),
    Column("data_format", Text()),
    Column("code", Code, nullable=False),
    Column("block_mode", Int, nullable=False, server_default="0"),
    Column("script_mode", Int, nullable=False, server_default="1"),
    Column("script_path", String(1000), server_default=""),
    Index("tmodule_inventory_id_os", "os_id"),
    **_MYSQL,
)

custom_field = Table(
    "tagent_custom_fields",
    pandora,
    Column("id_field", UInt, key="id", primary_key=True),
    Column("name", String(45), nullable=False, server_default=""),
    Column("display_on_front", Tiny, nullable=False, server_default="0"),
    Column("is_password_type", Tiny, nullable=False, server_default="0"),
    Column("combo_values", Text()),
    Column("is_link_enabled", Flag, nullable=False, server_default="0"),
    **_MYSQL,
)

custom_value = Table(
    "tagent_custom_data",
    pandora,
    Column("id_field", UInt, key="field_id", primary_key=True, autoincrement=False),
    Column("id_agent", UInt, key="agent_id", primary_key=True, autoincrement=False),
    Column("description", Text(), key="value"),
    Index("tagent_custom_data_id_agent", "agent_id"),
    **_MYSQL,
)

address = Table(
    "taddress",
    pandora,
    Column("id_a", UInt, key="id", primary_key=True),
    Column("ip", String(60), nullable=False, server_default=""),
    Column("ip_pack", UInt, nullable=False, server_default="0"),
    Index("taddress_ip", "ip"),
    **_MYSQL,
)

agent_address = Table(
    "taddress_agent",
    pandora,
    Column("id_ag", UBig, key="id", primary_key=True),
    Column("id_a", UBig, key="address_id", nullable=False, server_default="0"),
    Column("id_agent", UMedium, key="agent_id", nullable=False, server_default="0"),
    Index("taddress_agent_taddress_agent_agent", "agent_id"),
    **_MYSQL,
)

group = Table(
    "tgrupo",
    pandora,
    Column("id_grupo", UMedium, key="id", primary_key=True),
    Column("nombre", String(100), key="name", nullable=False, server_default=""),
    Column("icon", String(50), server_default="world"),
    Column("parent", UMedium, nullable=False, server_default="0"),
    Column("propagate", UTiny, nullable=False, server_default="0"),
    Column("disabled", UTiny, nullable=False, server_default="0"),
    Column("custom_id", String(255), server_default=""),
    Column("id_skin", UInt, nullable=False, server_default="0"),
    Column("description", Text()),
    Column("contact", Text()),
    Column("other", Text()),
    Column("password", String(45), server_default=""),
    Column("max_agents", UInt, nullable=False, server_default="0"),
    Index("tgrupo_parent_index", "parent"),
    **_MYSQL,
)

os = Table(
    "tconfig_os",
    pandora,
    Column("id_os", UInt, key="id", primary_key=True),
    Column("name", String(100), nullable=False, server_default=""),
    Column("description", String(250), server_default=""),
    Column("icon_name", String(100), server_default=""),
    Column("previous_name", Text()),
    **_MYSQL,
)

module_group = Table(
    "tmodule_group",
    pandora,
    Column("id_mg", USmall, key="id", primary_key=True),
    Column("name", String(150), nullable=False, server_default=""),
    **_MYSQL,
)

module_type = Table(
    "ttipo_modulo",
    pandora,
    Column("id_tipo", USmall, key="id", primary_key=True),
    Column("nombre", String(100), key="name", nullable=False, server_default=""),
    Column("categoria", Int, key="category", nullable=False, server_default="0"),
    Column("descripcion", String(100), key="description", nullable=False, server_default=""),
    Column("icon", String(100)),
    **_MYSQL,
)

server = Table(
    "tserver",
    pandora,
    Column("id_server", UInt, key="id", primary_key=True),
    Column("name", String(100), nullable=False, server_default=""),
    Column("ip_address", String(100), nullable=False, server_default=""),
    Column("status", Int, nullable=False, server_default="0"),
    Column("laststart", Clock, nullable=False, server_default=NEVER),
    Column("keepalive", Clock, nullable=False, server_default=NEVER),
    Column("snmp_server", UTiny, nullable=False, server_default="0"),
    Column("network_server", UTiny, nullable=False, server_default="0"),
    Column("data_server", UTiny, nullable=False, server_default="0"),
    Column("master", UTiny, nullable=False, server_default="0"),
    Column("checksum", UTiny, nullable=False, server_default="0"),
    Column("description", String(255)),
    Column("recon_server", UTiny, nullable=False, server_default="0"),
    Column("version", String(25), nullable=False, server_default=""),
    Column("plugin_server", UTiny, nullable=False, server_default="0"),
    Column("prediction_server", UTiny, nullable=False, server_default="0"),
    Column("wmi_server", UTiny, nullable=False, server_default="0"),
    Column("export_server", UTiny, nullable=False, server_default="0"),
    Column("server_type", UTiny, nullable=False, server_default="0"),
    Column("queued_modules", UInt, nullable=False, server_default="0"),
    Column("threads", UInt, nullable=False, server_default="0"),
    Column("lag_time", Int, nullable=False, server_default="0"),
    Column("lag_modules", Int, nullable=False, server_default="0"),
    Column("total_modules_running", Int, nullable=False, server_default="0"),
    Column("my_modules", Int, nullable=False, server_default="0"),
    Column("server_keepalive", Int, nullable=False, server_default="0"),
    Column("stat_utimestamp", Big, nullable=False, server_default="0"),
    Column("exec_proxy", UTiny, nullable=False, server_default="0"),
    Column("port", UInt, nullable=False, server_default="0"),
    Column("server_keepalive_utimestamp", Big, nullable=False, server_default="0"),
    Column("disabled", Flag, nullable=False, server_default="0"),
    Index("tserver_name", "name"),
    **_MYSQL,
)

tag = Table(
    "ttag",
    pandora,
    Column("id_tag", UInt, key="id", primary_key=True),
    Column("name", Text()),
    Column("description", Text()),
    Column("url", Long),
    Column("email", Text()),
    Column("phone", Text()),
    Column("previous_name", Text()),
    Index("ttag_ttag_name", "name", mysql_length=_TEXT_PREFIX),
    **_MYSQL,
)

module_tag = Table(
    "ttag_module",
    pandora,
    Column("id_tag", Int, key="tag_id", primary_key=True, autoincrement=False),
    Column(
        "id_agente_modulo",
        Int,
        key="module_id",
        primary_key=True,
        autoincrement=False,
        server_default="0",
    ),
    Index("ttag_module_idx_id_agente_modulo", "module_id"),
    **_MYSQL,
)

event = Table(
    "tevento",
    pandora,
    Column("id_evento", UBig, key="id", primary_key=True),
    Column("id_agente", Int, key="agent_id", nullable=False, server_default="0"),
    Column("id_usuario", String(255), key="user_id", nullable=False, server_default="0"),
    Column("id_grupo", Medium, key="group_id", nullable=False, server_default="0"),
    Column("estado", UTiny, key="status", nullable=False, server_default="0"),
    Column("timestamp", Clock, key="local_time", nullable=False, server_default=NEVER),
    Column("evento", Text(), key="text"),
    Column("utimestamp", Big, key="time", nullable=False, server_default="0"),
    Column(
        "event_type",
        Enum(
            "going_unknown",
            "unknown",
            "alert_fired",
            "alert_recovered",
            "alert_ceased",
            "alert_manual_validation",
            "recon_host_detected",
            "system",
            "error",
            "new_agent",
            "going_up_warning",
            "going_up_critical",
            "going_down_warning",
            "going_down_normal",
            "going_down_critical",
            "going_up_normal",
            "configuration_change",
            "ncm",
        ),
        key="type",
        server_default="unknown",
    ),
    Column("id_agentmodule", Int, key="module_id", nullable=False, server_default="0"),
    Column("id_alert_am", Int, key="alert_id", nullable=False, server_default="0"),
    Column("criticity", UInt, key="severity", nullable=False, server_default="0"),
    Column("tags", Text()),
    Column("source", Tinytext),
    Column("id_extra", Tinytext),
    Column("critical_instructions", Text()),
    Column("warning_instructions", Text()),
    Column("unknown_instructions", Text()),
    Column("owner_user", String(100), nullable=False, server_default=""),
    Column("ack_utimestamp", Big, nullable=False, server_default="0"),
    Column("custom_data", Text()),
    Column("data", Tinytext),
    Column("module_status", Int, nullable=False, server_default="0"),
    Column("event_custom_id", Text()),
    Index("tevento_agente_modulo_estado", "status", "module_id"),
    Index("tevento_idx_agente", "agent_id"),
    Index("tevento_idx_agentmodule", "module_id"),
    Index("tevento_idx_utimestamp", "time"),
    **_MYSQL,
)

config = Table(
    "tconfig",
    pandora,
    Column("id_config", UInt, key="id", primary_key=True),
    Column("token", String(100), nullable=False, server_default=""),
    Column("value", Text()),
    **_MYSQL,
)

#: Planned downtimes: written by the console, carried out by a server.
downtime = Table(
    "tplanned_downtime",
    pandora,
    Column("id", Medium, primary_key=True),
    Column("name", String(100), nullable=False),
    Column("description", Text()),
    Column("date_from", Big, key="begins", nullable=False, server_default="0"),
    Column("date_to", Big, key="ends", nullable=False, server_default="0"),
    Column("executed", UTiny, nullable=False, server_default="0"),
    Column("id_group", UMedium, key="group_id", server_default="0"),
    Column("only_alerts", UTiny, nullable=False, server_default="0"),
    Column("monday", Tiny, server_default="0"),
    Column("tuesday", Tiny, server_default="0"),
    Column("wednesday", Tiny, server_default="0"),
    Column("thursday", Tiny, server_default="0"),
    Column("friday", Tiny, server_default="0"),
    Column("saturday", Tiny, server_default="0"),
    Column("sunday", Tiny, server_default="0"),
    Column("periodically_time_from", DayTime, key="time_from"),
    Column("periodically_time_to", DayTime, key="time_to"),
    Column("periodically_day_from", UInt, key="day_from"),
    Column("periodically_day_to", UInt, key="day_to"),
    Column(
        "type_downtime",
        String(100),
        key="type",
        nullable=False,
        server_default="disabled_agents_alerts",
    ),
    Column("type_execution", String(100), key="execution", nullable=False, server_default="once"),
    Column(
        "type_periodicity", String(100), key="periodicity", nullable=False, server_default="weekly"
    ),
    Column("id_user", String(255), key="user_id", nullable=False, server_default="0"),
    Column("cron_interval_from", String(100), key="cron_from", server_default=""),
    Column("cron_interval_to", String(100), key="cron_to", server_default=""),
    **_MYSQL,
    **_IDS_USED_ONCE,
)

downtime_agent = Table(
    "tplanned_downtime_agents",
    pandora,
    Column("id", UInt, primary_key=True),
    Column("id_agent", UMedium, key="agent_id", nullable=False, server_default="0"),
    Column("id_downtime", Medium, key="downtime_id", nullable=False, server_default="0"),
    Column("all_modules", Tiny, server_default="1"),
    Column("manually_disabled", Tiny, server_default="0"),
    Index("tplanned_downtime_agents_id_downtime", "downtime_id"),
    **_MYSQL,
)

downtime_module = Table(
    "tplanned_downtime_modules",
    pandora,
    Column("id", UInt, primary_key=True),
    Column("id_agent", UMedium, key="agent_id", nullable=False, server_default="0"),
    Column("id_agent_module", Int, key="module_id", nullable=False),
    Column("id_downtime", Medium, key="downtime_id", nullable=False, server_default="0"),
    Index("tplanned_downtime_modules_id_downtime", "downtime_id"),
    **_MYSQL,
)

#: Which templates of alerts are applied to which modules.  This server evaluates none of them; it
#: keeps the marks that the console and other servers read.  Never created by us.
alert = Table(
    "talert_template_modules",
    others,
    Column("id", UInt, primary_key=True),
    Column("id_agent_module", UInt, key="module_id", nullable=False),
    Column("times_fired", Int, nullable=False, server_default="0"),
    Column("disabled", Tiny, server_default="0"),
    Column("disabled_by_downtime", Tiny, nullable=False, server_default="0"),
)

# -- ours --------------------------------------------------------------------

packet = Table(
    "tpacket",
    ours,
    Column("agent_id", UInt, primary_key=True, autoincrement=False),
    Column("time", Big, primary_key=True, autoincrement=False),
    Column("digest", Digest, primary_key=True),
    Column("server", String(100), nullable=False),
    Column("arrived", Big, nullable=False),
    comment="The ledger: every stored packet, once.",
    **_MYSQL,
)

packet_hour = Table(
    "tpacket_hour",
    ours,
    Column("agent_id", UInt, primary_key=True, autoincrement=False),
    Column("hour", Big, primary_key=True, autoincrement=False),
    Column("packets", UInt, nullable=False),
    comment="The ledger folded: packets per agent and hour (epoch seconds of its start).",
    **_MYSQL,
)

agent_version = Table(
    "tagent_version",
    ours,
    Column("agent_id", UInt, primary_key=True, autoincrement=False),
    Column("version", Big, nullable=False),
    Column("newest", Big, nullable=False),
    comment="Locked and raised by every batch of the agent; newest packet time, epoch seconds.",
    **_MYSQL,
)

unique_name = Table(
    "tname",
    ours,
    Column("kind", Small, primary_key=True, autoincrement=False),
    Column("parent", UInt, primary_key=True, autoincrement=False),
    Column("key", Key, primary_key=True),
    comment="What Pandora's tables lack: one row per name, locked while it is created.",
    **_MYSQL,
)

own_times = Table(
    "tmodule_times",
    ours,
    Column("module_id", UInt, primary_key=True, autoincrement=False),
    comment="Modules that had values with times of their own, which are in no ledger.",
    **_MYSQL,
)

downtime_switch = Table(
    "tdowntime_switch",
    ours,
    Column("kind", Small, primary_key=True, autoincrement=False),
    Column("target", UInt, primary_key=True, autoincrement=False),
    Column("agent_id", UInt, nullable=False),
    comment="What planned downtimes switched off, and so only that is switched on again.",
    **_MYSQL,
)

lease = Table(
    "tlease",
    ours,
    Column("name", String(50), primary_key=True),
    Column("holder", String(32), nullable=False),
    Column("epoch", Big, nullable=False),
    Column("expires", Double(), nullable=False),
    comment="What one process does for all: who, since which epoch, until when (epoch seconds).",
    **_MYSQL,
)

refused = Table(
    "trefused",
    ours,
    Column("agent_id", UInt, primary_key=True, autoincrement=False),
    Column("key", Digest, primary_key=True),
    Column("module", String(600), nullable=False),
    Column("reason", String(30), nullable=False),
    Column("value", String(200), nullable=False),
    Column("count", Big, nullable=False),
    Column("first", Big, nullable=False),
    Column("last", Big, nullable=False),
    Index("trefused_last", "last"),
    comment="Refused of stored packets: how often, the last value, first and last (epoch seconds).",
    **_MYSQL,
)

server_process = Table(
    "tserver_process",
    ours,
    Column("id", String(32), primary_key=True),
    Column("server_name", String(100), nullable=False),
    Column("server_type", UTiny, nullable=False),
    Column("host", String(255), nullable=False),
    Column("instance", String(64), nullable=False),
    Column("pid", UInt, nullable=False),
    Column("version", String(50), nullable=False),
    Column("started", Double(), nullable=False),
    Column("heartbeat", Double(), nullable=False),
    Column("state", String(10), nullable=False),
    Column("queue", UInt, nullable=False),
    Column("oldest", Double()),
    Column("scanned", Double(), nullable=False),
    Column("threads", UInt, nullable=False),
    Column("packets_per_second", Double(), nullable=False),
    Column("rejected", UInt, nullable=False),
    Column("configuration", String(255)),
    Column("host_keys", String(255)),
    Column("authorized_keys", String(255)),
    Column("pair", String(255)),
    Column("clock_offset", Double()),
    comment="One row per server process; all times are epoch seconds of the database's clock.",
    **_MYSQL,
)

#: Our tables that a server can do without if it has no right to create them.
OPTIONAL = frozenset({refused})


# -- the rows of a new database of our own: Pandora's stock data that servers rely on --

_MODULE_TYPES = (
    (1, "generic_data", 0, "Generic numeric"),
    (2, "generic_proc", 1, "Generic boolean"),
    (3, "generic_data_string", 2, "Generic string"),
    (4, "generic_data_inc", 0, "Generic numeric incremental"),
    (5, "generic_data_inc_abs", 0, "Generic numeric incremental (absolute)"),
    (6, "remote_icmp_proc", 4, "Remote ICMP network agent, boolean data"),
    (7, "remote_icmp", 3, "Remote ICMP network agent (latency)"),
    (8, "remote_tcp", 3, "Remote TCP network agent, numeric data"),
    (9, "remote_tcp_proc", 4, "Remote TCP network agent, boolean data"),
    (10, "remote_tcp_string", 5, "Remote TCP network agent, alphanumeric data"),
    (11, "remote_tcp_inc", 3, "Remote TCP network agent, incremental data"),
    (15, "remote_snmp", 3, "Remote SNMP network agent, numeric data"),
    (16, "remote_snmp_inc", 3, "Remote SNMP network agent, incremental data"),
    (17, "remote_snmp_string", 5, "Remote SNMP network agent, alphanumeric data"),
    (18, "remote_snmp_proc", 4, "Remote SNMP network agent, boolean data"),
    (21, "async_proc", 7, "Asyncronous proc data"),
    (22, "async_data", 6, "Asyncronous numeric data"),
    (23, "async_string", 8, "Asyncronous string data"),
    (34, "remote_cmd", 10, "Remote execution, numeric data"),
    (35, "remote_cmd_proc", 10, "Remote execution, boolean data"),
    (36, "remote_cmd_string", 10, "Remote execution, alphanumeric data"),
    (37, "remote_cmd_inc", 10, "Remote execution, incremental data"),
    (100, "keep_alive", -1, "KeepAlive"),
)

_NAMES: dict[Table, dict[int, str]] = {
    os: {
        1: "Linux",
        2: "Solaris",
        3: "AIX",
        4: "BSD",
        5: "HP-UX",
        7: "Cisco",
        8: "MacOS",
        9: "Windows",
        10: "Other",
        11: "Network",
        12: "Web&#x20;Server",
        13: "Sensor",
        14: "Embedded",
        15: "Android",
        16: "VMware",
        17: "Router",
        18: "Switch",
        100: "Cluster",
    },
    group: {
        2: "Servers",
        4: "Firewalls",
        8: "Databases",
        9: "Network",
        10: "Unknown",
        11: "Workstations",
        12: "Applications",
        13: "Web",
    },
    module_group: {
        1: "General",
        2: "Networking",
        3: "Application",
        4: "System",
        5: "Miscellaneous",
        6: "Performance",
        7: "Database",
        8: "Enviromental",
        9: "Users",
        10: "Security",
    },
    custom_field: {1: "Serial&#x20;Number", 2: "Department"},
}

#: Inventory modules of Linux: what the Unix agents' inventory plugin sends.
_INVENTORY = {1: "Software", 2: "Init&#x20;services", 3: "Process", 4: "File&#x20;system"}
_LINUX = 1


def _types() -> Iterator[dict[str, object]]:
    for number, name, category, description in _MODULE_TYPES:
        yield {"id": number, "name": name, "category": category, "description": description}


def _named(names: dict[int, str]) -> list[dict[str, object]]:
    return [{"id": number, "name": name} for number, name in names.items()]


#: By table; the keys are those of the schema.
SEEDS: dict[Table, list[dict[str, object]]] = {
    module_type: list(_types()),
    **{table: _named(names) for table, names in _NAMES.items()},
    inventory_module: [{**row, "os_id": _LINUX, "code": b""} for row in _named(_INVENTORY)],
}
