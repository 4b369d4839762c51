"""A `[[customer]]` table as the value that the rest of the house takes."""

from __future__ import annotations

from mailsuite.config.on_demand import Customer
from mailsuite.mail import customer as values
from mailsuite.mail.address import parse_mailbox


def customer_value(table: Customer) -> values.Customer:
    """The customer of a table, without its credentials and the file of its recipients."""
    return values.Customer(
        name=table.name,
        domains=table.domains,
        certificate=table.certificate,
        networks=table.networks,
        contact=None if table.contact is None else parse_mailbox(table.contact),
        hold_time=table.hold_time,
        warning_time=table.warning_time,
        max_messages=table.max_messages,
        max_octets=table.max_size,
        pipelining=table.pipelining,
        turn_interval=table.turn_interval,
        shared_turns=table.shared_turns,
        next_hop=table.next_hop,
        recipients=values.RecipientRule(table.recipients),
        recipients_command=table.recipients_command,
    )
