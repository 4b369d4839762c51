"""The tables of a mail server's configuration: what it listens on, what it takes in, where it keeps that."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from mailsuite.config.values import Duration, Networks, Size, Table
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
    history_time: Duration = Field(
        default=30 * 86400.0, description="How long the history of a message is kept after it has left the queue."
    )


class Local(Table):
    """How mail for local mailboxes is delivered."""

    agent: str = Field(default="maildir", description="The delivery agent, a plugin.")
    options: dict[str, Any] = Field(
        default_factory=dict,
        description='What the agent is told. `maildir`: `directory` ("maildirs"), `layout` '
        '("{domain}/{local}"), `sync` ("auto", "files", "filesystem"), `process` (true).',
    )
