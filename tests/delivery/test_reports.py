"""Who hears of what, and when: reports over a spool and a router that are fakes."""

from dataclasses import replace

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher

from mailsuite.delivery import gathering
from mailsuite.delivery.bounces import Bounces, ReportSettings
from mailsuite.delivery.expiry import GIVEN_UP
from mailsuite.delivery.pacing import UniformRules
from mailsuite.delivery.retry import RetrySchedule
from mailsuite.delivery.settlements import Settlements
from mailsuite.delivery.srs import Rewriting
from mailsuite.interfaces import DirectoryUnavailable, Refused
from mailsuite.mail.address import Address
from mailsuite.mail.content import MemoryContent
from mailsuite.mail.envelope import Body, Envelope
from mailsuite.mail.history import Event, EventKind
from mailsuite.mail.options import ByMode, MessageOptions, Notify, RecipientOptions, Return
from mailsuite.mail.queue import Delivery, Outcome, Recipient, Result, Via
from mailsuite.mail.replies import NO_SUCH_USER
from mailsuite.mail.reply import Reply
from mailsuite.mail.route import HOLD, Destination
from mailsuite.mail.session import TLSFacts
from mailsuite.mail.status import EnhancedStatus
from tests.delivery.fakes import LATER, REFUSED, RELAYED, SENDER, relay, spool_error
from tests.reports import read_report

HERE, THERE = relay("here.example"), relay("there.example")
DELIVERED = Outcome(Result.DELIVERED, EnhancedStatus(2, 1, 5), "Delivered")
HELD = Outcome(Result.HELD, EnhancedStatus(4, 3, 0), "A defect was met")
WINDOW = 5.0
HOUR = 3600.0
ALL = Notify.SUCCESS | Notify.FAILURE | Notify.DELAY


class Desk:
    """Settlements, and what came out of them."""

    def __init__(self, clock, spool, router, *, settings=None, **retry):
        self.clock = clock
        self.spool = spool
        self.next_attempts = []
        self.settlements = Settlements(
            spool,
            Bounces(router, "mx.here.example", settings or ReportSettings(gather=WINDOW)),
            clock,
            UniformRules(RetrySchedule(jitter=0, **retry)),
            chance=lambda: 0.5,
            deferred=self.next_attempts.append,
            caught_up=lambda: None,
        )

    def make(self, *destinations, notify=None, options=None, **how):
        """Deliveries of one message."""
        made = [self.spool.make(destination, **how) for destination in destinations or (HERE,)]
        message = made[0].message
        if options is not None:
            message = replace(message, envelope=replace(message.envelope, options=options))
        wishes = RecipientOptions(notify)
        return [
            replace(one, message=message, recipients=tuple(replace(who, options=wishes) for who in one.recipients))
            for one in made
        ]

    def lease(self, delivery):
        self.spool.lease(delivery)

    def settle(self, delivery, *outcomes, **how):
        self.lease(delivery)
        self.settlements.add(delivery, outcomes, **how)
        self.clock.turn()

    def later(self):
        self.clock.advance(WINDOW)
        self.clock.turn()

    def reports(self):
        return [read_report(report.content) for report in self.spool.reports]

    def kinds(self):
        return [event.kind for event in self.spool.events]


@pytest.fixture
def desk(clock, spool, router):
    return Desk(clock, spool, router)


# ------------------------------------------------------------------------------------------ together


def test_what_fails_at_several_destinations_is_told_in_one_report(desk, spool, clock) -> None:
    here, there = desk.make(HERE, THERE)
    desk.settle(here, REFUSED)
    clock.advance(WINDOW / 2)
    desk.settle(there, REFUSED)
    assert spool.reports == []
    assert len(spool.leased) == 2
    clock.advance(WINDOW / 2)
    clock.turn()
    [report] = desk.reports()
    assert report.actions == {"user0@here.example": "failed", "user0@there.example": "failed"}
    assert spool.leased == {}
    # All of it in one call, which is one transaction.
    assert [call for call in spool.calls if call[0] == "settle"] == [("settle", 2)]
    assert sorted(map(str, desk.kinds())) == ["attempt", "attempt", "reported"]


