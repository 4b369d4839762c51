"""The tables of a mail server's configuration: what it listens on, what it takes in, where mail goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, field_validator

from mailsuite.config.values import Duration, Networks, Size, Table, split_host_port
from mailsuite.config.values import address as address_of
from mailsuite.config.values import domain as domain_of
from mailsuite.mail.address import parse_mailbox


class TLS(Table):
    """The certificate that listeners show, and whom they trust."""

    certificate: Path | None = Field(
        default=None, description="PEM file with the certificate and its chain. Without it a self-signed one is made."
    )
    key: Path | None = Field(
        default=None, description="PEM file with the private key; by default it stands in `certificate`."
    )
    client_ca: Path | None = Field(
        default=None, description="PEM file of the authorities whose client certificates are taken for AUTH EXTERNAL."
    )


class Listen(Table):
    """One listener."""

    endpoint: str = Field(
        description='A Twisted endpoint: "tcp:25", "tcp:2525:interface=127.0.0.1", "unix:/run/lmtp.sock:mode=660", '
        '"systemd:domain=INET:index=0".'
    )
    service: Literal["smtp", "submission", "lmtp", "odmr"] = Field(
        default="smtp",
        description="What the listener is for: mail from other servers, from our own users, LMTP, or on-demand mail "
        "relay for customers (port 366).",
    )
    tls: Literal["starttls", "implicit", "none"] = Field(
        default="starttls", description="STARTTLS is offered, TLS begins with the first octet, or there is none."
    )
    trusted: Networks = Field(default=(), description="Networks whose hosts may relay here without authentication.")
    auth: bool | None = Field(
        default=None,
        description="Whether AUTH is offered; by default on submission listeners only. On an smtp listener it is for "
        "other mail servers: whoever logs in there may relay, under any sender; a customer under those of its "
        "domains.",
    )
    atrn: bool = Field(default=False, description="Whether customers may say ATRN on a submission listener too.")


class Limits(Table):
    """What a peer may do to us."""

    message_size: Size = Field(default=50 * 1024 * 1024, description="Largest message; 0 for no limit.")
    recipients: int = Field(default=1000, ge=1, description="Most recipients in one transaction.")
    connections: int = Field(default=2000, ge=1, description="Most connections at once, over all listeners.")
    connections_per_address: int = Field(
        default=100, ge=1, description="Most connections at once from one address (from one /64 with IPv6)."
    )
    errors: int = Field(default=20, ge=1, description="Refused commands after which a session ends with 421.")
    command_time: Duration = Field(default=300.0, description="Longest wait for a command.")
    content_time: Duration = Field(default=180.0, description="Longest wait for some progress of the content.")
    dead_line_time: Duration = Field(
        default=120.0,
        description="How long a peer's system may leave ours without a sign of life before the line counts as dead.",
    )


class Receive(Table):
    """How content is taken in."""

    line_ends: Literal["normalize", "reject"] = Field(
        default="normalize",
        description="A bare LF in DATA content ends a line (and is stored as CR LF), or the message is refused. "
        "A bare CR is refused always.",
    )
    trust_loopback: bool = Field(default=False, description="Whether peers on 127.0.0.0/8 and ::1 may relay.")


class Accounts(Table):
    """The directory of domains, accounts and aliases, edited by the `mailsuite` command."""

    file: Path = Field(default=Path("accounts.db"), description="The SQLite file.")
    subaddress_delimiter: str = Field(
        default="+", max_length=1, description="Separates the user from a detail in a local part; empty for none."
    )
    postmaster: str | None = Field(
        default=None, description="Who reads mail to a postmaster that is neither an account nor an alias."
    )
    default_domain: str | None = Field(default=None, description="The domain of login names that have none.")

    @field_validator("postmaster")
    @classmethod
    def _is_mailbox(cls, value: str | None) -> str | None:
        if value is not None and parse_mailbox(value) is None:
            raise ValueError("it is not an address; write it as in admin@example.org")
        return value

    @field_validator("default_domain")
    @classmethod
    def _isdomain_of(cls, value: str | None) -> str | None:
        return None if value is None else domain_of(value)


class Spool(Table):
    """The relay queue's store."""

    directory: Path = Field(default=Path("spool"), description="Where the queue lies. It must be a local file system.")
    large: Size = Field(default=256 * 1024, description="Contents above this size lie in files beside the database.")
    reserve: Size = Field(
        default=64 * 1024 * 1024,
        description="Mail is refused (452) while less than this is free, so that what is queued can still leave.",
    )
    process: bool = Field(
        default=True, description="Whether the database has a process of its own; it is faster, and costs some 30 MB."
    )


