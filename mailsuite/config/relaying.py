"""The tables about mail that leaves: routes, agents, how other servers are spoken to, when, and what senders hear."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, field_validator

from mailsuite.config.values import Duration, Rate, Size, Table, split_host_port
from mailsuite.config.values import address as address_of
from mailsuite.config.values import domain as domain_of
from mailsuite.mail.address import parse_mailbox

MX = "mx:"
"""Stands before a domain whose MX is asked, among next hops."""


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Hops = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Waits = tuple[Duration, ...]


class Agent(Table):
    """A delivery agent that routes may name."""

    name: str = Field(pattern="^[a-z][a-z0-9-]*$", description="Its name in routes, and in the queue.")
    type: str = Field(description='The plugin: "pipe", "discard", or one that is installed.')
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="What the agent is told. `pipe`: `command` (a list, with {sender}, {recipient} and others in its "
        "words), `timeout`, `concurrency`; see docs/routing.md.",
    )


class Route(Table):
    """Where mail goes; the first route of which all conditions fit is taken."""

    domain: str = Field(
        default="*", description='"example.net", ".example.net" for its sub-domains, "*" for all others.'
    )
    recipient: str | None = Field(
        default=None,
        description='Only for this recipient, "user@example.net"; with "*" for anything in the local part.',
    )
    sender: str | None = Field(
        default=None,
        description='Only for mail of this sender: "user@example.org", "@example.org", "<>" for reports.',
    )
    next_hop: Hops = Field(
        default=(),
        description='The host to relay to, "mx.example.net" or "mx.example.net:2525", whose MX is not asked; or '
        '"mx:example.net" for the hosts of its MX. Several in a list are tried in their order.',
    )
    agent: str | None = Field(default=None, description="The delivery agent ([[agent]]) that gets the mail.")
    hold: bool = Field(default=False, description="Keep the mail until it is asked for.")
    relay: bool = Field(default=False, description="Whether strangers may send to this domain through us (backup MX).")
    lmtp: bool = Field(default=False, description="Whether the next hop speaks LMTP.")
    tls: Literal["none", "opportunistic", "required", "verified", "dane", "implicit"] | None = Field(
        default=None,
        description="TLS to the next hop: never (whatever DANE and MTA-STS say), where it is offered, always, always "
        "with a certificate that proves the name, always with one that DANE proves, or proved from the first octet; by "
        "default as in [relay].",
    )
    username: str | None = Field(default=None, description="The account we authenticate with there; TLS is needed.")
    password: SecretStr | None = Field(default=None, description="Its password.")
    password_file: Path | None = Field(default=None, description="A file whose first line is the password.")
    certificate: Path | None = Field(
        default=None, description="PEM file with the certificate that we show where the next hop asks for one."
    )
    key: Path | None = Field(default=None, description="PEM file with its key; by default it stands in `certificate`.")
    source_address: str | None = Field(
        default=None, description="The address that connections leave from; by default as in [relay]."
    )
    concurrency: int | None = Field(
        default=None, ge=1, description="Most connections at once to one destination; by default as in [relay]."
    )
    rate: Rate | None = Field(
        default=None, description='Most messages to one destination, "10/s" or "600/h"; by default as in [relay].'
    )
    schedule: Waits = Field(default=(), description="The waits between attempts; by default as in [retry].")
    expire: Duration | None = Field(default=None, description="How long mail is tried; by default as in [retry].")
    delay_report: Duration | None = Field(
        default=None, description="When the sender is told of a delay; by default as in [retry], 0 for never."
    )

    @field_validator("domain")
    @classmethod
    def _is_pattern(cls, value: str) -> str:
        if value == "*":
            return value
        return f".{domain_of(value[1:])}" if value.startswith(".") else domain_of(value)

    @field_validator("recipient")
    @classmethod
    def _is_recipient(cls, value: str | None) -> str | None:
        if value is not None:
            local, at, host = value.rpartition("@")
            if parse_mailbox(local.replace("*", "x") + at + host) is None:
                raise ValueError("it is not an address; write it as in user@example.net or *-list@example.net")
        return value

    @field_validator("sender")
    @classmethod
    def _is_sender(cls, value: str | None) -> str | None:
        if value is None or value == "<>":
            return value
        if parse_mailbox(f"x{value}" if value.startswith("@") else value) is None:
            raise ValueError("it is not an address; write it as in user@example.org, @example.org or <>")
        return value

    @field_validator("next_hop")
    @classmethod
    def _are_next_hops(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for hop in value:
            if hop.startswith(MX):
                domain_of(hop.removeprefix(MX))
            else:
                split_host_port(hop, 25)
        return value

    @field_validator("source_address")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        return None if value is None else address_of(value)

    @property
    def has_conditions(self) -> bool:
        """Whether it looks at more than the domain."""
        return (self.recipient, self.sender) != (None, None)

    @property
    def leads(self) -> bool:
        """Whether it leads somewhere of its own, not to the MX of a domain."""
        return bool(self.next_hop) or self.hold or self.agent is not None

    @property
    def keys_of_how(self) -> list[str]:
        """What it says of its own way to speak to other servers."""
        return self._said(
            "lmtp", "tls", "username", "password", "password_file", "certificate", "key", "source_address"
        )

    @property
    def keys_of_pace(self) -> list[str]:
        """What it says of its own pace."""
        return self._said("concurrency", "rate")

    @property
    def keys_of_times(self) -> list[str]:
        """What it says of its own times."""
        return self._said("schedule", "expire", "delay_report")

    @property
    def says_how(self) -> bool:
        """Whether it has its own way to speak to other servers."""
        return bool(self.keys_of_how)

    @property
    def says_how_fast(self) -> bool:
        """Whether it has its own pace."""
        return bool(self.keys_of_pace)

    @property
    def says_when(self) -> bool:
        """Whether it has its own times."""
        return bool(self.keys_of_times)

    def _said(self, *keys: str) -> list[str]:
        return [key for key in keys if getattr(self, key) not in (None, False, ())]


class Relay(Table):
    """How mail is handed to other servers."""

    tls: Literal["none", "opportunistic", "required", "verified", "dane"] = Field(
        default="opportunistic",
        description="TLS to hosts that the MX records name. Where DANE or MTA-STS ask for more, they get it; but with "
        '"none" neither is asked.',
    )
    dane: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Whether TLSA records are heeded (RFC 7672). That needs a `resolver` that validates DNSSEC and is "
        "reached by a safe way; auto: where one on this machine does so.",
    )
    mta_sts: bool = Field(default=True, description="Whether MTA-STS policies are heeded (RFC 8461).")
    tls_reports: bool = Field(
        default=True, description="Whether those who ask for it get a daily report on TLS (RFC 8460)."
    )
    tls_reports_from: str | None = Field(
        default=None,
        description="The address that these reports come from, by default the postmaster of the host name; they are "
        "signed for its domain, see docs/operating.md.",
    )
    ca_file: Path | None = Field(
        default=None, description="PEM file of the authorities to trust; by default the system's."
    )
    certificate: Path | None = Field(
        default=None, description="PEM file with the certificate that we show where a next hop asks for one."
    )
    key: Path | None = Field(default=None, description="PEM file with its key; by default it stands in `certificate`.")
    port: int = Field(default=25, ge=1, le=65535, description="The port of hosts that the MX records name.")
    source_address: str | None = Field(default=None, description="The address that connections leave from.")
    concurrency: int = Field(
        default=20, ge=1, description="Most connections at once to one destination; they begin with few."
    )
    connections: int = Field(default=200, ge=1, description="Most connections at once to all destinations.")
    connections_per_source: int | None = Field(
        default=None, ge=1, description="Most connections at once that leave from one source address."
    )
    rate: Rate | None = Field(default=None, description='Most messages to one destination, as in "10/s" or "600/h".')
    total_rate: Rate | None = Field(default=None, description="Most messages to all destinations together.")
    own_addresses: tuple[str, ...] = Field(
        default=(),
        description="Addresses that lead to this server beside those it listens on, as those of a gateway that "
        "translates addresses (NAT). Mail is never relayed to itself.",
    )
    resolver: str | None = Field(
        default=None, description='The DNS server to ask, "127.0.0.1:53"; by default those of /etc/resolv.conf.'
    )

    @field_validator("source_address")
    @classmethod
    def _isaddress_of(cls, value: str | None) -> str | None:
        return None if value is None else address_of(value)

    @field_validator("own_addresses")
    @classmethod
    def _are_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(address_of, value))

    @field_validator("tls_reports_from")
    @classmethod
    def _is_ascii_mailbox(cls, value: str | None) -> str | None:
        address = None if value is None else parse_mailbox(value)
        if value is not None and (address is None or not address.local_part.isascii()):
            raise ValueError("it is not an address in ASCII; write it as in tls-reports@example.org")
        return value

    @field_validator("resolver")
    @classmethod
    def _is_name_server(cls, value: str | None) -> str | None:
        if value is not None:
            address_of(split_host_port(value, 53)[0])
        return value


class Retry(Table):
    """When deferred mail is tried again, and when its sender hears of it."""

    schedule: Waits = Field(
        default=(),
        description='The waits between attempts, as in ["5m", "15m", "1h"]; the last one is repeated. Without it they '
        "double from `first` to `longest`.",
    )
    first: Duration = Field(default=300.0, description="The wait after the first failure; it doubles with each.")
    longest: Duration = Field(default=4 * 3600.0, description="The longest wait.")
    greylisted: Duration = Field(
        default=90.0,
        description="The first wait after a recipient was answered 450 or 451, as hosts do that know us not yet.",
    )
    jitter: float = Field(default=0.1, ge=0, lt=1, description="The part of each wait that is left to chance.")
    expire: Duration = Field(default=5 * 86400.0, description="How long mail is tried before it is returned.")
    expire_bounces: Duration = Field(default=86400.0, description="The same for reports, which are then dropped.")
    delay_report: Duration = Field(
        default=4 * 3600.0, description="When the sender is told, once, that mail is late; 0 for never."
    )


class Reports(Table):
    """What senders hear of mail that was not delivered, late, or delivered where they want to know."""

    double_bounces: Literal["drop", "postmaster"] = Field(
        default="drop", description="What becomes of a report that cannot be delivered; it is always logged."
    )
    return_size: Size = Field(
        default=50 * 1024, description="The largest message that a report returns whole, where the sender wants that."
    )


class Forwarding(Table):
    """How mail is passed on that an alias sends elsewhere."""

    srs_domain: str | None = Field(
        default=None,
        description="The local domain of senders that are rewritten (SRS), so that whoever checks them by SPF takes "
        "what aliases forward; without it they stay as they are.",
    )
    srs_secret_file: Path | None = Field(
        default=None,
        description="A file whose first line is the secret of SRS, twenty characters at least; by default one is made.",
    )

    @field_validator("srs_domain")
    @classmethod
    def _is_domain(cls, value: str | None) -> str | None:
        return None if value is None else domain_of(value)