def test_it_tells_that_others_are_still_being_tried(desk, spool) -> None:
    [delivery] = desk.make(recipients=4)
    desk.settle(delivery, RELAYED, REFUSED, LATER, LATER)
    desk.later()
    [report] = desk.reports()
    assert "still being tried for 2 other recipients" in " ".join(report.text.split())
    [alone] = desk.make()
    desk.settle(alone, REFUSED)
    desk.later()
    assert "still being tried" not in desk.reports()[1].text


def test_what_an_operator_gives_up_is_returned_with_its_last_error(desk, spool) -> None:
    [delivery] = desk.make()
    delivery = replace(delivery, recipients=(replace(delivery.recipients[0], expired=True),))
    spool.last_errors[delivery.recipients[0].key] = ("4.3.0", "try later", "mx.there.example")
    desk.settle(delivery, GIVEN_UP)
    desk.later()
    [report] = desk.reports()
    assert GIVEN_UP.text in report.text
    assert "The last attempt: mx.there.example: 4.3.0 try later" in report.text


def test_log_tells_the_code_of_a_reply(desk, clock) -> None:
    events = []
    globalLogPublisher.addObserver(events.append)
    try:
        [delivery] = desk.make(recipients=2)
        late = Outcome.of_reply(Reply.make(450, "4.3.0", "Try later"), "mx.there.example")
        desk.settle(delivery, late, replace(late, text="No answer in time"))
    finally:
        globalLogPublisher.removeObserver(events.append)
    told = [event["text"] for event in events if "text" in event]
    assert told == ["450 4.3.0 Try later", "No answer in time (450 4.3.0 Try later)"]


def test_other_messages_and_other_readers_have_reports_of_their_own(desk) -> None:
    [first] = desk.make()
    [second] = desk.make()
    [owned] = desk.make(THERE)
    owner = Address("owner-list", "here.example")
    owned = replace(owned, message=first.message, recipients=(replace(owned.recipients[0], reverse_path=owner),))
    for delivery in (first, second, owned):
        desk.settle(delivery, REFUSED)
    desk.later()
    readers = sorted(report.message["To"].addresses[0].addr_spec for report in desk.reports())
    assert readers == ["owner-list@here.example", str(SENDER), str(SENDER)]


def test_whoever_has_got_it_is_written_down_before_the_report_is_made(desk, spool) -> None:
    [delivery] = desk.make(recipients=3)
    desk.settle(delivery, RELAYED, REFUSED, LATER)
    assert spool.results() == [Result.RELAYED, Result.DEFERRED]
    assert list(spool.leased) == [delivery.recipients[1].key]
    desk.later()
    assert spool.results() == [Result.RELAYED, Result.DEFERRED, Result.FAILED]
    assert len(spool.reports) == 1


def test_a_crash_while_failures_are_gathered_loses_nothing(desk, spool, clock) -> None:
    [delivery] = desk.make(recipients=2)
    desk.settle(delivery, RELAYED, REFUSED)
    desk.settlements.abandon()
    desk.later()
    clock.advance(HOUR)
    assert spool.reports == []
    assert spool.results() == [Result.RELAYED]
    assert len(spool.leased) == 1  # and is tried again by the next run


def test_a_stop_waits_for_nothing_more(desk, spool, clock) -> None:
    [delivery] = desk.make()
    desk.settle(delivery, REFUSED)
    assert not desk.settlements.is_idle
    drained = desk.settlements.drained()
    clock.turn()
    assert drained.called
    assert desk.settlements.is_idle
    assert len(spool.reports) == 1


def test_what_is_gathered_is_bounded(desk, spool, clock, monkeypatch) -> None:
    monkeypatch.setattr(gathering, "_MAX_GATHERED", 10)
    for _ in range(11):
        [delivery] = desk.make()
        desk.settle(delivery, REFUSED)
    clock.turn()
    assert len(spool.reports) == 11


def test_a_report_tells_of_no_more_than_so_many(desk, spool, monkeypatch) -> None:
    monkeypatch.setattr(gathering, "_MAX_TOGETHER", 5)
    for delivery in desk.make(HERE, THERE, relay("third.example"), recipients=2):
        desk.settle(delivery, REFUSED, REFUSED)
    desk.later()
    assert sorted(len(report.recipients) for report in desk.reports()) == [2, 4]


def test_a_clock_that_is_set_back_delays_no_report_for_long(desk, spool, clock) -> None:
    [delivery] = desk.make()
    desk.settle(delivery, REFUSED)
    [timer] = clock.getDelayedCalls()
    clock.rightNow -= 7 * HOUR
    timer.func()  # as a timer that counts by itself does
    clock.turn()
    assert len(spool.reports) == 1


