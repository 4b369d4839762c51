"""The typed settings: one TOML file, every key optional, every error one sentence with file, key, reason and cure.

The models are the reference: `docs/configuration.md` is generated from them, and a test holds `etc/mailsuite.toml`
against them. The defaults alone make a server that works: on the loopback, on high ports, everything below one
directory.

Durations are seconds, or text such as `"5m"`, `"4h"`, `"5d"`; sizes are octets, or text such as `"50 MiB"`. Relative
paths begin at `data_directory`, and that begins at the directory of the configuration file.
"""

from __future__ import annotations

import difflib
import re
import socket
import tomllib
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from mailsuite.mail.address import domain_key, is_domain, parse_mailbox

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([smhdw]?)\s*")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SIZE = re.compile(r"\s*(\d+)\s*(|[KMG]i?B?)\s*", re.IGNORECASE)
_FACTORS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


class SettingsError(ValueError):
    """What is wrong with the configuration: one sentence for each fault."""

    def __init__(self, *sentences: str) -> None:
        super().__init__("\n".join(sentences))
        self.sentences = sentences


def _duration(value: object) -> object:
    if isinstance(value, str):
        match = _DURATION.fullmatch(value)
        if match is None:
            raise ValueError('give seconds as a number, or text such as "30s", "5m", "4h", "5d"')
        return float(match[1]) * _SECONDS[match[2]]
    return value


def _size(value: object) -> object:
    if isinstance(value, str):
        match = _SIZE.fullmatch(value)
        if match is None:
            raise ValueError('give octets as a number, or text such as "256 KiB", "50 MiB"')
        return int(match[1]) * _FACTORS[match[2][:1].lower()]
    return value


def _domain(value: str) -> str:
    if not is_domain(value):
        raise ValueError("it is not a domain name; write it as in example.org")
    return domain_key(value)


def _network(value: object) -> object:
    if isinstance(value, str):
        try:
            return ip_network(value)
        except ValueError as error:
            raise ValueError(f'{error}; write a network as in "192.0.2.0/24" or "2001:db8::/32"') from None
    return value


def _address(value: str) -> str:
    try:
        return str(ip_address(value))
    except ValueError:
        raise ValueError("it is not an IP address; write it as in 192.0.2.1 or 2001:db8::1") from None


Duration = Annotated[float, BeforeValidator(_duration), Field(ge=0, allow_inf_nan=False)]
Size = Annotated[int, BeforeValidator(_size), Field(ge=0)]


def is_duration(field: FieldInfo) -> bool:
    """Whether a key takes a duration."""
    return _read_by(field) is _duration


def is_size(field: FieldInfo) -> bool:
    """Whether a key takes a size."""
    return _read_by(field) is _size


def _read_by(field: FieldInfo) -> object:
    return next((part.func for part in field.metadata if isinstance(part, BeforeValidator)), None)


Networks = tuple[Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)], ...]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TLS(_Table):
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


class Listen(_Table):
    """One listener."""

    endpoint: str = Field(
        description='A Twisted endpoint: "tcp:25", "tcp:2525:interface=127.0.0.1", "unix:/run/lmtp.sock:mode=660", '
        '"systemd:domain=INET:index=0".'
    )
    service: Literal["smtp", "submission", "lmtp"] = Field(
        default="smtp", description="What the listener is for: mail from other servers, from our own users, or LMTP."
    )
    tls: Literal["starttls", "implicit", "none"] = Field(
        default="starttls", description="STARTTLS is offered, TLS begins with the first octet, or there is none."
    )
    trusted: Networks = Field(default=(), description="Networks whose hosts may relay here without authentication.")
    auth: bool | None = Field(
        default=None,
        description="Whether AUTH is offered; by default on submission listeners only. On an smtp listener it is for "
        "other mail servers: whoever logs in there may relay, under any sender.",
    )


class Limits(_Table):
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


class Receive(_Table):
    """How content is taken in."""

    line_ends: Literal["normalize", "reject"] = Field(
        default="normalize",
        description="A bare LF in DATA content ends a line (and is stored as CR LF), or the message is refused. "
        "A bare CR is refused always.",
    )
    trust_loopback: bool = Field(default=False, description="Whether peers on 127.0.0.0/8 and ::1 may relay.")


