"""Events: written down, found again, gone after their time."""

from dataclasses import replace

import pytest

from mailsuite.mail.history import Event, EventKind
from tests.contracts.spool.kit import KEPT, Kit

STEPS = {
    EventKind.RECEIVED,
    EventKind.ATTEMPT,
    EventKind.REPORTED,
    EventKind.FAULT,
    EventKind.MANAGED,
    EventKind.ROUTED,
}


def history(kit: Kit, **filters: object) -> list[Event]:
    return list(kit.run(kit.spool.history(**filters)))


def test_events_come_back_as_they_were_the_latest_first(kit: Kit) -> None:
    assert history(kit) == []
    now = kit.clock.seconds()
    detail = {"messages": 3, "seconds": 1.5, "done": True, "error": None, "text": "Grüße \udc80 \u2028"}
    first = Event(now - 1, EventKind.TURN, "ship", None, detail)
    second = Event(now, EventKind.PULL, "home", "ABC")
    late = Event(now - 2, EventKind.ETRN, None, None)
    kit.run(kit.spool.record([first, second]))
    kit.run(kit.spool.record([]))
    kit.run(kit.spool.record([late]))
    assert history(kit) == [second, first, late]
    # What its writer does to it later is nothing to us.
    detail["messages"] = 99
    kit.reopen()
    assert history(kit) == [second, replace(first, detail={**detail, "messages": 3}), late]


def test_events_of_one_time_come_back_the_last_first(kit: Kit) -> None:
    now = kit.clock.seconds()
    events = [Event(now, EventKind.TURN, str(number)) for number in range(20)]
    kit.run(kit.spool.record(events[:10]))
    kit.run(kit.spool.record(events[10:]))
    assert history(kit) == events[::-1]


def test_history_is_what_fits_every_filter(kit: Kit) -> None:
    now = kit.clock.seconds()
    events = [
        Event(now + number, kind, subject, queue_id)
        for number, (kind, subject, queue_id) in enumerate(
            (kind, subject, queue_id)
            for kind in EventKind
            for subject in ("ship", "home", None)
            for queue_id in ("A", None)
        )
    ]
    kit.run(kit.spool.record(events))
    events.reverse()
    for kind in (None, EventKind.TURN, EventKind.EXPIRED):
        for subject in (None, "ship", "nobody"):
            for queue_id in (None, "A", "Z"):
                expected = [
                    event
                    for event in events
                    if kind in (None, event.kind)
                    and subject in (None, event.subject)
                    and (queue_id == event.queue_id if queue_id or event.kind in STEPS else True)
                ]
                assert history(kit, kind=kind, subject=subject, queue_id=queue_id) == expected
                assert history(kit, kind=kind, subject=subject, queue_id=queue_id, limit=2) == expected[:2]


def test_history_has_a_limit(kit: Kit) -> None:
    now = kit.clock.seconds()
    kit.run(kit.spool.record([Event(now + number, EventKind.PULL, "home") for number in range(150)]))
    assert [event.time - now for event in history(kit)] == list(range(149, 49, -1))
    assert len(history(kit, limit=1000)) == 150
    assert history(kit, limit=0) == history(kit, limit=-1) == []


def test_events_go_after_their_time(kit: Kit) -> None:
    now = kit.clock.seconds()
    kit.run(kit.spool.record([Event(now, EventKind.TURN, "old") for _ in range(1200)]))
    kit.run(kit.spool.record([Event(now + 1000, EventKind.TURN, "new")]))
    kit.clock.advance(KEPT["history_time"] - 1)
    assert len(history(kit, limit=2000)) == 1201
    kit.clock.advance(500)
    kit.until(lambda: [event.subject for event in history(kit, limit=2000)] == ["new"])
    kit.clock.advance(1000)
    kit.until(lambda: history(kit) == [])


def test_detail_that_json_cannot_hold_is_a_defect_and_nothing_is_written(kit: Kit) -> None:
    now = kit.clock.seconds()
    bad = Event(now, EventKind.TURN, "ship", None, {"what": b"octets"})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="detail"):
        kit.run(kit.spool.record([Event(now, EventKind.TURN, "ship"), bad]))
    assert history(kit) == []