def test_contents_do_not_lie_in_memory_for_the_report(desk, spool) -> None:
    [delivery] = desk.make(content=b"Subject: large\r\n\r\n" + b"x" * 70 * 1024)
    desk.settle(delivery, REFUSED)
    desk.later()
    [(_, settled, _)] = spool.history
    assert settled.content.size == 0
    assert b"Subject: large" in desk.reports()[0].returned


def test_a_report_that_cannot_be_written_is_not_sent_twice(desk, spool, clock) -> None:
    [delivery] = desk.make()
    spool.failing = spool_error()
    desk.settle(delivery, REFUSED)
    desk.later()
    clock.pump([1.0] * 10)
    assert spool.reports == []
    spool.failing = None
    clock.pump([1.0] * 60)
    assert len(spool.reports) == 1
    assert spool.results() == [Result.FAILED]


# ------------------------------------------------------------------------------------------- wishes


@pytest.mark.parametrize(
    ("notify", "outcome", "action"),
    [
        (None, REFUSED, "failed"),
        (Notify.FAILURE, REFUSED, "failed"),
        (Notify.SUCCESS, REFUSED, None),
        (Notify(0), REFUSED, None),
        (None, DELIVERED, None),
        (Notify.FAILURE, DELIVERED, None),
        (Notify.SUCCESS, DELIVERED, "delivered"),
        (None, RELAYED, None),
        (ALL, RELAYED, "relayed"),
        (Notify(0), RELAYED, None),
        (ALL, replace(RELAYED, dsn_passed_on=True), None),
        (ALL, replace(DELIVERED, dsn_passed_on=True), None),
        (ALL, HELD, None),
        (ALL, LATER, None),
    ],
)
def test_the_sender_hears_what_he_wants_to_hear(desk, spool, notify, outcome, action) -> None:
    # RFC 3461 sections 5.2.2, 5.2.3 and 5.2.6.
    [delivery] = desk.make(notify=notify)
    desk.settle(delivery, outcome)
    desk.later()
    assert [report.recipients[0]["Action"] for report in desk.reports()] == ([] if action is None else [action])
    assert spool.results() == [outcome.result]
    assert spool.leased.keys() == set()


def test_success_is_told_at_once_and_without_the_body(desk, spool) -> None:
    [delivery] = desk.make(notify=ALL, recipients=2, options=MessageOptions(ret=Return.FULL, envid="E1"))
    desk.settle(delivery, DELIVERED, DELIVERED)
    [report] = desk.reports()
    assert report.actions == {"user0@here.example": "delivered", "user1@here.example": "delivered"}
    assert report.of_message["Original-Envelope-Id"] == "E1"
    # RFC 3461 section 6.2: no failure, no more than the header.
    assert report.returned_type == "text/rfc822-headers"


def test_who_wants_a_trace_hears_of_each_relay(desk, spool) -> None:
    for notify in (None, Notify(0)):
        [delivery] = desk.make(notify=notify, options=MessageOptions(by_trace=True))
        desk.settle(delivery, replace(RELAYED, dsn_passed_on=True))
    assert [report.recipients[0]["Action"] for report in desk.reports()] == ["relayed"]


@pytest.mark.parametrize(
    ("options", "size", "whole"),
    [
        (MessageOptions(ret=Return.FULL), 100, True),
        (MessageOptions(ret=Return.HEADERS), 100, False),
        (MessageOptions(), 100, False),
        (MessageOptions(ret=Return.FULL), 3000, False),
        (MessageOptions(ret=Return.FULL, require_tls=True), 100, False),
    ],
)
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_failure_returns_the_message_where_that_is_wanted(clock, spool, router, options, size, whole, in_memory):
    desk = Desk(clock, spool, router, settings=ReportSettings(return_size=2000, gather=WINDOW))
    content = b"Subject: x\r\n\r\n" + b"y" * (size - 16) + b"\r\n"
    [delivery] = desk.make(content=content, options=options)
    if not in_memory:
        delivery = replace(delivery, content=OnDisk(content))
    desk.settle(delivery, REFUSED)
    desk.later()
    [report] = desk.reports()
    if whole:
        assert (report.returned_type, report.returned) == ("message/rfc822", content)
    else:
        assert (report.returned_type, report.returned.strip()) == ("text/rfc822-headers", b"Subject: x")


