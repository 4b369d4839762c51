"""The service as a whole, where it cannot start: it says why once, starts nothing, and stops as any other."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailsuite.config import Settings
from mailsuite.service import MailService, makeService


@pytest.fixture
def taken() -> Iterator[list[str]]:
    """The endpoints of two ports that another program has."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    yield [f"tcp:{one.getsockname()[1]}:interface=127.0.0.1" for one in sockets]
    for one in sockets:
        one.close()


def made(directory: Path, endpoints: list[str], reactor, failures: list[Exception]) -> MailService:
    table = {
        "hostname": "mail.example",
        "listen": [{"endpoint": endpoint} for endpoint in endpoints],
        "relay": {"resolver": "127.0.0.1:53"},
    }
    settings = Settings.parse(table, "m.toml", directory)
    service = makeService(settings, reactor=reactor, on_failure=failures.append)
    assert isinstance(service, MailService)
    return service


def test_ports_in_use_are_told_once_and_nothing_is_started(tmp_path, reactor, run, taken):
    failures: list[Exception] = []
    service = made(tmp_path, taken, reactor, failures)
    service.startService()
    assert [taken[0] in str(failure) for failure in failures] == [True]

    async def stop() -> None:
        await service.stopService()

    run(stop())
    assert not (tmp_path / "mailsuite-data" / "spool").exists()


def test_a_queue_without_its_accounts_is_not_sent_away(tmp_path, reactor, run):
    # A directory made anew has no domain: what is queued for our own would go to their MX, or be bounced.
    failures: list[Exception] = []
    data = tmp_path / "mailsuite-data"

    async def start_and_stop() -> None:
        service = made(tmp_path, ["tcp:0:interface=127.0.0.1"], reactor, failures)
        service.startService()
        await service.stopService()

    run(start_and_stop())
    assert not failures
    (data / "accounts.db").unlink()
    run(start_and_stop())
    assert f"{data / 'accounts.db'} is missing" in str(failures[0])
    assert not (data / "accounts.db").exists()
