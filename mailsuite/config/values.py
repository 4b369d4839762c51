"""What values of the configuration look like: durations, sizes, networks, hosts, domains."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from types import UnionType
from typing import Annotated, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.fields import FieldInfo

from mailsuite.mail.address import domain_key, is_domain
from mailsuite.mail.duration import seconds_of

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_RATE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*/\s*([smhd])\s*")
_SIZE = re.compile(r"\s*(\d+)\s*(|[KMG]i?B?)\s*", re.IGNORECASE)
_FACTORS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


def _size(value: object) -> object:
    if isinstance(value, str):
        match = _SIZE.fullmatch(value)
        if match is None:
            raise ValueError('give octets as a number, or text such as "256 KiB", "50 MiB"')
        return int(match[1]) * _FACTORS[match[2][:1].lower()]
    return value


def _rate(value: object) -> object:
    if isinstance(value, str):
        match = _RATE.fullmatch(value)
        if match is None or not float(match[1]):
            raise ValueError('give messages and a time, as in "10/s", "100/m" or "600/h"')
        return float(match[1]) / _SECONDS[match[2]]
    return value


def domain(value: str) -> str:
    """A domain in the form in which domains are compared. Raises `ValueError` with the cure."""
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


def address(value: str) -> str:
    """An IP address as it is usually written. Raises `ValueError` with the cure."""
    try:
        return str(ip_address(value))
    except ValueError:
        raise ValueError("it is not an IP address; write it as in 192.0.2.1 or 2001:db8::1") from None


Duration = Annotated[float, BeforeValidator(seconds_of), Field(ge=0, allow_inf_nan=False)]
Rate = Annotated[float, BeforeValidator(_rate), Field(gt=0, allow_inf_nan=False)]  # messages a second
Size = Annotated[int, BeforeValidator(_size), Field(ge=0)]


def is_duration(field: FieldInfo) -> bool:
    """Whether a key takes a duration."""
    return _read_by(field) is seconds_of


def is_size(field: FieldInfo) -> bool:
    """Whether a key takes a size."""
    return _read_by(field) is _size


def is_rate(field: FieldInfo) -> bool:
    """Whether a key takes a rate."""
    return _read_by(field) is _rate


def _read_by(field: FieldInfo) -> object:
    # `Duration | None` is told by what is in the union.
    inner = get_args(field.annotation) if get_origin(field.annotation) in (Union, UnionType) else ()
    said = (*field.metadata, *(part for one in inner for part in getattr(one, "__metadata__", ())))
    return next((part.func for part in said if isinstance(part, BeforeValidator)), None)


Networks = tuple[Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)], ...]


class Table(BaseModel):
    """A table of the file: frozen, and without keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def split_host_port(text: str, default: int) -> tuple[str, int]:
    """`host`, `host:port`, `[2001:db8::1]:port`; a name in brackets is the name. Raises `ValueError` with the cure."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+|[^\[\]:/@\s]+)\]|([^\[\]:/@\s]+))(?::(\d{1,5}))?", text)
    port = default if match is None or match[3] is None else int(match[3])
    if match is None or not 0 < port < 65536:
        raise ValueError("it is not a host; write it as in mx.example.net:25 or [2001:db8::1]:25")
    return match[1] or match[2], port
