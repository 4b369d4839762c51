"""The whole configuration: read from one TOML file, checked, every fault told in one sentence."""

from __future__ import annotations

import difflib
import socket
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails

from mailsuite.config.customers import customer_value
from mailsuite.config.on_demand import Customer, OnDemand, Pull
from mailsuite.config.tables import TLS, Accounts, Limits, Listen, Local, Receive, Relay, Retry, Route, Spool
from mailsuite.config.values import Duration, Table
from mailsuite.config.values import domain as domain_of


class SettingsError(ValueError):
    """What is wrong with the configuration: one sentence for each fault."""

    def __init__(self, *sentences: str) -> None:
        super().__init__("\n".join(sentences))
        self.sentences = sentences


class Settings(Table):
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
    on_demand: OnDemand = OnDemand()
    customer: tuple[Customer, ...] = Field(default=(), description="Customers of on-demand mail relay.")
    pull: tuple[Pull, ...] = Field(default=(), description="Providers whose mail for us is pulled.")

    @field_validator("hostname")
    @classmethod
    def _is_hostname(cls, value: str) -> str:
        return domain_of(value)

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
        problems += _check_password(name, route)
        if route.username is not None and route.tls in ("none", "opportunistic"):
            problems.append(f"{name}.tls: credentials go over TLS only; set it to required, verified or implicit.")
    problems += [*_check_customers(settings), *_check_pulls(settings)]
    for number, listen in enumerate(settings.listen):
        if listen.service == "submission" and listen.tls == "none":
            problems.append(f"listen[{number}].tls: submission needs TLS; set it to starttls or implicit.")
    return problems


def _check_customers(settings: Settings) -> Iterator[str]:
    names: set[str] = set()
    owners: dict[str, str] = {}
    for number, customer in enumerate(settings.customer):
        key = f"customer[{number}]"
        if customer.name.casefold() in names:
            yield f"{key}.name: there is another customer {customer.name!r}; give this one its own name."
        names.add(customer.name.casefold())
        for domain in customer.domains:
            if owners.setdefault(domain, customer.name) != customer.name:
                yield f"{key}.domains: {domain} is held for {owners[domain]!r} already; leave it to one."
        yield from _check_twice(key, customer.domains)
        yield from _check_password(key, customer)
        if customer_value(customer).is_warned_too_early:
            yield f"{key}.warning_time: it is longer than hold_time; make it shorter than that, or 0 for no warning."
        if customer.recipients == "command" and not customer.recipients_command:
            yield f'{key}.recipients_command: recipients = "command" needs it; add the command.'


def _check_pulls(settings: Settings) -> Iterator[str]:
    names: set[str] = set()
    for number, pull in enumerate(settings.pull):
        key = f"pull[{number}]"
        if pull.name in names:
            yield f"{key}.name: there is another pull {pull.name!r}; give this one its own name."
        names.add(pull.name)
        if pull.method == "atrn" and pull.username is None:
            yield f"{key}.username: ATRN needs authentication; add the customer's name there."
        if pull.method == "etrn" and not pull.domains:
            yield f"{key}.domains: ETRN asks for each by name; add them."
        yield from _check_twice(key, pull.domains)
        yield from _check_password(key, pull)
        if pull.username is not None and pull.tls == "none":
            yield f"{key}.tls: credentials go over TLS only; set it to required, verified or implicit."


def _check_password(key: str, table: Customer | Pull | Route) -> Iterator[str]:
    if table.password is not None and table.password_file is not None:
        yield f"{key}.password: it stands beside password_file; keep one of them."
    elif table.password is not None and not table.password.get_secret_value():
        yield f"{key}.password: it is empty; write the password there, or take it out."
    elif isinstance(table, Customer) or table.username is None:
        return  # a customer may have a certificate
    elif table.password is None and table.password_file is None:
        yield f"{key}.username: it needs a password; add `password` or `password_file`."


def _check_twice(key: str, domains: tuple[str, ...]) -> Iterator[str]:
    for number, domain in enumerate(domains):
        if domain in domains[:number]:
            yield f"{key}.domains: {domain} stands there twice; name it once."


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
    if kind == "tuple_type":
        # An only value is shown as it should be; tables and passwords never are.
        shown = f'["{value}"]' if isinstance(value, str) and _is_plain(value, key) else "[...]"
        return f"{source}: {key}: write a list, as in {shown}."
    if kind == "too_short" and isinstance(value, (list, tuple)):
        return f"{source}: {key}: name at least one."
    # Never a whole table: it may hold a password.
    said = f" {value!r}" if isinstance(value, (str, int, float)) and "password" not in key else ""
    if kind == "value_error":
        return f"{source}: {key} ={said}: {reason}."
    return f"{source}: {key} ={said}: {reason}; give it such a value."


def _is_plain(value: str, key: str) -> bool:
    return "password" not in key and value.isprintable() and not set('"\\') & set(value)


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