class Accounts(_Table):
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
    def _is_domain(cls, value: str | None) -> str | None:
        return None if value is None else _domain(value)


class Spool(_Table):
    """The relay queue's store."""

    directory: Path = Field(default=Path("spool"), description="Where the queue lies. It must be a local file system.")
    large: Size = Field(default=256 * 1024, description="Contents above this size lie in files beside the database.")
    reserve: Size = Field(
        default=64 * 1024 * 1024,
        description="Mail is refused (452) while less than this is free, so that what is queued can still leave.",
    )


class Local(_Table):
    """How mail for local mailboxes is delivered."""

    agent: str = Field(default="maildir", description="The delivery agent, a plugin.")
    options: dict[str, Any] = Field(
        default_factory=dict,
        description='What the agent is told. `maildir`: `directory` ("maildirs"), `layout` '
        '("{domain}/{local}"), `sync` ("auto", "files", "filesystem"), `process` (true).',
    )


class Route(_Table):
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
        return f".{_domain(value[1:])}" if value.startswith(".") else _domain(value)

    @field_validator("next_hop")
    @classmethod
    def _is_next_hop(cls, value: str | None) -> str | None:
        if value is not None:
            split_host_port(value, 25)
        return value


class Relay(_Table):
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
    def _is_address(cls, value: str | None) -> str | None:
        return None if value is None else _address(value)

    @field_validator("resolver")
    @classmethod
    def _is_name_server(cls, value: str | None) -> str | None:
        if value is not None:
            _address(split_host_port(value, 53)[0])
        return value


class Retry(_Table):
    """When deferred mail is tried again."""

    first: Duration = Field(default=300.0, description="The wait after the first failure; it doubles with each.")
    longest: Duration = Field(default=4 * 3600.0, description="The longest wait.")
    jitter: float = Field(default=0.1, ge=0, lt=1, description="The part of each wait that is left to chance.")
    expire: Duration = Field(default=5 * 86400.0, description="How long mail is tried before it is returned.")
    expire_bounces: Duration = Field(default=86400.0, description="The same for reports, which are then dropped.")


class Settings(_Table):
    """The whole configuration."""

    hostname: str = Field(default_factory=socket.getfqdn, description="Our own name, as other servers know it.")
    data_directory: Path = Field(default=Path("mailsuite-data"), description="Where everything lies that is written.")
    allow_root: bool = Field(default=False, description="Whether to serve as root outside the loopback.")
    stop_time: Duration = Field(default=10.0, description="How long sessions and deliveries may end when we stop.")
    listen: tuple[Listen, ...] = Field(
        default=(
            Listen(endpoint="tcp:2525:interface=127.0.0.1"),
            Listen(endpoint="tcp:2587:interface=127.0.0.1", service="submission"),
            Listen(endpoint="tcp:2465:interface=127.0.0.1", service="submission", tls="implicit"),
        ),
        description="The listeners.",
    )
    tls: TLS = TLS()
    limits: Limits = Limits()
    receive: Receive = Receive()
    accounts: Accounts = Accounts()
    spool: Spool = Spool()
    local: Local = Local()
    route: tuple[Route, ...] = Field(default=(), description="Where mail for other domains goes.")
    relay: Relay = Relay()
    retry: Retry = Retry()

    @field_validator("hostname")
    @classmethod
    def _is_hostname(cls, value: str) -> str:
        return _domain(value)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a TOML file. Raises `SettingsError`."""
        return cls.parse(_read(path), str(path), path.parent)

    @classmethod
    def parse(cls, table: dict[str, Any], source: str, base: Path) -> Self:
        """Check a table; `source` names it in errors, relative paths begin at `base`. Raises `SettingsError`."""
        try:
            settings = cls.model_validate(table)
        except ValidationError as error:
            raise SettingsError(*(_sentence(source, cls, fault) for fault in error.errors())) from None
        problems = tuple(f"{source}: {problem}" for problem in _cross_check(settings))
        if problems:
            raise SettingsError(*problems)
        return settings.model_copy(update={"data_directory": base / settings.data_directory})

    def path(self, path: Path) -> Path:
        """Where a path of the configuration lies."""
        return self.data_directory / path


def split_host_port(text: str, default: int) -> tuple[str, int]:
    """`host`, `host:port`, `[2001:db8::1]:port`. Raises `ValueError` with the cure."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:/@\s]+))(?::(\d{1,5}))?", text)
    port = default if match is None or match[3] is None else int(match[3])
    if match is None or not 0 < port < 65536:
        raise ValueError("it is not a host; write it as in mx.example.net:25 or [2001:db8::1]:25")
    return match[1] or match[2], port


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        raise SettingsError(f"{path}: there is no such file; write one, or begin with etc/mailsuite.toml.") from None
    except OSError as error:
        raise SettingsError(f"{path}: it cannot be read ({error.strerror}); see who may read it.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: it is not TOML: {error}; mend that place.") from None


