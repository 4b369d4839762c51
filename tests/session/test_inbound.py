"""The inbound session beside its dialogues: how it ends, what it logs, whom it trusts, what it hands over."""

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from zope.interface.verify import verifyObject

from mailsuite.interfaces import DirectoryUnavailable, IAuthenticator, IConversation, IDraft, IRouter, SpoolFull
from mailsuite.mail.session import Identity, Peer, SecretKind
from mailsuite.session.handover import Handover
from mailsuite.session.inbound import Door, InboundSession
from mailsuite.wire.core import ConnectionClosed, PeerTooSlow, Phase, RemoteProtocolError
from mailsuite.wire.smtp.server import SmtpServerCore, State
from tests.dialogues.dialogue import parse_dialogue
from tests.dialogues.house import House
from tests.dialogues.runners import MemoryConversation

HEAD = "offer: starttls auth=PLAIN,LOGIN\nuser: fred secret fred@example.org\n"
MESSAGE = b"MAIL FROM:<fred@example.org>\r\nRCPT TO:<anna@example.net>\r\nDATA\r\nA: b\r\n\r\n.\r\n"


@pytest.fixture
def logged() -> Iterator[list[LogEvent]]:
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


def lines_of(events: list[LogEvent]) -> list[str]:
    return [
        formatEvent(event) for event in events if str(event.get("log_namespace", "")).startswith("mailsuite.session")
    ]


class Running:
    """A session under way, and what became of it."""

    def __init__(self, door: Door, peer: Peer | None = None, *, secure: bool = False) -> None:
        core, session = door.open(secure=secure)
        self.core: SmtpServerCore = core
        self.conversation = MemoryConversation(core, peer=peer or Peer("192.0.2.7", 40_000))
        self.result: list[Any] = []
        self.deferred: Deferred[Any] = Deferred.fromCoroutine(session(self.conversation))
        self.deferred.addBoth(self.result.append)

    def say(self, octets: bytes) -> bytes:
        """What is answered."""
        self.conversation.out.clear()
        self.conversation.feed(octets)
        return bytes(self.conversation.out)


@pytest.fixture
def house() -> House:
    return House(parse_dialogue("house", HEAD))


def test_fakes_keep_the_interfaces(house: House) -> None:
    assert verifyObject(IRouter, house.router)
    assert verifyObject(IAuthenticator, house.door.authenticator)
    assert verifyObject(IDraft, house.spool.draft())
    assert verifyObject(IConversation, Running(house.door).conversation)


