"""AUTH by SCRAM-SHA-256 of the client session, against the server's side of the mechanism."""

from base64 import b64decode, b64encode
from typing import Any

import pytest
from zope.interface import implementer

from mailsuite.interfaces import IConversation
from mailsuite.mail.session import Peer
from mailsuite.session.client_auth import NotAuthenticated, authenticate
from mailsuite.wire.core import Event
from mailsuite.wire.sasl import (
    SERVER_MECHANISMS,
    Challenge,
    ClientCredentials,
    NeedSecret,
    ServerParameters,
    Step,
    Verified,
    derive_scram_secret,
)
from mailsuite.wire.smtp.client import SmtpClientCore
from mailsuite.wire.smtp.commands import Ehlo
from tests.session.scripted import TLS, finish


@implementer(IConversation)
class ScramConversation:
    """Its peer keeps a SCRAM secret, and goes through one exchange."""

    peer = local = Peer("192.0.2.25", 465)
    line_by_line = False
    tls = TLS

    def __init__(self, password: str, *, flip: bool = False) -> None:
        self.core = SmtpClientCore(greeted=True)
        self.core.send(Ehlo("relay.example.org"))
        self.core.receive_data(b"250-mx.example.net\r\n250 AUTH SCRAM-SHA-256\r\n")
        self.core.next_event()
        self.said: list[bytes] = []
        self.verified = False
        self._flip = flip
        self._secret = derive_scram_secret(password, salt=b"0123456789abcdef", iterations=4096)
        self._stepper = SERVER_MECHANISMS[b"SCRAM-SHA-256"](ServerParameters(hostname=b"mx.example.net"))

    def send(self, message: Any) -> None:
        self.said.append(self.core.send(message))

    async def receive(self) -> Event:
        line = self.said[-1].rstrip(b"\r\n")
        if line == b"*":
            answer = b"501 5.7.0 Cancelled"
        elif line.startswith(b"AUTH "):
            answer = self._answer(self._stepper.begin(b64decode(line.split()[2])))
        else:
            answer = self._answer(self._stepper.respond(b64decode(line)))
        self.core.receive_data(answer + b"\r\n")
        event = self.core.next_event()
        assert isinstance(event, Event)
        return event

    async def drain(self) -> None:
        """Nothing is in the way."""

    def _answer(self, step: Step) -> bytes:
        if isinstance(step, NeedSecret):
            step = self._stepper.supply(self._secret)
        if isinstance(step, Challenge):
            data = step.data
            if self._flip and data.startswith(b"v="):  # the proof of another server
                data = b"v=" + b64encode(bytes(32))
            return b"334 " + b64encode(data)
        self.verified = isinstance(step, Verified)
        return b"235 2.7.0 ok" if self.verified else b"535 5.7.8 no"


class Thread:
    """Runs at once, and counts."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, function, *args):
        self.calls += 1
        return function(*args)


def test_scram_computes_in_a_thread():
    conversation, thread = ScramConversation("secret"), Thread()
    finish(authenticate(conversation, ClientCredentials("relay", "secret"), thread))
    assert conversation.verified
    assert conversation.core.authenticated
    assert thread.calls > 0
    assert b"secret" not in b"".join(conversation.said)


def test_wrong_password_is_refused():
    conversation = ScramConversation("secret")
    with pytest.raises(NotAuthenticated) as caught:
        finish(authenticate(conversation, ClientCredentials("relay", "guess"), Thread()))
    assert caught.value.reply is not None
    assert caught.value.reply.code == 535
    assert not conversation.verified


def test_server_that_cannot_prove_itself_is_left():
    conversation = ScramConversation("secret", flip=True)
    with pytest.raises(NotAuthenticated, match="cancelled"):
        finish(authenticate(conversation, ClientCredentials("relay", "secret"), Thread()))
    assert conversation.said[-1] == b"*\r\n"
