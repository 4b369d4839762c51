"""What an alias passes on to other servers: marked on its way in, and stopped when it comes back."""

from typing import Any

import pytest

from mailsuite.interfaces import Refused
from mailsuite.mail import replies
from mailsuite.mail.address import Address
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.route import RELAY, Destination, Target
from mailsuite.session.reception import Reception
from tests.dialogues.house import FakeSpool, Pace
from tests.session.scripted import finish

TRACE = b"Received: by us\r\n"
LIST = Address("list", "here.example")
AWAY = Target(Address("carol", "else.example"), Destination(RELAY, "else.example"), LIST)
HERE = Target(Address("anna", "here.example"), Destination("maildir"), LIST)
MESSAGE = b"Subject: x\r\n\r\nDelivered-To: list@here.example\r\n"


def received(content: bytes, *targets: Target, others: Any = ()) -> bytes:
    """What stands in the queue of a message to the list, and perhaps to others."""
    spool = FakeSpool(Pace())
    reception = Reception(Envelope(Address("fred", "example.org")))
    reception.accept(LIST, targets)
    for other in others:
        reception.accept(other.address, [other])
    reception.begin(spool, lambda _queue_id: TRACE)  # type: ignore[arg-type]
    finish(reception.write(content))
    finish(reception.commit())
    return spool.messages[0].content


def test_what_leaves_by_an_alias_is_marked() -> None:
    assert received(MESSAGE, HERE, AWAY) == b"Delivered-To: list@here.example\r\n" + TRACE + MESSAGE


def test_what_stays_here_is_not() -> None:
    assert received(MESSAGE, HERE) == TRACE + MESSAGE


def test_nobody_learns_of_others() -> None:
    other = Target(Address("dave", "here.example"), Destination("maildir"))
    assert received(MESSAGE, AWAY, others=[other]) == TRACE + MESSAGE


def test_what_comes_back_to_an_alias_is_refused() -> None:
    passed_on = received(MESSAGE, AWAY)
    with pytest.raises(Refused) as caught:
        received(b"Received: by them\r\n" + passed_on, AWAY)
    assert caught.value.reply is replies.FORWARDING_LOOP
    # To a mailbox it may come.
    assert received(passed_on, HERE) == TRACE + passed_on
