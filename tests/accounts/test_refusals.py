"""Logins that were refused: who is named in the log, and what is written down of a customer."""

import pytest
from twisted.internet.task import Clock
from twisted.logger import capturedLogs

from mailsuite.accounts.refusals import Refusals
from mailsuite.interfaces import DirectoryUnavailable, SpoolError
from mailsuite.mail.history import EventKind
from mailsuite.mail.session import Identity, RefusedLogin
from tests.accounts.conftest import result_of

KNOWN = {"ship": Identity("Ship", customer="Ship"), "alice": Identity("alice@example.org")}


class Spool:
    def __init__(self):
        self.events = []
        self.failure = None

    async def record(self, events):
        if self.failure is not None:
            raise self.failure
        self.events += events


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def spool():
    return Spool()


@pytest.fixture
def refusals(spool, clock):
    async def find(login, *, external=False):
        if login == "locked":
            raise DirectoryUnavailable("locked")
        return KNOWN.get(login) if not external else None

    return Refusals(find, spool, clock)


def refuse(refusals, login, host="192.0.2.7", **more):
    """The lines that were logged."""
    with capturedLogs() as events:
        result_of(refusals(RefusedLogin(login, host, "PLAIN", 535, **more)))
    return [event["log_format"].format(**event) for event in events]


@pytest.mark.parametrize(
    ("login", "name"),
    [("alice", "alice@example.org"), ("ship", "Ship"), ("hunter2", "an unknown name"), ("locked", "an unknown name")],
)
def test_only_names_that_exist_are_logged(refusals, login, name):
    assert refuse(refusals, login) == [f"authentication failed for {name} from 192.0.2.7 by PLAIN: 535"]


def test_a_name_in_a_certificate_is_another_one(refusals):
    assert "for an unknown name" in refuse(refusals, "ship", external=True)[0]


def test_why_somebody_who_was_right_is_refused_is_told(refusals):
    line = "authentication failed for Ship from a local socket by PLAIN: 535, not from one of its networks"
    assert refuse(refusals, "ship", "", reason="not from one of its networks") == [line]


def test_a_customers_history_has_one_in_a_minute(refusals, spool, clock):
    for _ in range(3):
        refuse(refusals, "ship")
        clock.advance(10)
    clock.advance(40)
    refuse(refusals, "ship")
    assert [(one.kind, one.subject, one.detail["times"]) for one in spool.events] == [
        (EventKind.LOGIN_REFUSED, "Ship", 1),
        (EventKind.LOGIN_REFUSED, "Ship", 3),
    ]
    assert spool.events[0].detail["address"] == "192.0.2.7"


def test_accounts_and_strangers_have_no_history(refusals, spool):
    refuse(refusals, "alice")
    refuse(refusals, "nobody")
    assert spool.events == []


def test_a_spool_that_fails_is_told(refusals, spool):
    spool.failure = SpoolError("on fire")
    assert refuse(refusals, "ship")[1] == "the refused login of Ship is not written down: on fire"