class OnDisk(MemoryContent):
    """Content that gives itself away in small pieces."""

    __slots__ = ()

    def in_memory(self):
        return None

    async def read(self, offset, limit):
        return await super().read(offset, min(limit, 700))


def test_a_report_travels_as_safely_and_urgently_as_its_message(desk, spool) -> None:
    # RFC 8689 section 5, RFC 6710 section 4.6; what else was asked for the message is not asked for its report.
    asked = MessageOptions(ret=Return.FULL, envid="E1", require_tls=True, priority=4, by_trace=True)
    [delivery] = desk.make(options=asked)
    desk.settle(delivery, REFUSED)
    desk.later()
    [report] = spool.reports
    assert report.envelope == Envelope(None, Body.SEVEN_BIT, options=MessageOptions(require_tls=True, priority=4))
    assert report.origin.message_id == desk.reports()[0].message["Message-ID"]


# -------------------------------------------------------------------------------------------- delays


def test_a_delay_is_told_once_after_its_time(desk, spool, clock) -> None:
    [delivery] = desk.make(HERE)
    arrived = delivery.message.arrived
    desk.settle(delivery, LATER)
    desk.later()
    assert spool.reports == []
    for _ in range(3):
        clock.advance(4 * HOUR)
        [(waiting, _due)] = spool.waiting.values()
        spool.waiting.clear()
        desk.settle(waiting, LATER)
        desk.later()
    [report] = desk.reports()
    assert report.message["Subject"] == "Your message is delayed"
    [fields] = report.recipients
    assert fields["Action"] == "delayed"
    assert fields["Status"] == "4.2.0"
    assert fields["Will-Retry-Until"].startswith("Sun, 19 Nov 2023")
    assert arrived + 5 * 24 * HOUR == pytest.approx(1_700_432_000)
    assert [event.detail["why"] for event in spool.events if event.kind is EventKind.REPORTED] == ["delayed"]
    assert desk.next_attempts[-1] > clock.seconds()


@pytest.mark.parametrize("notify", [Notify.FAILURE, Notify(0)])
def test_no_delay_is_told_to_who_does_not_want_it(desk, spool, clock, notify) -> None:
    [delivery] = desk.make(notify=notify)
    clock.advance(5 * HOUR)
    desk.settle(delivery, LATER)
    desk.later()
    assert spool.reports == []


def test_no_delay_is_told_of_what_is_held_or_has_no_sender(desk, spool, clock) -> None:
    [held] = desk.make(Destination(HOLD, "ship.example"))
    [bounce] = desk.make(sender=None)
    clock.advance(5 * HOUR)
    desk.settle(held, LATER)
    desk.settle(bounce, LATER)
    desk.later()
    assert spool.reports == []


def test_delays_can_be_left_untold(clock, spool, router) -> None:
    desk = Desk(clock, spool, router, delay_report=0)
    [delivery] = desk.make()
    clock.advance(100 * HOUR)
    desk.settle(delivery, LATER)
    desk.later()
    assert spool.reports == []


def test_a_time_that_the_sender_has_set_is_late_when_it_has_passed(desk, spool, clock) -> None:
    # RFC 2852 section 4.1.3.
    limit = clock.seconds() + 60
    [notify] = desk.make(options=MessageOptions(deliver_by=limit, by_mode=ByMode.NOTIFY))
    [give_up] = desk.make(options=MessageOptions(deliver_by=limit, by_mode=ByMode.RETURN))
    clock.advance(61)
    desk.settle(notify, LATER)
    desk.settle(give_up, LATER)
    desk.later()
    told = sorted((report.recipients[0]["Action"], report.recipients[0]["Status"]) for report in desk.reports())
    assert told == [("delayed", "4.4.7"), ("failed", "5.4.7")]


def test_whoever_has_set_a_time_is_told_at_that_time_and_not_sooner(desk, spool, clock) -> None:
    # RFC 2852 section 4.1.3: the report is due at the time, whatever is told of delays without one.
    limit = clock.seconds() + 6 * HOUR
    [delivery] = desk.make(options=MessageOptions(deliver_by=limit, by_mode=ByMode.NOTIFY))
    clock.advance(5 * HOUR)
    desk.settle(delivery, LATER)
    desk.later()
    assert spool.reports == []
    clock.advance(HOUR)
    desk.settle(delivery, LATER)
    desk.later()
    [report] = desk.reports()
    assert (report.recipients[0]["Action"], report.recipients[0]["Status"]) == ("delayed", "4.4.7")