class Local(Table):
    """How mail for local mailboxes is delivered."""

    agent: str = Field(default="maildir", description="The delivery agent, a plugin.")
    options: dict[str, Any] = Field(
        default_factory=dict,
        description='What the agent is told. `maildir`: `directory` ("maildirs"), `layout` '
        '("{domain}/{local}"), `sync` ("auto", "files", "filesystem"), `process` (true).',
    )


class Route(Table):
    """Where mail for a domain goes; the first route that fits is taken."""

    domain: str = Field(description='"example.net", ".example.net" for its sub-domains, "*" for all others.')
    next_hop: str | None = Field(
        default=None,
        description='The host to relay to, "mx.example.net" or "mx.example.net:2525"; its MX is not asked.',
    )
    hold: bool = Field(default=False, description="Keep the mail until it is asked for.")
    relay: bool = Field(default=False, description="Whether strangers may send to this domain through us (backup MX).")
    lmtp: bool = Field(default=False, description="Whether the next hop speaks LMTP.")
    tls: Literal["none", "opportunistic", "required", "verified", "implicit"] = Field(
        default="opportunistic",
        description="TLS to the next hop: never, where it is offered, always, always with a certificate that "
        "proves the name, or so from the first octet.",
    )
    username: str | None = Field(default=None, description="The account we authenticate with there; TLS is needed.")
    password: SecretStr | None = Field(default=None, description="Its password.")
    password_file: Path | None = Field(default=None, description="A file whose first line is the password.")

    @field_validator("domain")
    @classmethod
    def _is_pattern(cls, value: str) -> str:
        if value == "*":
            return value
        return f".{domain_of(value[1:])}" if value.startswith(".") else domain_of(value)

    @field_validator("next_hop")
    @classmethod
    def _is_next_hop(cls, value: str | None) -> str | None:
        if value is not None:
            split_host_port(value, 25)
        return value


class Relay(Table):
    """How mail is handed to other servers."""

    tls: Literal["none", "opportunistic", "required", "verified"] = Field(
        default="opportunistic", description="TLS to hosts that the MX records name."
    )
    ca_file: Path | None = Field(
        default=None, description="PEM file of the authorities to trust; by default the system's."
    )
    port: int = Field(default=25, ge=1, le=65535, description="The port of hosts that the MX records name.")
    source_address: str | None = Field(default=None, description="The address that connections leave from.")
    concurrency: int = Field(default=5, ge=1, description="Most connections at once to one destination.")
    resolver: str | None = Field(
        default=None, description='The DNS server to ask, "127.0.0.1:53"; by default those of /etc/resolv.conf.'
    )

    @field_validator("source_address")
    @classmethod
    def _isaddress_of(cls, value: str | None) -> str | None:
        return None if value is None else address_of(value)

    @field_validator("resolver")
    @classmethod
    def _is_name_server(cls, value: str | None) -> str | None:
        if value is not None:
            address_of(split_host_port(value, 53)[0])
        return value


class Retry(Table):
    """When deferred mail is tried again."""

    first: Duration = Field(default=300.0, description="The wait after the first failure; it doubles with each.")
    longest: Duration = Field(default=4 * 3600.0, description="The longest wait.")
    jitter: float = Field(default=0.1, ge=0, lt=1, description="The part of each wait that is left to chance.")
    expire: Duration = Field(default=5 * 86400.0, description="How long mail is tried before it is returned.")
    expire_bounces: Duration = Field(default=86400.0, description="The same for reports, which are then dropped.")
