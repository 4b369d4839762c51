"""The steps of each message: written with what they tell of, found again, gone some time after their message."""

from dataclasses import replace

import pytest

from mailsuite.mail import steps
from mailsuite.mail.address import Address
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.history import Event, EventKind
from mailsuite.mail.origin import Origin
from mailsuite.mail.queue import Report, Result, Settlement
from mailsuite.mail.route import Target
from mailsuite.mail.session import Peer, TLSFacts
from tests.contracts.spool.kit import (
    DELIVERED,
    ENVELOPE,
    FAILED,
    HOLD,
    KEPT,
    LARGE,
    MAILDIR,
    RELAY,
    Kit,
    deferred,
    target,
)

ORIGIN = Origin(
    Peer("2001:db8::1", 4711),
    "client.example.net",
    "ESMTPSA",
    "submission",
    "joe",
    TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256),
    "<1@client.example.net>",
)


def put(kit: Kit, *targets: Target, origin: Origin | None = None, envelope: Envelope = ENVELOPE, size: int = 5) -> str:
    draft = kit.spool.draft()
    draft.write(b"x" * size)
    kit.run(draft.commit(envelope, targets, origin=origin))
    return str(draft.queue_id)


def history(kit: Kit, queue_id: str, **filters: object) -> list[Event]:
    return list(kit.run(kit.spool.history(queue_id=queue_id, **filters)))


def find(kit: Kit, text: str, limit: int = 100) -> list[str]:
    return list(kit.run(kit.spool.find(text, limit)))


@pytest.mark.parametrize(
    "origin",
    [None, Origin(), Origin(Peer(""), "ü \udc80"), ORIGIN, replace(ORIGIN, tls=None, account=None, message_id=None)],
)
@pytest.mark.parametrize("size", [0, 5, 3 * LARGE])
def test_first_step_is_written_with_the_message(kit: Kit, origin: Origin | None, size: int) -> None:
    targets = (
        replace(target(RELAY, "a b", Address('"q', "example.net")), rule="the first rule"),
        target(MAILDIR, "jürgen"),
        replace(target(HOLD, "c"), rule="another"),
    )
    envelope = Envelope(Address("bounce es", "bücher.example"))
    queue_id = put(kit, *targets, origin=origin, envelope=envelope, size=size)
    expected = steps.received(queue_id, envelope, targets, size, origin, kit.clock.seconds())
    assert history(kit, queue_id) == [expected]
    null = put(kit, *targets, envelope=Envelope(None))
    assert history(kit, null) == [steps.received(null, Envelope(None), targets, 5, None, kit.clock.seconds())]


def test_steps_are_written_with_the_settlement_the_latest_first(kit: Kit) -> None:
    queue_id = put(kit, target(RELAY, "a"), target(RELAY, "b"))
    other = put(kit, target(MAILDIR))
    for at in range(3):
        kit.clock.advance(1)
        (delivery,) = kit.claim(RELAY)
        outcomes = [deferred(kit.clock.seconds() + 1)] * 2 if at < 2 else [DELIVERED, FAILED]
        step = steps.attempt(delivery, outcomes, kit.clock.seconds(), 0.25)
        kit.run(kit.spool.settle([Settlement(delivery, outcomes, events=(step,))]))
        assert history(kit, queue_id)[0] == replace(step, detail=dict(step.detail))
    found = history(kit, queue_id)
    assert [event.kind for event in found] == [EventKind.ATTEMPT] * 3 + [EventKind.RECEIVED]
    assert [one["result"] for one in found[0].detail["outcomes"]] == ["delivered", "failed"]
    assert history(kit, queue_id, limit=2) == found[:2]
    assert history(kit, queue_id, limit=0) == []
    assert history(kit, queue_id, kind=EventKind.RECEIVED) == found[3:]
    assert history(kit, queue_id, subject=str(RELAY)) == found[:3]
    assert len(history(kit, other)) == 1
    assert list(kit.run(kit.spool.history())) == []
    kit.reopen()
    assert history(kit, queue_id) == found


