"""Reasons for refusing a part of a packet while the packet itself is stored: codes and texts."""

from __future__ import annotations

from enum import StrEnum


class Refusal(StrEnum):
    """One reason: its code (stored in the database), its text, and what to do about it."""

    text: str
    remedy: str

    def __new__(cls, code: str, text: str, remedy: str) -> Refusal:
        """A member, equal to its code."""
        member = str.__new__(cls, code)
        member._value_ = code
        member.text = text
        member.remedy = remedy
        return member

    NOT_A_NUMBER = (
        "not-a-number",
        "not a number",
        "change the module's type or what the agent sends",
    )
    OUT_OF_BOUNDS = (
        "out-of-bounds",
        "outside of the module's min and max",
        "change these bounds or what the agent sends",
    )
    NO_VALUE = ("no-value", "no value", "look at what the module runs on its agent")
    UNKNOWN_TYPE = (
        "unknown-type",
        "the module's type is unknown",
        "use one of Pandora's module types",
    )
    TOO_MANY_MODULES = (
        "too-many-modules",
        "the agent has as many modules as it may",
        "delete modules or raise max_modules_per_agent",
    )
    NO_NAME = ("no-name", "a module without a name", "name the module")
    NAME_TOO_LONG = ("name-too-long", "the module's name is too long", "shorten the name")
    NOT_LEARNING = (
        "not-learning",
        "a new module of an agent that does not learn",
        "set the agent's mode to learning or create the module in the console",
    )
    TIME = (
        "unreadable-time",
        "the value's time cannot be read",
        "write it as YYYY-MM-DD HH:MM:SS or as epoch seconds",
    )
    TIME_AHEAD = (
        "time-ahead",
        "the value's time is more than max_ahead ahead of the server's clock",
        "set the agent's clock",
    )
    PACKET_TIME = (
        "unreadable-packet-time",
        "the packet's time cannot be read, so its values have none",
        "write it as YYYY-MM-DD HH:MM:SS",
    )
    STATUS = (
        "unknown-status",
        "the status is not CRITICAL, WARNING or NORMAL, so thresholds decide",
        "change what the agent sends",
    )
    SETTING = (
        "unreadable-setting",
        "a setting of a new module is not a number and counts as zero",
        "set it in the console, and correct what the agent sends",
    )
    OFFSET = (
        "unreadable-offset",
        "timezone_offset is not a number of hours within a day and is ignored",
        "write it as a number such as -3 or 5.5",
    )
    EVENT = (
        "unreadable-event",
        "an event is not Base64 of JSON with data",
        "change what the agent sends",
    )
    TOO_MANY_EVENTS = (
        "too-many-events",
        "more events than one packet may bring",
        "send them in several packets",
    )
    INVENTORY = (
        "unknown-inventory",
        "the agent's system has no inventory module of this name",
        "create it in the console",
    )
    CUSTOM_FIELD = (
        "unknown-field",
        "there is no custom field of this name",
        "create it in the console",
    )
    GROUP = (
        "unknown-group",
        "there is no group of this name, so another one was set",
        "create the group and move the agent or module there",
    )
    TAG = ("unknown-tag", "there is no tag of this name", "create it in the console")
    MORE = (
        "more",
        "further refusals of this agent, which are only counted",
        "deal with those that are listed",
    )


_TEXTS = {reason.value: reason.text for reason in Refusal}


def words(code: str) -> str:
    """The text of a stored code, or the code itself if another version has written it."""
    return _TEXTS.get(code, code)
