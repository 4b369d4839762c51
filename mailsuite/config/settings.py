"""The whole configuration: read from one TOML file, checked, every fault told in one sentence."""

from __future__ import annotations

import difflib
import socket
import tomllib
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails

from mailsuite.config.checks import cross_check
from mailsuite.config.on_demand import Customer, OnDemand, Pull
from mailsuite.config.relaying import Agent, Forwarding, Relay, Reports, Retry, Route
from mailsuite.config.tables import TLS, Accounts, Limits, Listen, Local, Receive, Spool
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
    agent: tuple[Agent, ...] = Field(default=(), description="Delivery agents that routes may name.")
    route: tuple[Route, ...] = Field(default=(), description="Where mail for other domains goes.")
    relay: Relay = Relay()
    retry: Retry = Retry()
    reports: Reports = Reports()
    forwarding: Forwarding = Forwarding()
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
        problems = tuple(f"{source}: {problem}" for problem in cross_check(settings))
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
    said = f" = {value!r}" if isinstance(value, (str, int, float)) and "password" not in key else ""
    if kind == "value_error":
        return f"{source}: {key}{said}: {reason}."
    return f"{source}: {key}{said}: {reason}; give it such a value."


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
