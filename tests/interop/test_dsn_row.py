"""Two servers of ours with a Postfix between them, and DSN requested (RFC 3461): who reports what, and to whom.

Mail from a.test for b.test goes by way of Postfix; so does mail for away.test, which the last server cannot hand on.
Mail for near.test goes to the last server at once, mail for store.test by LMTP. Python's `email` reads the reports.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import pytest

from tests.instance import Instance
from tests.interop.conftest import require
from tests.peers import postfix
from tests.peers.postfix import Postfix
from tests.peers.process import LOOPBACK, free_port, wait_until
from tests.reports import ReadReport, read_report

pytestmark = pytest.mark.interop

ENVID, ORCPT = "QQ314159+3D", "rfc822;bob+2Bold@former.test"
DELAY = 3
BODY = "the only line of the body"
CASES = [
    ("success", "SUCCESS", "bob@b.test"),
    ("success-near", "SUCCESS,FAILURE", "bob@near.test"),
    ("success-lmtp", "SUCCESS", "bob@store.test"),
    ("failure", "FAILURE", "nobody@b.test"),
    ("failure-near", "FAILURE", "nobody@near.test"),
    ("failure-lmtp", "FAILURE", "nobody@store.test"),
    ("delay", "DELAY", "x@away.test"),
    ("delay-near", "DELAY", "x@dead.test"),
    ("never", "NEVER", "nobody@b.test"),
    ("never-near", "NEVER", "nobody@near.test"),
    ("never-lmtp", "NEVER", "nobody@store.test"),
    ("never-delay", "NEVER", "x@dead.test"),
    ("failure-only", "FAILURE", "bob@b.test"),
    ("success-only", "SUCCESS", "nobody@near.test"),
    ("delay-only", "DELAY", "bob@store.test"),
]
RETURNS = ("HDRS", "FULL")
USERS = [f"{name}-{ret.lower()}" for name, _, _ in CASES for ret in RETURNS]


class Row(NamedTuple):
    first: Instance
    postfix: Postfix
    last: Instance


@pytest.fixture(autouse=True, scope="module")
def needs_postfix() -> None:
    require(postfix.why_missing())


@pytest.fixture(scope="module")
def row(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Row]:
    """The row, after all messages have been sent and enough time has passed for every report."""
    directory = tmp_path_factory.mktemp("row")
    nobody = f"{LOOPBACK}:{free_port()}"
    settings = {"receive.trust_loopback": True, "retry.delay_report": DELAY}
    last = Instance(directory / "b", "b.test", users=["bob"], settings=settings)
    with last.accounts() as accounts:
        for domain in ("near.test", "store.test"):
            accounts.add_domain(domain)
            accounts.add_user(f"bob@{domain}", None)
    with ExitStack() as stack:
        between = Postfix(domain=None, next_hop=(LOOPBACK, last.smtp_port))
        routes: list[dict[str, Any]] = [
            {"domain": "near.test", "next_hop": f"{LOOPBACK}:{last.smtp_port}"},
            {"domain": "store.test", "next_hop": f"{LOOPBACK}:{last.lmtp_port}", "lmtp": True},
            {"domain": "dead.test", "next_hop": nobody},
            {"next_hop": f"{LOOPBACK}:{between.port}"},
        ]
        first = Instance(directory / "a", users=USERS, routes=routes, settings=settings)
        last.routes = [
            {"domain": "a.test", "next_hop": f"{LOOPBACK}:{first.smtp_port}", "relay": True},
            {"domain": "away.test", "next_hop": nobody, "relay": True},
        ]
        last.configure()
        for server in (last, between, first):
            stack.enter_context(server)
        for name, notify, recipient in CASES:
            for ret in RETURNS:
                send(first, f"{name}-{ret.lower()}", notify, recipient, ret)
        expected = {user for user in USERS if not user.startswith("never") and "-only" not in user}
        wait_until(lambda: all(first.messages(user) for user in expected), timeout=30, why=first.log)
        wait_until(lambda: between.queued() == 0, timeout=10, why=between.log)
        time.sleep(2)  # for what must not come
        yield Row(first, between, last)
    for server in (first, last):
        server.check_log()


def send(server: Instance, user: str, notify: str, recipient: str, ret: str) -> None:
    with server.client() as client:
        client.ehlo()
        assert client.mail(server.address(user), [f"RET={ret}", f"ENVID={ENVID}"])[0] == 250
        assert client.rcpt(recipient, [f"NOTIFY={notify}", f"ORCPT={ORCPT}"])[0] == 250
        assert client.data(f"Subject: {user}\r\n\r\n{BODY}\r\n".encode())[0] == 250


def reports(row: Row, user: str) -> list[ReadReport]:
    """What a user has got: reports, and nothing else."""
    return [read_report(path.read_bytes().replace(b"\n", b"\r\n")) for path in row.first.messages(user)]


def check(report: ReadReport, user: str, recipient: str, action: str, reporter: str) -> None:
    """Verify what every report says."""
    assert report.message["Return-Path"] == "<>"
    assert report.message["To"] == f"{user}@a.test"
    assert report.of_message["Reporting-MTA"] == f"dns; {reporter}"
    assert report.of_message["Original-Envelope-Id"] == "QQ314159="
    (fields,) = report.recipients
    assert fields["Action"] == action
    assert fields["Final-Recipient"].lower().replace(" ", "") == f"rfc822;{recipient}"
    assert fields["Original-Recipient"].lower().replace(" ", "") == "rfc822;bob+old@former.test"
    assert fields["Status"][0] == {"delivered": "2", "delayed": "4", "failed": "5"}[action]
    assert f"Subject: {user}".encode() in report.returned


@pytest.mark.parametrize("ret", RETURNS)
@pytest.mark.parametrize(
    ("name", "recipient", "action", "reporter"),
    [
        ("success", "bob@b.test", "delivered", "mail.b.test"),
        ("success-near", "bob@near.test", "delivered", "mail.b.test"),
        ("success-lmtp", "bob@store.test", "delivered", "mail.b.test"),
        ("failure", "nobody@b.test", "failed", "mail.relay.test"),
        ("failure-near", "nobody@near.test", "failed", "mail.a.test"),
        ("failure-lmtp", "nobody@store.test", "failed", "mail.a.test"),
        ("delay", "x@away.test", "delayed", "mail.b.test"),
        ("delay-near", "x@dead.test", "delayed", "mail.a.test"),
    ],
)
def test_who_asks_is_told_once_by_whoever_knows(
    row: Row, name: str, recipient: str, action: str, reporter: str, ret: str
) -> None:
    user = f"{name}-{ret.lower()}"
    (report,) = reports(row, user)
    check(report, user, recipient, action, reporter)
    # RFC 3461 section 4.3: "only ... for failed"; of others the header comes back.
    returns_all = ret == "FULL" and action == "failed"
    assert (BODY.encode() in report.returned) == returns_all
    assert report.returned_type == ("message/rfc822" if returns_all else "text/rfc822-headers")
    if action == "failed":
        assert "550 5.1.1" in report.recipients[0]["Diagnostic-Code"]


@pytest.mark.parametrize("user", [user for user in USERS if user.startswith("never") or "-only" in user])
def test_what_nobody_wants_to_hear_is_not_told(row: Row, user: str) -> None:
    assert reports(row, user) == []


@pytest.mark.parametrize(("domain", "count"), [("b.test", 4), ("near.test", 2), ("store.test", 4)])
def test_what_was_to_arrive_has_arrived_once(row: Row, domain: str, count: int) -> None:
    box = row.last.data / "maildirs" / domain / "bob" / "new"
    assert len(list(box.iterdir())) == count
