"""`mailsuite customer show`: what is held for a customer, until when, and how its last turns went.

It reads the directory and the queue from outside, so the server may run or not. A queue that no server has made yet
holds nothing; one that cannot be read is told.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol

import click

from mailsuite.admin.asking import opened
from mailsuite.admin.customer_terms import terms_in_words
from mailsuite.admin.customers import HasSettings
from mailsuite.admin.output import in_units, json_option, plain, print_rows
from mailsuite.admin.reading import open_spool
from mailsuite.mail.customer import Customer
from mailsuite.mail.history import Event, EventKind
from mailsuite.mail.queue import HeldMail

_TURNS: Final = (EventKind.TURN, EventKind.ETRN)
_VISITS: Final = (EventKind.TURN, EventKind.SEEN)
_LOSSES: Final = (EventKind.WARNED, EventKind.EXPIRED)
_HELD_TITLES: Final = {
    "domain": "Domain",
    "messages": "Messages",
    "octets": "Size",
    "oldest": "Oldest",
    "expires": "Expires next",
}
_TURN_TITLES: Final = {
    "time": "Time",
    "kind": "By",
    "peer": "From",
    "messages": "Messages",
    "octets": "Size",
    "seconds": "Took",
    "text": "How it ended",
}
_LOSS_TITLES: Final = {"time": "Time", "kind": "What", "messages": "Messages", "text": "Why"}
_TOLD_ALREADY: Final = ("Domains", "Quota")


class ReadsSpool(Protocol):
    """What is asked of `mailsuite.spool.reading.SpoolReader`."""

    def held(self) -> Sequence[HeldMail]:
        """As there."""

    def history(
        self,
        *,
        kind: EventKind | None = None,
        subject: str | None = None,
        queue_id: str | None = None,
        limit: int = 100,
    ) -> Sequence[Event]:
        """As there."""


@click.command("show", short_help="Show what is held for a customer, and its last turns.")
@click.argument("name")
@click.option("--last", metavar="COUNT", type=click.IntRange(0), default=10, help="How many turns. Default: 10.")
@json_option
@click.pass_obj
def show_customer(context: HasSettings, name: str, *, last: int, as_json: bool) -> None:
    """Show what is held for the customer NAME: how much, since when, when it expires, what its quota leaves.

    Its terms follow, when it was seen last, the last login that was refused, and its last turns, with what was warned
    of and what was returned to its sender because nobody came for it. That it came and there was no mail is written
    down once an hour.
    """
    from mailsuite.interfaces import SpoolError

    customer = _customer(context, name)
    try:
        spool = open_spool(context.settings)
        row = describe(customer, () if spool is None else spool.held()) | _past(spool, customer, last)
    except SpoolError as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps(row, indent=2))
    else:
        _print(row, customer, time.time())


def describe(customer: Customer, held: Iterable[HeldMail]) -> dict[str, Any]:
    """What is held, with the keys of the JSON: times are POSIX timestamps, sizes octets, None is no limit or nothing.

    `oldest` is when the oldest message arrived, `expires` when it goes back to its sender.
    """
    by_domain = {one.domain: one for one in held}
    domains = [
        _row(customer, domain, [by_domain[domain]] if domain in by_domain else []) for domain in customer.domains
    ]
    total = _row(customer, None, [by_domain[domain] for domain in customer.domains if domain in by_domain])
    del total["domain"]
    return {
        "name": customer.name,
        "domains": domains,
        "held": total,
        "hold_time": customer.hold_time,
        "terms": {
            "contact": None if customer.contact is None else str(customer.contact),
            "warning_time": customer.warning_time,
            "certificate": customer.certificate,
            "networks": list(map(str, customer.networks)),
            "next_hop": customer.next_hop,
            "turn_interval": customer.turn_interval,
            "shared_turns": customer.shared_turns,
            "pipelining": customer.pipelining,
            "recipients": customer.recipients.value,
            "recipients_command": list(customer.recipients_command),
        },
        "quota": {
            "max_messages": customer.max_messages,
            "max_size": customer.max_octets,
            "messages_left": _left(customer.max_messages, total["messages"]),
            "octets_left": _left(customer.max_octets, total["octets"]),
        },
    }


def _customer(context: HasSettings, name: str) -> Customer:
    configured = context.configured.named(name)
    if configured is not None:
        return configured
    # Not at the top: `mailsuite --help` need not wait for argon2 and SASLprep.
    from mailsuite.accounts.customers import CustomersFile

    with opened(CustomersFile, context) as directory:
        return directory.customer(name).customer


def _row(customer: Customer, domain: str | None, held: Sequence[HeldMail]) -> dict[str, Any]:
    oldest = min((one.oldest for one in held), default=None)
    return {
        "domain": domain,
        "messages": sum(one.messages for one in held),
        "octets": sum(one.octets for one in held),
        "oldest": oldest,
        "expires": None if oldest is None else oldest + customer.hold_time,
    }


def _left(limit: int | None, used: int) -> int | None:
    return None if limit is None else max(limit - used, 0)


def _past(spool: ReadsSpool | None, customer: Customer, last: int) -> dict[str, Any]:
    """The last turns, and apart from them what was lost: it may be much more."""

    def events(kinds: Iterable[EventKind]) -> list[dict[str, Any]]:
        if spool is None:
            return []
        found = [one for kind in kinds for one in spool.history(kind=kind, subject=customer.name, limit=last)]
        found.sort(key=lambda event: event.time, reverse=True)
        return [
            {"time": one.time, "kind": one.kind.value, "queue_id": one.queue_id, **one.detail} for one in found[:last]
        ]

    def latest(kinds: Iterable[EventKind]) -> dict[str, Any] | None:
        if spool is None:
            return None
        found = [one for kind in kinds for one in spool.history(kind=kind, subject=customer.name, limit=1)]
        one = max(found, key=lambda event: event.time, default=None)
        return None if one is None else {"time": one.time, **one.detail}

    return {
        "last_seen": latest(_VISITS),
        "last_refused_login": latest([EventKind.LOGIN_REFUSED]),
        "turns": events(_TURNS),
        "losses": events(_LOSSES),
    }


# ----------------------------------------------------------------------------------------------- for people


def _print(row: dict[str, Any], customer: Customer, now: float) -> None:
    held = [_held_in_words(one, now) for one in row["domains"]]
    if len(held) > 1:
        held.append(_held_in_words({"domain": "in all", **row["held"]}, now))
    print_rows(held, _HELD_TITLES, as_json=False)
    click.echo(f"\nQuota: {_quota_in_words(row['quota'])}.")
    for heading, words in terms_in_words(customer).items():
        if heading not in _TOLD_ALREADY:
            click.echo(plain(f"{heading}: {words}."))
    click.echo(plain(f"Last seen: {_visit_in_words(row['last_seen'], now)}."))
    if row["last_refused_login"] is not None:
        click.echo(plain(f"Last refused login: {_visit_in_words(row['last_refused_login'], now)}."))
    if row["turns"]:
        click.echo("\nLast turns:\n")
        print_rows([_turn_in_words(one) for one in row["turns"]], _TURN_TITLES, as_json=False)
    else:
        click.echo("No turn is on record.")
    if row["losses"]:
        click.echo("\nWarned of, and returned to the sender:\n")
        print_rows([_loss_in_words(one) for one in row["losses"]], _LOSS_TITLES, as_json=False)


def _visit_in_words(one: dict[str, Any] | None, now: float) -> str:
    from mailsuite.delivery.retry import span

    if one is None:
        return "never, as far as the record goes"
    peer, by = one.get("address") or "a local socket", one.get("mechanism")
    how = f" by {by}" if by else ""
    when = f"{_clock(one['time'])} ({span(max(now - one['time'], 0.0))} ago)"
    return _printable(f"{when} from {peer}{how}, {one.get('text', '')}")


def _held_in_words(one: dict[str, Any], now: float) -> dict[str, object]:
    from mailsuite.delivery.retry import span

    oldest, expires = one["oldest"], one["expires"]
    left = "" if expires is None else f"in {span(expires - now)}" if expires > now else "now"
    return {
        "domain": one["domain"],
        "messages": one["messages"],
        "octets": in_units(one["octets"]),
        "oldest": "-" if oldest is None else f"{_clock(oldest)} ({span(max(now - oldest, 0.0))} ago)",
        "expires": "-" if expires is None else f"{_clock(expires)} ({left})",
    }


def _quota_in_words(quota: dict[str, Any]) -> str:
    parts = []
    if quota["max_messages"] is not None:
        parts.append(f"{quota['messages_left']} of {quota['max_messages']} messages left")
    if quota["max_size"] is not None:
        parts.append(f"{in_units(quota['octets_left'])} of {in_units(quota['max_size'])} left")
    return ", ".join(parts) or "none"


def _turn_in_words(one: dict[str, Any]) -> dict[str, object]:
    """A turn; or an ETRN, which is two events: what was asked for, and what was sent on another connection."""
    octets, seconds = one.get("octets"), one.get("seconds")
    end = one.get("text")
    if end is None:
        end = f"asked for {one.get('node', '-')}"
    elif one.get("complete") is False:
        end = f"broke off: {end}"
    if one.get("times", 1) > 1:
        end += f" ({one['times']} times)"
    left = [f"{one[key]} {key}" for key in ("deferred", "failed") if one.get(key)]
    return {
        "time": _clock(one["time"]),
        "kind": "ATRN" if one["kind"] == EventKind.TURN else "ETRN",
        "peer": one.get("address") or "-",
        "messages": one.get("messages", "-"),
        "octets": "-" if octets is None else in_units(octets),
        "seconds": "-" if seconds is None else f"{seconds:.1f} s",
        "text": _printable("; ".join([str(end), *left])),
    }


def _loss_in_words(one: dict[str, Any]) -> dict[str, object]:
    is_warning = one["kind"] == EventKind.WARNED
    text = "the contact was warned" if is_warning else f"{one['queue_id']}: {one.get('text', 'its time was over')}"
    return {
        "time": _clock(one["time"]),
        "kind": "warned" if is_warning else "returned",
        "messages": one.get("messages", 1),
        "text": text,
    }


def _printable(text: str) -> str:
    """A peer may have had a hand in it, and it goes to a terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
