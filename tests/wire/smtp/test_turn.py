"""A turn in memory: a provider's and a customer's core change places over one stream of octets each way.

The provider has a server's core, then a client's; the customer the other way round. Each side goes on through its next
core as a connection would: with the `trailing_data` of the last one. What they say may be cut anywhere, and what
belongs behind the turn may stand in one packet with what makes it.
"""

import random
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsuite.mail import replies
from mailsuite.mail.address import Address
from mailsuite.mail.reply import Reply
from mailsuite.wire.core import EndOfFile, Event, Signal
from mailsuite.wire.smtp.client import Greeting, Replied, SmtpClientCore
from mailsuite.wire.smtp.commands import (
    Atrn,
    Auth,
    AuthResponse,
    Bdat,
    Command,
    Content,
    ContentEnd,
    Data,
    Ehlo,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Turn,
)
from mailsuite.wire.smtp.offer import Offer
from mailsuite.wire.smtp.server import SmtpServerCore
from mailsuite.wire.smtp.server_states import State
from tests.wire.smtp.server_core import CONSENT

Cut = Callable[[bytes], Iterable[bytes]]
Group = list[Command | Content | ContentEnd]  # what is said before the next answer is awaited

PROVIDER = Offer("example.net", odmr=True, turn=True, mechanisms=(b"CRAM-MD5",))
CUSTOMER = Offer("example.org", max_size=1000)
SENDER = Mail(Address("Lester.Tester", "dot.foo.bar"))
RECIPIENT = Rcpt(Address("l.eva.msg", "example.com"))
LOGIN: list[Group] = [[Ehlo("example.org")], [Auth(b"CRAM-MD5")], [AuthResponse(b"foobar.net b913a602")]]
BY_DATA = b".A: b\r\n\r\n.\r\n..\r\nEHLO\r\n"
BY_BDAT = b"\r\n.\r\n250 OK\r\nno end"
RELAYING: list[Group] = [
    [Ehlo("example.net")],
    [SENDER, RECIPIENT, Data()],
    [Content(BY_DATA), ContentEnd(), SENDER, RECIPIENT],
    [Bdat(len(BY_BDAT), last=True), Content(BY_BDAT), ContentEnd(), Quit()],
]
GREETING = b"220 example.org ready\r\n"


class Side:
    """One end of the line.

    `ahead` is what it says in the packet of ATRN or of the answer to it, before its next core has asked for it.
    """

    def __init__(self, turned: "Callable[[Side], None]", ahead: bytes = b"", refusals: Iterable[Reply] = ()) -> None:
        self.events: list[Event] = []
        self.out = b""
        self._turned = turned
        self._ahead = ahead
        self._said_ahead = b""
        self._refusals = list(refusals)

    def become(self, core: SmtpServerCore | SmtpClientCore, groups: Iterable[Group] = ()) -> None:
        self.core = core
        self._groups = list(groups)
        if isinstance(core, SmtpServerCore):
            self._say(core.send(Reply(220, None, (f"{core.offer.hostname} ready",))))

    def hear(self, octets: bytes) -> None:
        self.core.receive_data(octets)
        while True:
            event = self.core.next_event()
            if isinstance(event, Signal):
                if self.core.state.name != "DONE" or not self._has_turned():
                    return
                left = self.core.trailing_data
                self._turned(self)
                if left:  # nothing at all would say that the peer has ended its side
                    self.core.receive_data(left)
            elif isinstance(self.core, SmtpServerCore):
                self.events.append(event)
                self._answer(event)
            else:
                self.events.append(event)
                self._go_on(event)

    def _has_turned(self) -> bool:
        last = self.events[-1]
        return isinstance(last.command if isinstance(last, Replied) else last, Atrn | Turn)

    def _go_on(self, event: Event) -> None:
        """A client says its next group when all is answered, or when the 354 has come."""
        assert isinstance(event, Greeting | Replied), event
        if self._groups and (not self.core.outstanding or event.reply.code == 354) and not self.core.over:
            for message in self._groups.pop(0):
                self._say(self.core.send(message))
                if isinstance(message, Atrn | Turn):
                    self._say_ahead()

    def _answer(self, event: Event) -> None:
        """A server says yes, but for the refusals of a turn that it has."""
        if isinstance(event, Ehlo):
            self._say(self.core.send(self.core.offer.ehlo_reply(event.domain)))
        elif isinstance(event, Atrn | Turn) and self._refusals:
            self._say(self.core.send(self._refusals.pop(0)))
        elif type(event) in CONSENT:
            self._say(self.core.send(CONSENT[type(event)]))
            if isinstance(event, Atrn | Turn):
                self._say_ahead()

    def _say(self, octets: bytes) -> None:
        assert self._said_ahead.startswith(octets) or not self._said_ahead
        if self._said_ahead:
            self._said_ahead = self._said_ahead.removeprefix(octets)
        else:
            self.out += octets

    def _say_ahead(self) -> None:
        self.out += self._ahead
        self._said_ahead, self._ahead = self._ahead, b""

    def commands(self) -> list[Event]:
        """What it was told as a server, pieces of content joined."""
        told: list[Event] = []
        for event in self.events:
            if isinstance(event, Content) and told and isinstance(told[-1], Content):
                told[-1] = Content(told[-1].data + event.data)
            elif not isinstance(event, Greeting | Replied):
                told.append(event)
        return told

    def replies(self) -> list[int]:
        """The codes that it was told as a client."""
        return [event.reply.code for event in self.events if isinstance(event, Greeting | Replied)]