def test_a_time_beyond_the_last_attempt_leaves_the_report_on_a_delay(desk, spool, clock) -> None:
    limit = clock.seconds() + 1000 * HOUR
    [delivery] = desk.make(options=MessageOptions(deliver_by=limit, by_mode=ByMode.NOTIFY))
    clock.advance(5 * HOUR)
    desk.settle(delivery, LATER)
    desk.later()
    [report] = desk.reports()
    assert (report.recipients[0]["Action"], report.recipients[0]["Status"]) == ("delayed", "4.2.0")


def test_who_stands_behind_a_rewritten_sender_gets_one_report(desk, spool, clock) -> None:
    srs = Rewriting("srs.example", clock.seconds)
    srs.use("a secret that nobody knows")
    direct, forwarded, foreign = desk.make(HERE, THERE, relay("third.example"))
    forwarded = _under(forwarded, srs.forward(SENDER))
    foreign = _under(foreign, Address("owner-list", "here.example"))
    for one in (direct, forwarded, foreign):
        desk.settle(one, REFUSED)
    desk.later()
    readers = {report.targets[0].address: read_report(report.content) for report in spool.reports}
    assert {reader: len(report.recipients) for reader, report in readers.items()} == {
        SENDER: 2,
        Address("owner-list", "here.example"): 1,
    }


def _under(delivery, reverse_path):
    recipients = tuple(replace(who, reverse_path=reverse_path) for who in delivery.recipients)
    return replace(delivery, recipients=recipients)


def test_a_clock_that_is_set_back_is_seen_with_the_next_failure(desk, spool, clock) -> None:
    first, second = desk.make()[0], desk.make()[0]
    desk.settle(first, REFUSED)
    clock.rightNow -= 7 * HOUR  # the timer stays at its hour
    desk.settle(second, REFUSED)
    desk.later()
    assert len(spool.reports) == 2


def test_a_message_that_was_held_back_is_late_by_its_release(desk, spool, clock) -> None:
    [delivery] = desk.make(options=MessageOptions(hold_until=clock.seconds() + 10 * HOUR))
    clock.advance(11 * HOUR)
    desk.settle(delivery, LATER)
    desk.later()
    assert spool.reports == []


# ------------------------------------------------------------------------------------ double bounces


@pytest.mark.parametrize("double_bounces", [True, False])
def test_what_has_no_sender_goes_to_the_postmaster_where_that_is_set(clock, spool, router, double_bounces) -> None:
    desk = Desk(clock, spool, router, settings=ReportSettings(double_bounces=double_bounces, gather=WINDOW))
    [delivery] = desk.make(sender=None, content=b"Subject: a report\r\n\r\nbody\r\n")
    desk.settle(delivery, REFUSED)
    desk.later()
    assert spool.results() == [Result.FAILED]
    if not double_bounces:
        assert spool.reports == []
        return
    [report] = spool.reports
    assert report.targets[0].address == Address("postmaster", "")
    assert report.envelope.reverse_path is None
    assert read_report(report.content).returned == b"Subject: a report\r\n\r\nbody\r\n"


@pytest.mark.parametrize(
    ("address", "original"),
    [(Address("Postmaster", ""), None), (Address("root", "here.example"), Address("postmaster", "here.example"))],
)
def test_the_postmaster_is_not_told_of_what_the_postmaster_did_not_get(clock, spool, router, address, original):
    desk = Desk(clock, spool, router, settings=ReportSettings(double_bounces=True, gather=WINDOW))
    [delivery] = desk.make(sender=None)
    delivery = replace(delivery, recipients=(Recipient(7, address, original),))
    desk.settle(delivery, REFUSED)
    desk.later()
    assert spool.reports == []
    assert spool.results() == [Result.FAILED]


# ----------------------------------------------------------------------------------------- weather


def test_a_success_that_cannot_be_told_now_is_a_success(desk, spool, router) -> None:
    router.refusal = DirectoryUnavailable("locked")
    [delivery] = desk.make(notify=ALL)
    desk.settle(delivery, DELIVERED)
    assert spool.results() == [Result.DELIVERED]
    assert spool.reports == []


