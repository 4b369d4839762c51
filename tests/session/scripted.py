"""Neighbours of a client session, faked: the conversation (with a real core) by a script, the run by a list.

A script is made of lines `S: ...` and `C: ...` as in tests/dialogues/client. `C:` lines that stand together are what
must have been said when the session waits; no reply is given before. `X: close`, `X: slow` and `X: cancel` end the
connection at that point; so does the end of the script.
"""

from collections.abc import Coroutine, Iterable, Sequence
from itertools import chain, repeat
from textwrap import dedent
from typing import Any

from twisted.internet.defer import CancelledError
from zope.interface import implementer

from mailsuite.interfaces import IConversation, IQueueRun
from mailsuite.mail.address import Address
from mailsuite.mail.content import Content, MemoryContent
from mailsuite.mail.envelope import Body, Envelope
from mailsuite.mail.options import NO_WISHES, PLAIN, MessageOptions, RecipientOptions
from mailsuite.mail.queue import Delivery, Message, Outcome, Recipient
from mailsuite.mail.route import RELAY, Destination
from mailsuite.mail.session import Peer, TLSFacts
from mailsuite.wire.core import (
    NEED_DATA,
    ConnectionClosed,
    EndOfFile,
    Event,
    PeerTooSlow,
    RemoteProtocolError,
    Violation,
)
from mailsuite.wire.smtp.client import SmtpClientCore
from tests.wire.smtp.client_dialogue import Cut, whole

TLS = TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256)


def finish(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine returns that never has to wait."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise AssertionError("the coroutine waits for something that is not there")


def read_script(script: str) -> list[tuple[str, bytes]]:
    """Who does what, in order."""
    steps = []
    for line in dedent(script).splitlines():
        if line and not line.startswith("#"):
            side, colon, said = line.partition(":")
            assert side in "SCX", line
            assert colon, line
            steps.append((side, said.removeprefix(" ").encode() + b"\r\n"))
    return steps


@implementer(IConversation)
class ScriptedConversation:
    """A conversation whose peer follows a script, whatever is said; what is said is compared with it."""

    peer = Peer("192.0.2.25", 25)
    local = Peer("192.0.2.1", 40000)
    line_by_line = False

    def __init__(
        self,
        core: SmtpClientCore,
        script: str | list[tuple[str, bytes]],
        *,
        tls: TLSFacts | None = None,
        cut: Cut = whole,
    ) -> None:
        self.core = core
        self.tls = tls
        self.said = b""
        self.drained = 0
        self._steps = read_script(script) if isinstance(script, str) else list(script)
        self._cut = cut
        self._out = b""
        self._pieces: list[bytes] = []

    async def receive(self) -> Event:
        while True:
            event = self.core.next_event()
            if isinstance(event, Violation):
                raise RemoteProtocolError(event.reason)
            if isinstance(event, EndOfFile):
                raise ConnectionClosed("the peer has ended the connection")
            if isinstance(event, Event):
                return event
            assert event is NEED_DATA
            if not self._pieces:
                self._turn()
            self.core.receive_data(self._pieces.pop(0))

    def send(self, message: Any) -> None:
        self._out += self.core.send(message)

    async def drain(self) -> None:
        self.drained += 1
        self._end_if_scripted()

    @property
    def all_said(self) -> bytes:
        """Everything that was said, also what nothing was waited for after."""
        return self.said + self._out

    def check(self) -> None:
        """Fail where the session has said something else, or ended too early."""
        self._compare()
        assert self._steps == [], f"the session has left out {self._steps}"

    def _turn(self) -> None:
        """It is the peer's turn."""
        self._compare()
        self._end_if_scripted()
        replies = b"".join(self._take("S"))
        self._pieces = list(self._cut(replies)) if replies else [b""]

    def _compare(self) -> None:
        expected = b"".join(self._take("C"))
        self.said += self._out
        assert self._out.splitlines(keepends=True) == expected.splitlines(keepends=True)
        self._out = b""

    def _take(self, side: str) -> Iterable[bytes]:
        while self._steps and self._steps[0][0] == side:
            yield self._steps.pop(0)[1]

    def _end_if_scripted(self) -> None:
        if self._steps and self._steps[0][0] == "X":
            end = self._steps.pop(0)[1]
            self._steps.clear()
            self._out = b""
            if end == b"slow\r\n":
                raise PeerTooSlow(self.core.timeout)
            if end == b"cancel\r\n":
                raise CancelledError
            raise ConnectionClosed("the connection was lost")


@implementer(IQueueRun)
class ListedRun:
    """A run of some deliveries; notes what became of them by queue id."""

    destination = Destination(RELAY, "example.net")

    def __init__(self, *deliveries: Delivery) -> None:
        self._due = list(deliveries)
        self.taken: list[str] = []
        self.settled: dict[str, Sequence[Outcome]] = {}
        self.released: list[str] = []

    async def next(self) -> Delivery | None:
        if not self._due:
            return None
        delivery = self._due.pop(0)
        self.taken.append(delivery.message.queue_id)
        return delivery

    async def batch(self, limit: int) -> Sequence[Delivery]:
        return [delivery for _ in range(limit) if (delivery := await self.next())]

    def settle(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        queue_id = delivery.message.queue_id
        assert queue_id not in self.settled
        assert len(outcomes) == len(delivery.recipients)
        self.settled[queue_id] = outcomes

    def release(self, delivery: Delivery) -> None:
        self.released.append(delivery.message.queue_id)

    def fail(self, outcome: Outcome) -> None:
        raise AssertionError("a session leaves that to its agent")

    def check_accounts(self) -> None:
        """Fail where a delivery that was taken has been neither settled nor released, or both."""
        assert sorted([*self.settled, *self.released]) == sorted(self.taken)

    def results(self, queue_id: str) -> list[str]:
        """The results in order, as words."""
        return [str(outcome.result) for outcome in self.settled[queue_id]]


def address(text: str) -> Address:
    local_part, _, domain = text.rpartition("@")
    return Address(local_part, domain)


def make_delivery(
    queue_id: str = "q1",
    *recipients: str,
    sender: str = "ann@example.org",
    content: bytes | Content = b"Subject: hello\r\n\r\nGood morning.\r\n",
    body: Body = Body.SEVEN_BIT,
    smtputf8: bool = False,
    options: MessageOptions = PLAIN,
    wishes: Sequence[RecipientOptions] = (),
    original: str = "",
    reverse_path: str = "",
) -> Delivery:
    """`wishes` are those of the first recipients; `original` and `reverse_path` are everybody's."""
    stored = MemoryContent(content) if isinstance(content, bytes) else content
    envelope = Envelope(address(sender) if sender else None, body, smtputf8, options=options)
    names = recipients or ("bob@example.net",)
    return Delivery(
        Message(queue_id, envelope, stored.size, 1_700_000_000.0),
        Destination(RELAY, "example.net"),
        tuple(
            Recipient(
                key,
                address(name),
                address(original) if original else None,
                options=asked,
                reverse_path=address(reverse_path) if reverse_path else None,
            )
            for key, (name, asked) in enumerate(zip(names, chain(wishes, repeat(NO_WISHES)), strict=False))
        ),
        stored,
    )