def hold_turn(
    groups: list[Group],
    cut: Cut,
    *,
    customer_ahead: bytes = b"",
    provider_ahead: bytes = b"",
    refusals: Iterable[Reply] = (),
) -> tuple[Side, Side]:
    """Let a customer and a provider talk until nobody has anything more to say."""
    customer = Side(lambda side: side.become(SmtpServerCore(CUSTOMER)), customer_ahead)
    provider = Side(lambda side: side.become(SmtpClientCore(), RELAYING), provider_ahead, refusals)
    provider.become(SmtpServerCore(PROVIDER))
    customer.become(SmtpClientCore(), groups)
    while provider.out or customer.out:
        for speaker, listener in ((provider, customer), (customer, provider)):
            octets, speaker.out = speaker.out, b""
            for piece in cut(octets):
                listener.hear(piece)
    return customer, provider


def whole(octets: bytes) -> Iterable[bytes]:
    return [octets] if octets else []


def one_by_one(octets: bytes) -> Iterable[bytes]:
    return [octets[at : at + 1] for at in range(len(octets))]


AHEAD = [
    ({}, "in turn"),
    ({"customer_ahead": GREETING}, "customer greets ahead"),
    ({"provider_ahead": b"EHLO example.net\r\n"}, "provider speaks ahead"),
    ({"customer_ahead": GREETING, "provider_ahead": b"EHLO example.net\r\n"}, "both"),
]


def verify_turn(customer: Side, provider: Side, command: Command) -> None:
    """All of the turn has happened, on both sides."""
    assert provider.commands() == [LOGIN[0][0], Auth(b"CRAM-MD5"), AuthResponse(b"foobar.net b913a602"), command]
    assert customer.replies() == [220, 250, 334, 235, 250]
    mail = [SENDER, RECIPIENT]
    assert customer.commands() == [
        *(Ehlo("example.net"), *mail, Data(), Content(BY_DATA), ContentEnd()),
        *(*mail, Bdat(len(BY_BDAT), last=True), Content(BY_BDAT), ContentEnd(), Quit()),
    ]
    assert provider.replies() == [220, 250, 250, 250, 354, 250, 250, 250, 250, 221]
    assert customer.core.state is State.DONE
    assert customer.core.trailing_data == b""


@pytest.mark.parametrize("cut", [whole, one_by_one])
@pytest.mark.parametrize("ahead", [words for words, _ in AHEAD], ids=[name for _, name in AHEAD])
@pytest.mark.parametrize(
    "command", [Atrn(), Atrn(("example.org", "example.com")), Turn()], ids=lambda value: value.verb
)
def test_turn(command: Command, ahead: dict[str, bytes], cut: Cut) -> None:
    verify_turn(*hold_turn([*LOGIN, [command]], cut, **ahead), command)


@given(st.randoms(use_true_random=False), st.sampled_from(AHEAD))
def test_turn_cut_anywhere(chance: random.Random, ahead: tuple[dict[str, bytes], str]) -> None:
    def cut(octets: bytes) -> Iterable[bytes]:
        while octets:
            size = chance.randint(1, 30)
            yield octets[:size]
            octets = octets[size:]

    verify_turn(*hold_turn([*LOGIN, [Atrn()]], cut, **ahead[0]), Atrn())


@pytest.mark.parametrize("cut", [whole, one_by_one])
@pytest.mark.parametrize("refusal", [replies.ATRN_REFUSED, replies.ATRN_UNAVAILABLE, replies.NO_MAIL])
def test_turn_at_the_second_try(refusal: Reply, cut: Cut) -> None:
    groups: list[Group] = [*LOGIN, [Atrn(("example.com",))], [Noop()], [Atrn()]]
    customer, provider = hold_turn(groups, cut, refusals=[refusal])
    assert provider.commands()[3:] == [Atrn(("example.com",)), Noop(), Atrn()]
    assert customer.replies()[3:] == [235, refusal.code, 250, 250]
    assert provider.replies()[-1] == 221


def test_refused_turn_is_no_turn() -> None:
    customer, provider = hold_turn([*LOGIN, [Atrn()], [Quit()]], whole, refusals=[replies.NO_MAIL])
    assert customer.replies()[4:] == [453, 221]
    assert isinstance(customer.core, SmtpClientCore)
    assert isinstance(provider.core, SmtpServerCore)


@pytest.mark.parametrize("ahead", [b"", GREETING[:7], GREETING])
def test_line_that_breaks_right_behind_the_turn_is_seen_by_the_next_core(ahead: bytes) -> None:
    """The customer is gone: the provider's client hears the greeting, if it came whole, and the end."""
    core = SmtpServerCore(PROVIDER)
    side = Side(lambda side: side.become(SmtpClientCore(), RELAYING))
    side.become(core)
    side.hear(b"EHLO a\r\nAUTH CRAM-MD5\r\n")
    side.hear(b"AAAA\r\nATRN\r\n" + ahead)
    assert isinstance(side.core, SmtpClientCore)
    side.core.receive_data(b"")
    assert isinstance(side.core.next_event(), EndOfFile)
    assert side.replies() == ([220] if ahead == GREETING else [])