@pytest.mark.parametrize(
    "said", [b"", b"EHLO a\r\n", b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<anna@example.net>\r\nDATA\r\nhalf"]
)
def test_slow_peer_is_told_and_left(house: House, said: bytes) -> None:
    running = Running(house.door)
    if said:
        running.say(said)
    running.conversation.out.clear()
    assert running.conversation.fail(PeerTooSlow(Phase.COMMAND))
    assert running.conversation.out == b"421 4.4.2 Timeout, closing the channel\r\n"
    assert running.result == [None]
    assert house.spool.open_drafts == 0


def test_slow_peer_within_auth_is_told_and_left(house: House) -> None:
    running = Running(house.door)
    assert running.say(b"EHLO a\r\nAUTH LOGIN\r\n").endswith(b"334 VXNlcm5hbWU6\r\n")
    running.conversation.out.clear()
    running.conversation.fail(PeerTooSlow(Phase.COMMAND))
    assert running.conversation.out == b"421 4.4.2 Timeout, closing the channel\r\n"
    assert running.result == [None]


def test_lost_connection_ends_the_session_in_silence(house: House, logged: list[LogEvent]) -> None:
    running = Running(house.door)
    running.say(b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<anna@example.net>\r\nDATA\r\nhalf")
    running.conversation.out.clear()
    running.conversation.fail(ConnectionClosed("lost"))
    assert running.result == [None]
    assert running.conversation.out == b""
    assert house.spool.messages == []
    assert house.spool.open_drafts == 0
    assert lines_of(logged) == []


def test_broken_protocol_is_for_the_driver(house: House) -> None:
    running = Running(house.door)
    running.say(b"EHLO a\r\n")
    running.conversation.fail(RemoteProtocolError("what is this"))
    assert running.result[0].check(RemoteProtocolError)


@pytest.mark.parametrize(
    "said",
    [
        b"MAIL FROM:<>\r\nRCPT TO:<anna@example.net>\r\n",
        b"AUTH PLAIN AGZyZWQAc2VjcmV0\r\n",
    ],
)
def test_cancelled_while_somebody_behind_the_door_works(said: bytes, logged: list[LogEvent]) -> None:
    house = House(parse_dialogue("house", HEAD), slow=True)
    running = Running(house.door)
    running.say(b"EHLO a\r\n" + said)
    running.conversation.out.clear()
    running.deferred.cancel()
    assert running.result[0].check(CancelledError)
    assert running.conversation.out == b""
    assert lines_of(logged) == []


def test_cancelled_within_the_commit_leaves_the_commit_alone() -> None:
    house = House(parse_dialogue("house", HEAD), slow=True)
    running = Running(house.door)
    running.say(b"EHLO a\r\n" + MESSAGE)
    while house.spool.drafts == [] or house.spool.drafts[0].state != "committing":
        assert house.pace.go_on()
    running.deferred.cancel()
    assert running.result[0].check(CancelledError)
    assert house.spool.drafts[0].state == "committing"  # `abort` after `commit` was called does nothing


def test_accepted_message_is_logged(house: House) -> None:
    lines: list[str] = []
    running = Running(replace(house.door, log=lines.append))
    running.say(b"EHLO a\r\n" + MESSAGE + b"AUTH PLAIN AGZyZWQAc2VjcmV0\r\n" + MESSAGE)
    size = len(house.spool.messages[0].content)
    assert lines[0] == f"Q1: from=<fred@example.org> of 192.0.2.7 for 1 recipient, {size} octets: queued"
    assert lines[1].startswith("Q2: from=<fred@example.org> of 192.0.2.7 as fred for 1 recipient, ")


def test_peer_without_an_address_is_logged_as_a_local_socket(house: House) -> None:
    lines: list[str] = []
    running = Running(replace(house.door, log=lines.append), Peer(""))
    running.say(b"EHLO a\r\n" + MESSAGE.replace(b"fred@example.org", b""))
    assert lines[0].startswith("Q1: from=<> of a local socket for 1 recipient, ")
    assert house.spool.messages[0].content.startswith(b"Received: from a\r\n\tby mx.example.net")


def test_message_that_was_not_accepted_is_not_logged_as_one(house: House) -> None:
    lines: list[str] = []
    running = Running(replace(house.door, log=lines.append))
    assert b"\r\n554 " in running.say(b"EHLO a\r\n" + MESSAGE.replace(b"A: b", b"A: \rb"))
    house.spool.failures["commit"] = SpoolFull("no room")
    assert running.say(MESSAGE).endswith(b"452 4.3.1 Insufficient system storage\r\n")
    assert lines == [
        "refused: from=<fred@example.org> of 192.0.2.7: 554 5.6.0 A bare CR stands in the content",
        "refused: from=<fred@example.org> of 192.0.2.7: 452 4.3.1 Insufficient system storage",
    ]


def test_a_refused_recipient_is_logged_with_its_reason(house: House) -> None:
    lines: list[str] = []
    running = Running(replace(house.door, log=lines.append))
    running.say(b"EHLO a\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<x@nowhere.example>\r\n")
    assert lines == ["refused: from=<a@b.example> to=<x@nowhere.example> of 192.0.2.7: 550 5.7.1 Relaying denied"]


@pytest.mark.parametrize(
    "said", [b"AUTH PLAIN AGZyZWQAd3Jvbmctc2VjcmV0\r\n", b"AUTH LOGIN ZnJlZA==\r\nd3Jvbmctc2VjcmV0\r\n"]
)
def test_failed_authentication_is_logged_without_the_secret(house: House, logged: list[LogEvent], said: bytes) -> None:
    running = Running(house.door)
    assert running.say(b"EHLO a\r\n" + said).endswith(b"535 5.7.8 Authentication credentials invalid\r\n")
    (line,) = lines_of(logged)
    assert line.startswith("authentication failed from 192.0.2.7 by ")
    assert line.endswith(": 535")
    assert "secret" not in repr(logged)


class NoDirectory:
    """An `IAuthenticator` whose directory cannot be read."""

    async def check_password(self, authcid: str, authzid: str, password: bytes) -> Identity:
        raise DirectoryUnavailable("locked")

    async def secret(self, authcid: str, kind: SecretKind) -> None:
        raise DirectoryUnavailable("locked")

    async def authorize(self, authcid: str, authzid: str, *, external: bool) -> Identity:
        raise ZeroDivisionError("a defect")


def test_unreadable_directory_is_a_temporary_failure(house: House, logged: list[LogEvent]) -> None:
    running = Running(replace(house.door, authenticator=NoDirectory()))
    said = running.say(b"EHLO a\r\nAUTH PLAIN AGZyZWQAc2VjcmV0\r\nNOOP\r\n")
    assert said.endswith(b"454 4.7.0 Temporary authentication failure\r\n250 2.0.0 OK\r\n")
    assert lines_of(logged)[0] == "the directory cannot be asked: locked"
    assert "secret" not in repr(logged)


def test_offer_without_anybody_to_ask_is_not_implemented(house: House) -> None:
    running = Running(replace(house.door, authenticator=None))
    assert running.say(b"EHLO a\r\nAUTH PLAIN AGZyZWQAc2VjcmV0\r\n").endswith(b"502 5.5.1 Command not implemented\r\n")


def test_defect_within_auth_ends_the_exchange_alone(house: House, logged: list[LogEvent]) -> None:
    door = replace(
        house.door, authenticator=NoDirectory(), offer=replace(house.door.offer, mechanisms=(b"PLAIN", b"EXTERNAL"))
    )
    running = Running(door)
    running.conversation.tls = replace(house.tls_facts, peer_name="fred")
    said = running.say(b"EHLO a\r\nAUTH EXTERNAL =\r\nNOOP\r\n")
    assert said.endswith(b"451 4.3.0 Local error in processing, try again later\r\n250 2.0.0 OK\r\n")
    assert [event for event in logged if "log_failure" in event]


def test_starttls_hands_over_to_strangers(house: House) -> None:
    """Fresh objects are the amnesia that RFC 3207 section 4.2 demands."""
    running = Running(house.door)
    running.say(b"EHLO a\r\nSTARTTLS\r\n")
    (handover,) = running.result
    assert isinstance(handover, Handover)
    assert handover.tls == "TLS"
    assert handover.core is not running.core
    assert isinstance(handover.core, SmtpServerCore)
    assert handover.core.offer is house.door.secure_offer
    assert handover.core.state is State.INITIAL
    assert isinstance(handover.session, InboundSession)


def test_door_without_tls_that_offers_it_goes_on_without(house: House) -> None:
    running = Running(replace(house.door, tls=None))
    assert running.say(b"EHLO a\r\nSTARTTLS\r\n").endswith(b"454 4.7.0 TLS not available due to temporary reason\r\n")
    assert running.say(b"NOOP\r\n") == b"250 2.0.0 OK\r\n"


@pytest.mark.parametrize(
    ("networks", "host", "trusted"),
    [
        ((), "192.0.2.7", False),
        (("192.0.2.0/24",), "192.0.2.7", True),
        (("192.0.2.0/24",), "192.0.3.7", False),
        (("192.0.2.0/24",), "::ffff:192.0.2.7", True),
        (("192.0.2.0/24",), "2001:db8::1", False),
        (("2001:db8::/32", "192.0.2.0/24"), "2001:db8::1", True),
        (("fe80::/10",), "fe80::1%eth0", True),
        (("::1/128",), "127.0.0.1", False),
        (("0.0.0.0/0", "::/0"), "", False),
    ],
)
def test_trust_goes_by_network(house: House, networks: tuple[str, ...], host: str, trusted: bool) -> None:
    door = replace(house.door, trusted=tuple(ip_network(network) for network in networks))
    assert door.trusts(host) is trusted
    running = Running(door, Peer(host, 1))
    said = running.say(b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<wilma@elsewhere.example>\r\n")
    assert said.endswith(b"250 2.1.5 Recipient OK\r\n") is trusted


def test_recipients_are_resolved_for_who_asks(house: House) -> None:
    running = Running(house.door)
    running.say(b'EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<anna@example.net>\r\nRCPT TO:<"b o b"@example.net>\r\n')
    assert [str(address) for address in house.router.asked] == ["anna@example.net", '"b o b"@example.net']


def test_envelope_says_how_it_came(house: House) -> None:
    running = Running(house.door)
    running.say(b"EHLO a\r\nAUTH PLAIN AGZyZWQAc2VjcmV0\r\n")
    running.say(MESSAGE.replace(b"org>", b"org> BODY=8BITMIME SMTPUTF8"))
    running.say(MESSAGE.replace(b"fred@example.org", b""))
    first, second = (message.envelope for message in house.spool.messages)
    assert (str(first.reverse_path), str(first.body), first.smtputf8) == ("fred@example.org", "8BITMIME", True)
    assert (second.reverse_path, str(second.body), second.smtputf8) == (None, "7BIT", False)
    assert {first.submitter, second.submitter} == {"fred"}


def test_same_target_twice_is_delivered_once(house: House) -> None:
    running = Running(house.door)
    running.say(b"EHLO a\r\nMAIL FROM:<>\r\n" + b"RCPT TO:<anna@example.net>\r\n" * 3 + b"DATA\r\nA: b\r\n\r\n.\r\n")
    (message,) = house.spool.messages
    assert [str(target.address) for target in message.targets] == ["anna@example.net"]
    assert b"for <" not in message.content  # three recipients were named: the line names none
