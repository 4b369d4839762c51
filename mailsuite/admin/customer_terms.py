"""A customer's terms in words: what `customer show` tells of them, and what `customer set` says has changed."""

from __future__ import annotations

from collections.abc import Mapping

from mailsuite.admin.output import in_units
from mailsuite.mail.customer import Customer, RecipientRule

_UNITS = ((86400, "d"), (3600, "h"), (60, "m"))
_RECIPIENTS: Mapping[RecipientRule, str] = {
    RecipientRule.ANY: "any",
    RecipientRule.LIST: "those on its list",
    RecipientRule.ASK: "its server is asked",
}


def terms_in_words(one: Customer) -> dict[str, str]:
    """Each term under its heading."""
    return {
        "Domains": ", ".join(one.domains),
        "Held for": in_time(one.hold_time),
        "Contact": "nobody" if one.contact is None else str(one.contact),
        "Warned": f"{in_time(one.warning_time)} before mail expires"
        if one.contact is not None and one.warning_time
        else "never",
        "Quota": _quota(one),
        "Logs in from": ", ".join(map(str, one.networks)) or "anywhere",
        "Certificate": one.certificate or "none",
        "Turns": _turns(one),
        "Next hop": one.next_hop or "the MX of each domain",
        "Recipients": _RECIPIENTS.get(one.recipients)
        or f"those that a command knows: {' '.join(one.recipients_command)}",
    }


def changes_in_words(before: Customer, after: Customer) -> str:
    """What is not as it was, in one line; empty where all is."""
    old, new = terms_in_words(before), terms_in_words(after)
    return "; ".join(f"{name.lower()}: {new[name]} (was: {old[name]})" for name in new if new[name] != old[name])


def in_time(seconds: float) -> str:
    """A time, in the units of the configuration."""
    for factor, unit in _UNITS:
        if seconds and seconds % factor == 0:
            return f"{seconds / factor:g}{unit}"
    return f"{seconds:g}s"


def _quota(one: Customer) -> str:
    parts = []
    if one.max_messages is not None:
        parts.append("1 message" if one.max_messages == 1 else f"{one.max_messages} messages")
    if one.max_octets is not None:
        parts.append(in_units(one.max_octets))
    return ", ".join(parts) or "none"


def _turns(one: Customer) -> str:
    parts = ["pipelined" if one.pipelining else "command by command"]
    parts.append("several at once share the mail" if one.shared_turns else "one at a time")
    if one.turn_interval:
        parts.append(f"{in_time(one.turn_interval)} apart")
    return ", ".join(parts)
