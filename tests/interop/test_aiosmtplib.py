"""aiosmtplib as a client, with asyncio's own TLS. It needs no Debian package."""

import asyncio
import gc
import warnings
from collections.abc import Iterator
from email.message import EmailMessage
from typing import Any

import pytest
from aiosmtplib import SMTP, SMTPException, SMTPRecipientsRefused, send

from tests.instance import PASSWORD, Instance, any_certificate
from tests.peers.process import LOOPBACK

pytestmark = [
    pytest.mark.interop,
    # aiosmtplib does not wait until its transports are closed; what it leaves to the collector is its own affair.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Let no later test find what these leave."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def message(subject: str, sender: str = "alice@a.test") -> EmailMessage:
    made = EmailMessage()
    made["Subject"], made["From"], made["To"] = subject, sender, "bob@a.test"
    made.set_content("hello\n.\nend\n")
    return made


def client(port: int, **options: Any) -> SMTP:
    return SMTP(
        hostname=LOOPBACK,
        port=port,
        local_hostname="client.test",
        timeout=10,
        tls_context=any_certificate(),
        **options,
    )


def test_it_takes_up_starttls_by_itself(server: Instance) -> None:
    async def talk() -> None:
        async with client(server.smtp_port) as smtp:
            await smtp.send_message(message("aio plain"))

    asyncio.run(talk())
    received = server.find("aio plain", "bob")
    assert "with ESMTPS" in received["Received"]
    assert received.get_content() == "hello\n.\nend\n"


@pytest.mark.parametrize("implicit", [False, True])
def test_submission(server: Instance, implicit: bool) -> None:
    port = server.submissions_port if implicit else server.submission_port
    subject = f"aio submission {implicit}"
    done = asyncio.run(
        send(
            message(subject),
            hostname=LOOPBACK,
            port=port,
            use_tls=implicit,
            start_tls=not implicit,
            tls_context=any_certificate(),
            username="alice@a.test",
            password=PASSWORD,
            timeout=10,
        )
    )
    assert done[0] == {}
    assert "with ESMTPSA" in server.find(subject, "bob")["Received"]


@pytest.mark.parametrize("mechanism", ["plain", "login", "crammd5"])
def test_each_of_its_mechanisms(server: Instance, mechanism: str) -> None:
    async def talk() -> int:
        async with client(server.submission_port, start_tls=True) as smtp:
            await smtp.ehlo()
            log_in = getattr(smtp, f"auth_{mechanism}")
            return (await log_in("alice@a.test", PASSWORD)).code

    assert asyncio.run(talk()) == 235


def test_refusals_reach_it_as_what_they_are(server: Instance) -> None:
    async def talk() -> None:
        async with client(server.smtp_port) as smtp:
            with pytest.raises(SMTPRecipientsRefused) as nobody:
                await smtp.sendmail("x@client.test", ["nobody@a.test"], "Subject: x\r\n\r\n")
            assert nobody.value.recipients[0].code == 550
            with pytest.raises(SMTPException) as no_login:
                await smtp.login("alice@a.test", "wrong")
            assert "AUTH" in str(no_login.value)
            assert (await smtp.noop()).code == 250

    asyncio.run(talk())


def test_many_connections_at_once(server: Instance) -> None:
    async def one(number: int) -> None:
        async with client(server.smtp_port) as smtp:
            for turn in range(5):
                await smtp.send_message(message(f"aio {number} {turn}"))

    async def all_of_them() -> None:
        await asyncio.gather(*map(one, range(10)))

    asyncio.run(all_of_them())
    expected = {f"aio {number} {turn}" for number in range(10) for turn in range(5)}
    for subject in expected:
        assert server.find(subject, "bob")["Subject"] == subject