def test_steps_that_are_recorded_are_among_the_others(kit: Kit) -> None:
    queue_id = put(kit, target(RELAY))
    now = kit.clock.seconds()
    fault = Event(now, EventKind.FAULT, "relay", queue_id, {"text": "Traceback \udc80"})
    warned = Event(now + 1, EventKind.EXPIRED, "ship", queue_id)
    kit.run(kit.spool.record([warned, fault]))
    assert history(kit, queue_id)[:2] == [warned, fault]
    assert list(kit.run(kit.spool.history())) == list(kit.run(kit.spool.history(subject="ship"))) == [warned]


def test_report_and_its_message_tell_of_each_other(kit: Kit) -> None:
    queue_id = put(kit, target(RELAY))
    (delivery,) = kit.claim(RELAY)
    reports = [Report(Envelope(None), b"it failed", (target(MAILDIR, name),)) for name in ("joe", "jim")]
    told = [
        Event(kit.clock.seconds(), EventKind.REPORTED, name, queue_id, {"why": Result.FAILED.value})
        for name in ("joe", "jim")
    ]
    settlement = Settlement(delivery, (FAILED,), reports, events=told)
    kit.run(kit.spool.settle([settlement]))
    kit.run(kit.spool.settle([settlement]))  # without a lease
    second, first = history(kit, queue_id, kind=EventKind.REPORTED)
    assert (first.subject, second.subject) == ("joe", "jim")
    for event in (first, second):
        (received,) = history(kit, event.detail["report"])
        assert (received.subject, received.detail["composed"]) == ("", queue_id)
        assert received.detail["recipients"][0]["address"] == f"{event.subject}@example.com"


def test_messages_are_found_by_what_is_known_of_them(kit: Kit) -> None:
    listed = target(RELAY, "ann", Address("team", "list.example"))
    first = put(kit, listed, target(MAILDIR, "a b"), origin=ORIGIN)
    second = put(kit, target(HOLD, "jürgen"), envelope=Envelope(Address("50%_off", "shop.example")))
    third = put(kit, listed, envelope=Envelope(None))
    assert find(kit, first) == [first]
    assert find(kit, "<1@client.example.net>") == find(kit, "1@client.example.net") == [first]
    assert find(kit, "ANN@example.com") == find(kit, "team@list.example") == find(kit, "*@list.*") == [third, first]
    assert find(kit, "ann@example.com", 1) == [third]
    assert find(kit, "ann@example.com", 0) == []
    assert find(kit, '"a b"@example.com') == [first]
    assert find(kit, "jürgen@example.com") == find(kit, "50%_off@*") == find(kit, "5*@shop.example") == [second]
    assert find(kit, "nn@example.com") == find(kit, "ann@example") == find(kit, "5_%@shop.example") == []
    assert find(kit, "*") == [third, second, first]
    for destination in (RELAY, MAILDIR):
        taken = kit.claim(destination)
        kit.run(kit.spool.settle([Settlement(one, (DELIVERED,)) for one in taken]))
    assert kit.count() == 1
    assert find(kit, "ann@example.com") == [third, first]
    assert find(kit, first) == [first]


def test_steps_stay_until_some_time_after_their_message(kit: Kit) -> None:
    time = KEPT["journal_time"]
    waiting = put(kit, target(HOLD))
    gone = put(kit, target(MAILDIR))
    late = put(kit, target(RELAY))
    (delivery,) = kit.claim(MAILDIR)
    kit.settle(delivery, DELIVERED)
    kit.clock.advance(time - 10)
    (delivery,) = kit.claim(RELAY)
    step = steps.attempt(delivery, (DELIVERED,), kit.clock.seconds())
    kit.run(kit.spool.settle([Settlement(delivery, (DELIVERED,), events=(step,))]))
    assert len(history(kit, gone)) == 1
    kit.clock.advance(400)
    kit.until(lambda: history(kit, gone) == [])
    assert len(history(kit, waiting)) == 1
    assert len(history(kit, late)) == 2
    assert find(kit, "*") == [late, waiting]
    kit.clock.advance(time)
    kit.until(lambda: history(kit, late) == [])
    assert len(history(kit, waiting)) == 1
    assert find(kit, "*") == [waiting]
