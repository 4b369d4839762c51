"""`mailsuite.embedding` in memory: what is offered when, and whose a message is. docs/embedding.md is run elsewhere."""

from collections.abc import Callable
from pathlib import Path

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailsuite.embedding import Intake, Received, smtp_factory
from mailsuite.interfaces import IAuthenticator, IDraft, IRouter, SpoolFull
from mailsuite.mail.route import Destination, Target
from mailsuite.net.selfsigned import make_self_signed
from mailsuite.net.tls import ServerTLS
from mailsuite.wire.smtp.offer import Offer

OFFER = Offer("mail.example")
PEER = IPv4Address("TCP", "192.0.2.7", 40_000)


@implementer(IRouter)
class Anywhere:
    async def resolve(self, recipient, submitter, *, trusted, sender=None, is_report=False):
        return [Target(recipient, self.destination(recipient))]

    def destination(self, address, sender=None):
        return Destination("anywhere")


@implementer(IAuthenticator)
class Nobody:
    async def check_password(self, authcid, authzid, password):
        raise AssertionError("nobody logs in here")

    async def secret(self, authcid, kind):
        raise AssertionError("nobody logs in here")

    async def authorize(self, authcid, authzid, *, external):
        raise AssertionError("nobody logs in here")


class Inbox:
    """Takes messages; waits where it is told to."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.gate: Deferred[None] | None = None
        self.error: Exception | None = None

    async def take(self, received: Received) -> None:
        if self.gate is not None:
            await self.gate
        if self.error is not None:
            raise self.error
        self.received.append(received)


class Client:
    """A peer of a factory, without a socket."""

    def __init__(self, factory) -> None:
        self._protocol = factory.buildProtocol(PEER)
        self._transport = StringTransport(peerAddress=PEER)
        self._protocol.makeConnection(self._transport)

    def say(self, *lines: str) -> list[str]:
        """Say lines, and return those that are answered."""
        self._protocol.dataReceived("".join(f"{line}\r\n" for line in lines).encode())
        return self.heard()

    def heard(self) -> list[str]:
        answer = self._transport.value().decode()
        self._transport.clear()
        return answer.splitlines()

    def leave(self) -> None:
        self._protocol.connectionLost(Failure(ConnectionDone()))


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def client(inbox: Inbox) -> Callable[..., Client]:
    clock = Clock()
    clock.advance(1_700_000_000.0)

    def connect(offer: Offer = OFFER, **options) -> Client:
        return Client(smtp_factory(offer, Anywhere(), Intake(inbox.take, clock), clock, **options))

    return connect


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ServerTLS:
    return ServerTLS(*make_self_signed(Path(tmp_path_factory.mktemp("tls")), "mail.example"))


def features(client: Client) -> list[str]:
    return [line[4:] for line in client.say("EHLO client.example") if line.startswith("250")][1:]


ENVELOPE = ("EHLO c", "MAIL FROM:<a@b.example>", "RCPT TO:<x@y.example>", "DATA")
CONTENT = ("Subject: x", "", "y", ".")


def test_message_is_given_away_before_its_250(client, inbox):
    inbox.gate = Deferred()
    peer = client()
    assert peer.say(*ENVELOPE)[-1].startswith("354 ")
    assert peer.say(*CONTENT) == []
    inbox.gate.callback(None)
    [received] = inbox.received
    assert peer.heard() == [f"250 2.0.0 Queued as {received.queue_id}"]
    assert str(received.envelope.reverse_path) == "a@b.example"
    assert [str(target.address) for target in received.targets] == ["x@y.example"]
    assert received.content.startswith(b"Received: from c ([192.0.2.7])\r\n\tby mail.example with ESMTP\r\n")
    assert received.content.endswith(b"Subject: x\r\n\r\ny\r\n")


def test_coroutine_that_has_begun_ends_though_the_peer_goes_away(client, inbox):
    inbox.gate = Deferred()
    peer = client()
    peer.say(*ENVELOPE, *CONTENT)
    peer.leave()
    inbox.gate.callback(None)
    assert len(inbox.received) == 1


def test_spool_errors_of_the_coroutine_are_told_as_those_of_a_spool(client, inbox):
    inbox.error = SpoolFull("no room")
    assert client().say(*ENVELOPE, *CONTENT)[-1].startswith("452 4.3.1 ")


def test_lmtp_answers_for_each_recipient(client, inbox):
    peer = client(Offer("mail.example", lmtp=True))
    peer.say("LHLO c", "MAIL FROM:<>", "RCPT TO:<x@y.example>", "RCPT TO:<z@y.example>", "DATA")
    assert [line[:3] for line in peer.say("", ".")] == ["250", "250"]
    assert len(inbox.received) == 1


def test_without_tls_and_authenticator_neither_is_offered(client):
    assert not [name for name in features(client()) if name.startswith(("STARTTLS", "AUTH"))]


def test_what_shows_a_password_is_not_offered_in_plaintext(client, tls):
    assert "AUTH SCRAM-SHA-256 CRAM-MD5" in features(client(authenticator=Nobody(), tls=tls))
    only_plain = Offer("mail.example", mechanisms=(b"PLAIN",))
    assert not [name for name in features(client(only_plain, authenticator=Nobody())) if name.startswith("AUTH")]


def test_submission_wants_tls_first(client, tls):
    peer = client(authenticator=Nobody(), tls=tls, submission=True)
    assert "STARTTLS" in features(peer)
    assert peer.say("MAIL FROM:<a@b.example>")[0].startswith("530 5.7.0 ")


@pytest.mark.parametrize(
    "options", [{"implicit": True}, {"submission": True}, {"submission": True, "authenticator": Nobody()}]
)
def test_what_cannot_be_together_is_refused(client, options):
    with pytest.raises(ValueError, match="needs"):
        client(**options)


def test_drafts_are_those_of_the_interface(inbox):
    intake = Intake(inbox.take, Clock())
    first, second = intake.draft(), intake.draft()
    assert verifyObject(IDraft, first)
    assert first.queue_id != second.queue_id