def test_a_delay_that_cannot_be_told_now_is_told_at_the_next_attempt(desk, spool, router, clock) -> None:
    [delivery] = desk.make()
    clock.advance(5 * HOUR)
    router.refusal = DirectoryUnavailable("locked")
    desk.settle(delivery, LATER)
    desk.later()
    [(waiting, _)] = spool.waiting.values()
    assert not waiting.recipients[0].delay_told
    router.refusal = None
    spool.waiting.clear()
    desk.settle(waiting, LATER)
    desk.later()
    assert [report.recipients[0]["Action"] for report in desk.reports()] == ["delayed"]


def test_a_delay_that_nobody_would_take_is_not_tried_again(desk, spool, router, clock) -> None:
    router.refusal = Refused(NO_SUCH_USER)
    [delivery] = desk.make()
    clock.advance(5 * HOUR)
    desk.settle(delivery, LATER)
    desk.later()
    [(waiting, _)] = spool.waiting.values()
    assert waiting.recipients[0].delay_told


def test_settlements_wait_while_a_report_is_being_made(desk, spool, router, clock) -> None:
    gate = Deferred()
    resolve = router.resolve

    async def slow(*args, **kwargs):
        await gate
        return await resolve(*args, **kwargs)

    router.resolve = slow
    [failed] = desk.make()
    [fine] = desk.make()
    desk.settle(failed, REFUSED)
    desk.later()
    desk.settle(fine, RELAYED)
    assert spool.results() == [Result.RELAYED]
    gate.callback(None)
    clock.turn()
    assert spool.results() == [Result.RELAYED, Result.FAILED]
    assert len(spool.reports) == 1


# ----------------------------------------------------------------------------------------- history


def test_each_settlement_has_its_step(desk, spool, clock) -> None:
    via = Via("mx.there.example", "192.0.2.1", 25, TLSFacts("TLSv1.3", "AES", 256), "dane")
    [delivery] = desk.make(THERE, recipients=2)
    other = Event(clock.seconds(), EventKind.FAULT, None, delivery.message.queue_id, {"text": "a traceback"})
    desk.settle(delivery, replace(RELAYED, via=via), LATER, seconds=1.23456, events=(other,))
    attempt, fault = spool.events
    assert fault is other
    assert (attempt.kind, attempt.subject) == (EventKind.ATTEMPT, "relay:there.example")
    detail = dict(attempt.detail)
    assert (detail["seconds"], detail["host"], detail["policy"], detail["tls"]) == (
        1.235,
        "mx.there.example",
        "dane",
        "TLSv1.3",
    )
    first, second = detail["outcomes"]
    assert (first["recipient"], first["result"]) == ("user0@there.example", "relayed")
    assert second["next_attempt"] == clock.seconds() + 300


def test_a_report_is_a_step_of_the_message(desk, spool) -> None:
    [delivery] = desk.make()
    desk.settle(delivery, REFUSED, events=(Event(0.0, EventKind.FAULT, None, "Q1"),))
    desk.later()
    attempt, fault, reported = spool.events
    assert [attempt.kind, fault.kind] == [EventKind.ATTEMPT, EventKind.FAULT]
    assert (reported.kind, reported.subject, reported.queue_id) == (
        EventKind.REPORTED,
        str(SENDER),
        delivery.message.queue_id,
    )
    assert reported.detail["why"] == "failed"


def test_what_was_put_off_stands_so_in_the_history(desk, spool, router) -> None:
    router.refusal = DirectoryUnavailable("locked")
    [delivery] = desk.make()
    desk.settle(delivery, REFUSED)
    desk.later()
    attempt, untold = spool.events
    assert attempt.detail["outcomes"][0]["result"] == "failed"
    assert (untold.kind, untold.subject) == (EventKind.REPORTED, str(SENDER))
    assert dict(untold.detail) == {"why": "put off", "of": "failed", "text": "locked"}


def test_a_delivery_must_have_an_outcome_for_each_recipient(desk) -> None:
    [delivery] = desk.make(recipients=2)
    with pytest.raises(ValueError, match="1 outcomes for 2 recipients"):
        desk.settlements.add(delivery, [RELAYED])
    assert isinstance(delivery, Delivery)