def _cross_check(settings: Settings) -> list[str]:
    """What one key alone cannot show."""
    problems = []
    if settings.tls.key is not None and settings.tls.certificate is None:
        problems.append("tls.key: there is no tls.certificate to go with it; name that too, or neither.")
    for number, route in enumerate(settings.route):
        name = f"route[{number}]"
        ways = route.hold + (route.next_hop is not None)
        if ways > 1 or not (ways or route.relay):
            problems.append(f"{name}: say either `next_hop` or `hold = true`.")
        before = next((other for other in settings.route[:number] if other.domain in ("*", route.domain)), None)
        if before is not None:
            problems.append(f"{name}: it is never reached; put it before the route for {before.domain!r}.")
        if route.username is None and (route.password, route.password_file) != (None, None):
            problems.append(f"{name}.username: there is a password without it; add it, or take the password out.")
        if route.username is not None and (route.password is None) == (route.password_file is None):
            problems.append(f"{name}.username: it needs a password; add `password` or `password_file`.")
        if route.username is not None and route.tls in ("none", "opportunistic"):
            problems.append(f"{name}.tls: credentials go over TLS only; set it to required, verified or implicit.")
    for number, listen in enumerate(settings.listen):
        if listen.service == "submission" and listen.tls == "none":
            problems.append(f"listen[{number}].tls: submission needs TLS; set it to starttls or implicit.")
    return problems


def _sentence(source: str, model: type[BaseModel], fault: ErrorDetails) -> str:
    """One fault of pydantic's in one sentence: file, key, reason, cure."""
    key = ""
    for part in fault["loc"]:
        key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else str(part)
    kind, value = fault["type"], fault.get("input")
    if kind == "extra_forbidden":
        close = difflib.get_close_matches(str(fault["loc"][-1]), _keys_beside(model, fault["loc"]), 1)
        cure = f"did you mean {close[0]}?" if close else "take it out."
        return f"{source}: {key}: there is no such key; {cure}"
    if kind == "missing":
        return f"{source}: {key}: it is missing; add it."
    reason = fault["msg"].removeprefix("Value error, ")
    reason = reason[:1].lower() + reason[1:]
    if kind == "tuple_type" and isinstance(value, dict):
        return f"{source}: {key}: there may be several of it; write its head in double brackets, [[{key}]]."
    # Never a whole table: it may hold a password.
    said = f" {value!r}" if isinstance(value, (str, int, float)) and "password" not in key else ""
    if kind == "value_error":
        return f"{source}: {key} ={said}: {reason}."
    return f"{source}: {key} ={said}: {reason}; give it such a value."


def _keys_beside(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The keys that exist in the table where a wrong one was found."""
    for part in location[:-1]:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part)
        if field is None:
            return []
        inner = field.annotation
        arguments = getattr(inner, "__args__", None)
        candidate = arguments[0] if arguments else inner
        if not (isinstance(candidate, type) and issubclass(candidate, BaseModel)):
            return []
        model = candidate
    return list(model.model_fields)
