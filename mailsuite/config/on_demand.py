"""The tables of on-demand mail relay: customers and ETRN at the provider's, pulls at the customer's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, SecretStr, field_validator

from mailsuite.config.values import Duration, Networks, Size, Table, split_host_port
from mailsuite.config.values import domain as domain_of
from mailsuite.mail.address import parse_mailbox
from mailsuite.mail.timetable import Timetable


def _timetable(value: str) -> str:
    Timetable.parse(value)
    return value


_SHORTEST_HOLD: Final = 3600.0  # seconds

Domains = tuple[Annotated[str, AfterValidator(domain_of)], ...]


class Customer(Table):
    """A customer of on-demand mail relay, for whom mail is held; `mailsuite customer` keeps others in a file."""

    name: str = Field(
        description="Its name, and the user name it logs in with: letters, digits, and any of . _ - @",
        min_length=1,
        max_length=64,
    )
    domains: Domains = Field(description="The domains that are held for it.", min_length=1)
    password: SecretStr | None = Field(default=None, description="Its password, for every mechanism.")
    password_file: Path | None = Field(default=None, description="A file whose first line is the password.")
    certificate: str | None = Field(
        default=None, description="The name in the client certificate by which it may log in (AUTH EXTERNAL)."
    )
    networks: Networks = Field(default=(), description="Where it may log in from; empty for anywhere.")
    contact: str | None = Field(default=None, description="Who is warned before mail expires.")
    hold_time: Duration = Field(
        default=21 * 86400.0, description="How long mail is held before it is returned, an hour or more."
    )
    warning_time: Duration = Field(
        default=3 * 86400.0,
        description="How long before mail expires the contact is warned, no more than `hold_time`; 0 for never.",
    )
    max_messages: int | None = Field(default=None, ge=1, description="Most messages held; past it 452 at RCPT.")
    max_size: Size | None = Field(default=None, description="Most octets held; past it 452 at RCPT.")
    pipelining: bool = Field(
        default=True, description="Whether commands are pipelined in its turns; fetchmail under TLS wants false."
    )
    turn_interval: Duration = Field(default=0.0, description="Least time between two turns; sooner gets 450.")
    shared_turns: bool = Field(
        default=False, description="Whether two turns at once share the mail; else the second gets 450."
    )
    next_hop: str | None = Field(
        default=None, description="Its server, where ETRN sends the mail; by default the MX of each domain."
    )
    recipients: Literal["any", "list", "command", "ask"] = Field(
        default="any",
        description="Which recipients exist: all, those in `recipients_file` (or named by `mailsuite customer "
        "recipients`), those for which a command ends with 0, or those that its server takes when it is asked.",
    )
    recipients_file: Path | None = Field(default=None, description="A file with a recipient in each line.")
    recipients_command: tuple[str, ...] = Field(
        default=(), description="The command and its arguments; the recipient is added as the last one."
    )

    @field_validator("hold_time")
    @classmethod
    def _is_long_enough(cls, value: float) -> float:
        if value < _SHORTEST_HOLD:
            raise ValueError('it is less than an hour, and nobody would get the mail; give more, as in "21d"')
        return value

    @field_validator("contact")
    @classmethod
    def _is_mailbox(cls, value: str | None) -> str | None:
        if value is not None and parse_mailbox(value) is None:
            raise ValueError("it is not an address; write it as in admin@example.org")
        return value

    @field_validator("next_hop")
    @classmethod
    def _is_next_hop(cls, value: str | None) -> str | None:
        if value is not None:
            split_host_port(value, 25)
        return value


class OnDemand(Table):
    """What holds for on-demand mail relay as a whole."""

    etrn: Literal["none", "customers", "authenticated", "any"] = Field(
        default="customers",
        description="Who may ask by ETRN for a node to be served: nobody, customers for their own domains (logged in, "
        "or from their networks), whoever has logged in, anybody.",
    )
    etrn_networks: Networks = Field(default=(), description="Networks whose hosts may ask for any node by ETRN.")
    etrn_interval: Duration = Field(default=60.0, description="Least time between two ETRN for one node (458).")
    turn: bool = Field(default=False, description="Whether TURN is taken from customers as ATRN for all domains.")
    turn_messages: int = Field(default=10_000, ge=1, description="Most messages in one turn.")
    checkpoint: bool = Field(
        default=True, description="Whether CHECKPOINT is offered and used: a message resumes where its line broke."
    )
    checkpoint_time: Duration = Field(default=48 * 3600.0, description="How long parts of messages are kept for that.")
    history_time: Duration = Field(default=30 * 86400.0, description="How long events are kept.")


class Pull(Table):
    """A provider whose mail for us is pulled."""

    name: str = Field(description="Its name in commands and logs.", min_length=1, max_length=64)
    provider: str = Field(
        description='Its host, "odmr.example.net" or "odmr.example.net:2366"; the port is 366, for ETRN 25.'
    )
    method: Literal["atrn", "etrn"] = Field(
        default="atrn", description="ATRN: mail comes on the same connection. ETRN: it comes on new ones, to us."
    )
    domains: Domains = Field(default=(), description="What to ask for. For ATRN, empty means all that are ours there.")
    tls: Literal["required", "verified", "implicit", "none"] = Field(
        default="verified",
        description="TLS to the provider: STARTTLS with whatever certificate, with one that proves the name, or so "
        "from the first octet. Without TLS no credentials are sent.",
    )
    username: str | None = Field(default=None, description="The customer's name there.")
    password: SecretStr | None = Field(default=None, description="Its password.")
    password_file: Path | None = Field(default=None, description="A file whose first line is the password.")
    interval: Duration = Field(default=900.0, description="Time between pulls; 0 for none by interval.")
    jitter: float = Field(default=0.1, ge=0, lt=1, description="The part of the interval that is left to chance.")
    times: tuple[Annotated[str, AfterValidator(_timetable)], ...] = Field(
        default=(), description='Times of pulls as in cron: minute, hour, day, month, weekday, "30 6 * * 1-5".'
    )
    at_start: bool = Field(default=True, description="Whether the first pull comes when the server has started.")
    retry_first: Duration = Field(default=60.0, description="The wait after a pull that failed; it doubles with each.")
    retry_longest: Duration = Field(default=3600.0, description="The longest wait.")
    push: Literal["none", "before", "after"] = Field(
        default="none",
        description="Whether mail that waits for the same host as smarthost is sent before or after the pull.",
    )
    push_host: str | None = Field(
        default=None,
        description="The host of that smarthost, as `next_hop` of its [[route]] names it; by default the provider's.",
    )

    @field_validator("push_host")
    @classmethod
    def _is_bare_host(cls, value: str | None) -> str | None:
        if value is None:
            return None
        host, port = split_host_port(value, 25)
        if split_host_port(value, 26)[1] == port:
            raise ValueError("it has a port; write the host alone, as in smtp.example.net")
        return host

    @field_validator("provider")
    @classmethod
    def _is_host(cls, value: str) -> str:
        split_host_port(value, 366)
        return value
