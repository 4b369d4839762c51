"""The steps of messages: an attempt is not looked at before it is written down, perhaps in another process."""

import json
import pickle

from mailsuite.mail import steps
from mailsuite.mail.address import Address
from mailsuite.mail.content import MemoryContent
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.history import EventKind
from mailsuite.mail.queue import Delivery, Message, Outcome, Recipient, Result, Via
from mailsuite.mail.reply import Reply
from mailsuite.mail.route import Destination
from mailsuite.mail.session import TLSFacts
from mailsuite.mail.status import EnhancedStatus

SENDER = Address("bob", "here.example")
MESSAGE = Message("Q1", Envelope(SENDER), 100, 1.0)
DELIVERY = Delivery(
    MESSAGE,
    Destination("relay", "there.example"),
    (Recipient(1, Address("x y", "there.example")), Recipient(2, Address("z", "there.example"))),
    MemoryContent(b"x"),
)
VIA = Via("mx.there.example", "192.0.2.1", 25, TLSFacts("TLSv1.3", "AES", 256), "dane")
RELAYED = Outcome.of_reply(Reply.make(250, "2.1.5", "fine", "and well"), "mx.there.example")
LATER = Outcome(Result.DEFERRED, EnhancedStatus(4, 2, 2), "full " * 1000, Reply(452, None, ("full",)), None, 99.5, VIA)
EXPECTED = {
    "seconds": 0.123,
    "outcomes": [
        {
            "recipient": '"x y"@there.example',
            "result": "relayed",
            "status": "2.1.5",
            "text": "fine and well",
            "reply": "250 2.1.5 fine and well",
            "remote": "mx.there.example",
        },
        {
            "recipient": "z@there.example",
            "result": "delayed",
            "status": "4.2.2",
            "text": ("full " * 1000)[: steps.TEXT_LIMIT],
            "reply": "452 full",
            "next_attempt": 99.5,
        },
    ],
    "host": "mx.there.example",
    "address": "192.0.2.1",
    "port": 25,
    "policy": "dane",
    "tls": "TLSv1.3",
    "cipher": "AES",
}


def test_an_attempt_tells_what_became_of_each_recipient_and_how() -> None:
    event = steps.attempt(DELIVERY, [RELAYED, LATER], 5.0, 0.12345)
    assert (event.time, event.kind, event.subject, event.queue_id) == (
        5.0,
        EventKind.ATTEMPT,
        "relay:there.example",
        "Q1",
    )
    assert dict(event.detail) == EXPECTED
    assert len(event.detail) == len(EXPECTED)
    assert json.loads(json.dumps(dict(event.detail))) == EXPECTED


def test_an_attempt_goes_to_another_process_as_plain_values() -> None:
    event = steps.attempt(DELIVERY, [RELAYED, LATER], 5.0, 0.12345)
    octets = pickle.dumps(event)
    for part in (b"Outcome", b"Recipient", b"Reply", b"Delivery"):
        assert part not in octets
    assert pickle.loads(octets) == event  # noqa: S301 - our own
    assert pickle.loads(pickle.dumps(pickle.loads(octets).detail)) == EXPECTED  # noqa: S301 - our own


def test_what_is_not_known_is_left_out() -> None:
    delivered = Outcome(Result.DELIVERED, EnhancedStatus(2, 1, 5), "Delivered")
    detail = steps.attempt(DELIVERY, [delivered] * 2, 5.0).detail
    assert set(detail) == {"outcomes"}
    assert set(detail["outcomes"][0]) == {"recipient", "result", "status", "text"}
    assert "Delivered" in repr(detail)


def test_a_report_is_a_step_of_the_message_that_it_tells_of() -> None:
    event = steps.reported(MESSAGE, SENDER, Result.FAILED, 7.0)
    assert (event.kind, event.subject, event.queue_id, event.detail) == (
        EventKind.REPORTED,
        "bob@here.example",
        "Q1",
        {"why": "failed"},
    )
