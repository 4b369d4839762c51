"""On-demand mail relay in the dialogues: customers, what is held for them, and who serves ATRN and ETRN.

Settings, in the head of a dialogue:

    customer: ship example.org,example.com     the user of that name is this customer, and has these domains
    held: fred@example.net anna@example.org    a message is held: its sender (<> for none) and its recipient
    atrn: 450 451                              the first that are asked for a turn get these; then the rules hold
    etrn: 250 253 459                          what ETRN is answered by, one after the other; then 250

The rules: 450 where a domain is not the customer's, 453 where nothing is held for any of them. A turn takes what it has
out of the house. Mark: `== turn ended relayed failed` (or `broken`) says how the last turn has ended, and what became
of its messages, in order; of one that nobody has settled it is `held`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from zope.interface import implementer

from mailsuite.interfaces import IOnDemand, ITurn, Refused
from mailsuite.mail import replies
from mailsuite.mail.address import Address, parse_mailbox
from mailsuite.mail.content import MemoryContent
from mailsuite.mail.customer import Customer
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.queue import Delivery, Message, Recipient
from mailsuite.mail.reply import Reply
from mailsuite.mail.route import Destination
from mailsuite.mail.session import Identity, Peer
from tests.dialogues.dialogue import Dialogue
from tests.session.scripted import ListedRun

CONTENT = b"Subject: held\r\n\r\n.from afar\r\n"
_REFUSALS = {450: replies.ATRN_REFUSED, 451: replies.ATRN_UNAVAILABLE, 453: replies.NO_MAIL}
# RFC 1985 section 7
_ETRN = {
    250: (replies.ETRN_STARTED, "OK, queuing for node {} started"),
    251: (replies.ETRN_NO_MAIL, "OK, no messages waiting for node {}"),
    252: (replies.ETRN_PENDING, "OK, pending messages for node {} started"),
    253: (replies.ETRN_COUNTED, "OK, 14 pending messages for node {} started"),
    458: (replies.ETRN_UNABLE, "Unable to queue messages for node {}"),
    459: (replies.ETRN_NOT_ALLOWED, "Node {} not allowed: Unable to resolve name."),
}


@implementer(ITurn)
class HeldTurn:
    def __init__(self, customer: Customer, deliveries: Sequence[Delivery]) -> None:
        self.customer = customer
        self.run = ListedRun(*deliveries)
        self._queue_ids = [delivery.message.queue_id for delivery in deliveries]
        self.ends: list[str | None] = []

    def ended(self, error: str | None) -> None:
        self.ends.append(error)

    @property
    def words(self) -> list[str]:
        """How it has ended, as in its mark."""
        results = [self.run.settled.get(queue_id) for queue_id in self._queue_ids]
        return [
            "ended" if self.ends == [None] else "broken",
            *("held" if outcomes is None else str(outcomes[0].result) for outcomes in results),
        ]


@implementer(IOnDemand)
class FakeOnDemand:
    """Holds what a dialogue's head says. `step` is awaited before each answer."""

    def __init__(self, dialogue: Dialogue, step: Callable[[], Awaitable[None]]) -> None:
        words = dialogue.words("customer")
        self.customers = {
            name: Customer(name, tuple(domains.split(",")))
            for name, domains in zip(words[::2], words[1::2], strict=True)
        }
        words = dialogue.words("held")
        self._held = [_delivery(*pair) for pair in enumerate(zip(words[::2], words[1::2], strict=True), 1)]
        self._refusals = [_REFUSALS[int(word)] for word in dialogue.words("atrn")]
        self._answers = [_ETRN[int(word)] for word in dialogue.words("etrn")]
        self._step = step
        self.turns: list[HeldTurn] = []

    @property
    def open_turns(self) -> int:
        """Turns that have not ended exactly once."""
        return sum(len(turn.ends) != 1 for turn in self.turns)

    async def begin_turn(self, identity: Identity, domains: Sequence[str], peer: Peer) -> HeldTurn:
        await self._step()
        if self._refusals:
            raise Refused(self._refusals.pop(0))
        assert identity.customer is not None
        customer = self.customers[identity.customer]
        asked = domains or customer.domains
        if not set(asked) <= set(customer.domains):
            raise Refused(replies.ATRN_REFUSED)
        due = [delivery for delivery in self._held if delivery.recipients[0].address.domain_key in asked]
        if not due:
            raise Refused(replies.NO_MAIL)
        self._held = [delivery for delivery in self._held if delivery not in due]
        self.turns.append(HeldTurn(customer, due))
        return self.turns[-1]

    async def start_queue(self, node: str, identity: Identity | None, peer: Peer) -> Reply:
        await self._step()
        reply, text = self._answers.pop(0) if self._answers else _ETRN[250]
        if reply.code >= 400:
            raise Refused(reply.saying(text.format(node)))
        return reply.saying(text.format(node))


def _delivery(number: int, ends: tuple[str, str]) -> Delivery:
    sender, recipient = ends
    message = Message(f"H{number}", Envelope(None if sender == "<>" else _mailbox(sender)), len(CONTENT), 0.0)
    waiting = (Recipient(number, _mailbox(recipient)),)
    return Delivery(message, Destination("hold", recipient.partition("@")[2]), waiting, MemoryContent(CONTENT))


def _mailbox(text: str) -> Address:
    address = parse_mailbox(text)
    assert address is not None, text
    return address
