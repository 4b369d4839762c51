"""What the tests of on-demand mail relay share: a provider of ours, mail that it holds, and a customer of ours."""

from __future__ import annotations

import smtplib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.instance import PASSWORD, Instance
from tests.peers.process import LOOPBACK, wait_until

USER = "ship"
HOME = "ship.test"
SECOND = "boat.test"
CREDENTIALS = {"user": USER, "password": PASSWORD}


def customer(**settings: Any) -> dict[str, Any]:
    """The `[[customer]]` table of a customer with two domains."""
    return {"name": USER, "password": PASSWORD, "domains": [HOME, SECOND], **settings}


def provider(directory: Path, *, settings: Mapping[str, Any] | None = None, **terms: Any) -> Instance:
    """A provider with one customer, who has these terms besides."""
    return Instance(directory / "provider", "provider.test", customers=[customer(**terms)], settings=settings)


def pull(port: int, **settings: Any) -> dict[str, Any]:
    """A `[[pull]]` table: by STARTTLS with whatever certificate, soon again after a failure, and not else."""
    return {
        "name": "test",
        "provider": f"{LOOPBACK}:{port}",
        "username": USER,
        "password": PASSWORD,
        "tls": "required",
        "interval": 0,
        "retry_first": 0.05,
        "retry_longest": 0.05,
        **settings,
    }


def home(directory: Path, *pulls: Mapping[str, Any], settings: Mapping[str, Any] | None = None) -> Instance:
    """The customer's own server, where alice lives."""
    return Instance(directory / "home", HOME, pulls=pulls, settings=settings)


def content(number: int, octets: int = 0) -> bytes:
    """A message whose subject is its number; no line of it is like another, so that none can be missing unseen."""
    lines = b"".join([b"%030d %031d\r\n" % (number, line) for line in range(octets // 64)])
    return b"From: x@away.test\r\nSubject: %d\r\n\r\n.dot\r\n" % number + lines


def hand_in(server: Instance, numbers: Iterable[int], *, recipient: str = f"alice@{HOME}", octets: int = 0) -> None:
    """Send numbered messages to a server, as a stranger does, and return when it holds them."""
    with smtplib.SMTP(LOOPBACK, server.smtp_port, "client.test", timeout=10) as client:
        for number in numbers:
            client.sendmail("x@away.test", [recipient], content(number, octets))


def held(server: Instance) -> int:
    """How many recipients a provider still holds mail for."""
    return len(server.queue())


def check_held(server: Instance, count: int) -> None:
    """Verify that it holds so many, none of which was tried, or will be soon."""
    wait_until(lambda: held(server) == count, why=lambda: f"{held(server)} instead of {count}: {server.log()[-3000:]}")
    assert {attempts for _, attempts, _ in server.queue()} <= {0}, server.queue()


def check_exactly_once(server: Instance, numbers: Iterable[int]) -> None:
    """Verify that alice has got each message once."""
    assert sorted(server.numbers()) == sorted(numbers)
