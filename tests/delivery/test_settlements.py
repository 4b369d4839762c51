"""What follows from outcomes: expiry, reports, and a spool that cannot write them down."""

from dataclasses import replace
from email import message_from_bytes
from itertools import pairwise

import pytest
from twisted.internet.task import deferLater
from twisted.logger import formatEvent, globalLogPublisher

from mailsuite.interfaces import DirectoryUnavailable, Refused, SpoolError
from mailsuite.mail.address import Address
from mailsuite.mail.history import EventKind
from mailsuite.mail.options import Notify, RecipientOptions
from mailsuite.mail.queue import Result
from mailsuite.mail.replies import NO_SUCH_USER
from mailsuite.mail.route import REDISTRIBUTED, Destination
from tests.delivery.fakes import LATER, REFUSED, RELAYED, SENDER, FakeAgent, relay, spool_error

HERE = relay("here.example")
DAY = 86400


def answering(*outcomes):
    """Give each recipient of each delivery the outcome of its place."""

    async def act(run):
        while (delivery := await run.next()) is not None:
            run.settle(delivery, outcomes[: len(delivery.recipients)])

    return act


def test_one_report_tells_of_all_that_failed_at_once(schedule, spool, clock) -> None:
    schedule(FakeAgent(answering(REFUSED, RELAYED, REFUSED)))
    spool.commit(spool.make(HERE, recipients=3))
    clock.turn()
    [report] = spool.reports
    assert report.envelope.reverse_path is None
    assert [target.address for target in report.targets] == [SENDER]
    assert report.targets[0].destination == relay(SENDER.domain)
    status = list(message_from_bytes(report.content).walk())[2]
    failed = [group["Final-Recipient"] for group in status.get_payload()[1:]]
    assert failed == ["rfc822; user0@here.example", "rfc822; user2@here.example"]
    # Whoever has got it is written down first: see `mailsuite.delivery.settlements`.
    assert spool.results() == [Result.RELAYED, Result.FAILED, Result.FAILED]


def test_reports_of_one_message_have_message_ids_of_their_own(schedule, spool, clock) -> None:
    schedule(FakeAgent(answering(REFUSED)))
    spool.commit(spool.make(HERE), spool.make(HERE))
    clock.turn()
    ids = {message_from_bytes(report.content)["Message-ID"] for report in spool.reports}
    assert len(ids) == 2


def test_the_null_sender_never_gets_a_report(schedule, spool, clock) -> None:
    schedule(FakeAgent(answering(REFUSED)))
    spool.commit(spool.make(HERE, sender=None))
    clock.turn()
    assert spool.results() == [Result.FAILED]
    assert spool.reports == []


def test_a_report_that_nobody_would_take_is_dropped(schedule, spool, clock, router) -> None:
    router.refusal = Refused(NO_SUCH_USER)
    schedule(FakeAgent(answering(REFUSED)))
    spool.commit(spool.make(HERE))
    clock.turn()
    assert spool.results() == [Result.FAILED]
    assert spool.reports == []
    assert not spool.leased


@pytest.mark.parametrize("error", [DirectoryUnavailable("locked"), RuntimeError("a defect")])
def test_a_failure_waits_for_its_report(schedule, spool, clock, router, error) -> None:
    router.refusal = error
    schedule(FakeAgent(answering(REFUSED, RELAYED)))
    spool.commit(spool.make(HERE, recipients=2))
    clock.turn()
    assert spool.results() == [Result.RELAYED, Result.DEFERRED]
    router.refusal = None
    clock.pump([10.0] * 40)
    assert spool.results()[2:] == [Result.FAILED]
    assert len(spool.reports) == 1


def test_the_header_comes_from_a_content_that_lies_elsewhere(schedule, spool, clock) -> None:
    class Lost:
        size = 10

        def in_memory(self):
            return None

        async def read(self, offset, limit):
            raise OSError("the file is gone")

    class Elsewhere(Lost):
        async def read(self, offset, limit):
            return b"Subject: from the disk\r\n\r\nbody"[offset : offset + limit]

    schedule(FakeAgent(answering(REFUSED)))
    for content in (Elsewhere(), Lost()):
        delivery = spool.make(HERE)
        object.__setattr__(delivery, "content", content)
        spool.commit(delivery)
        clock.turn()
    first, second = spool.reports
    assert b"Subject: from the disk" in first.content
    assert b"No such user" not in second.content
    assert spool.results() == [Result.FAILED] * 2


def test_a_sender_with_an_internationalized_address_gets_a_report_of_its_kind(schedule, spool, clock) -> None:
    schedule(FakeAgent(answering(REFUSED)))
    spool.commit(spool.make(HERE, sender=Address("jörg", "here.example")))
    spool.commit(spool.make(HERE, sender=Address("joe", "bücher.example")))
    clock.turn()
    assert [report.envelope.smtputf8 for report in spool.reports] == [True, False]


def test_five_days_of_retries_end_with_a_report(schedule, spool, clock) -> None:
    schedule(FakeAgent(answering(LATER)), jitter=0.1)
    start = clock.seconds()
    spool.commit(spool.make(HERE))
    clock.turn()
    clock.pump([30.0] * (7 * DAY // 30))
    times = [at - start for at, _, _ in spool.history]
    assert len([at for at in times if at < 3600]) in {4, 5}
    assert 40 <= len(times) <= 55
    gaps = [after - before for before, after in pairwise(times[6:-1])]
    assert all(0.9 * 10_800 <= gap <= 1.1 * 10_800 + 35 for gap in gaps)
    assert times[-1] == pytest.approx(5 * DAY, abs=40)
    assert spool.results()[:-1] == [Result.DEFERRED] * (len(times) - 1)
    last = spool.history[-1][2]
    assert (last.result, str(last.status)) == (Result.FAILED, "4.4.7")
    assert last.text == "Given up after 5 days: try later"
    assert len(spool.reports) == 1
    assert not spool.waiting
    assert not spool.leased


def test_a_bounce_is_given_up_after_a_day_without_another(schedule, spool, clock) -> None:
    schedule(FakeAgent(answering(LATER)))
    start = clock.seconds()
    spool.commit(spool.make(HERE, sender=None))
    clock.turn()
    clock.pump([30.0] * (2 * DAY // 30))
    assert spool.history[-1][0] - start == pytest.approx(DAY, abs=40)
    assert spool.results()[-1] is Result.FAILED
    assert spool.reports == []


def test_a_spool_that_fails_is_asked_until_it_has_written_everything_down(schedule, spool, clock) -> None:
    scheduler = schedule(FakeAgent())
    spool.commit(*(spool.make(HERE) for _ in range(5)))
    spool.failing = spool_error()
    clock.turn()
    assert spool.results() == []
    assert len(spool.leased) == 5
    clock.pump([1.0] * 120)
    asked = len([call for call in spool.calls if call == ("settle", 5)])
    assert 5 <= asked <= 10
    assert not scheduler.has_room(HERE, 1)
    spool.failing = None
    clock.pump([1.0] * 31)
    assert spool.results() == [Result.RELAYED] * 5
    assert scheduler.has_room(HERE, 1)


def test_nothing_new_is_taken_while_the_spool_fails(schedule, spool, clock) -> None:
    agent = FakeAgent()
    scheduler = schedule(agent)
    spool.commit(spool.make(HERE))
    spool.failing = spool_error()
    clock.turn()
    runs = len(agent.runs)
    spool.store(spool.make(HERE))
    scheduler.due([HERE])
    scheduler.committed([])
    clock.turn()
    assert len(agent.runs) == runs
    spool.failing = None
    clock.pump([1.0] * 5)
    assert spool.results() == [Result.RELAYED] * 2


def test_a_settlement_that_cannot_be_written_does_not_keep_others_from_it(schedule, spool, clock) -> None:
    poison = spool.make(HERE)
    settle = spool.settle

    async def settle_all_or_none(settlements):
        if any(one.delivery is poison for one in settlements):
            raise KeyError("a defect")
        await settle(settlements)

    spool.settle = settle_all_or_none
    schedule(FakeAgent())
    spool.commit(spool.make(HERE), poison, spool.make(HERE))
    clock.turn()
    assert spool.results() == [Result.RELAYED] * 2
    assert list(spool.leased.values()) == [poison]
    spool.commit(spool.make(HERE))
    clock.turn()
    assert spool.results() == [Result.RELAYED] * 3


def test_reports_are_made_one_in_a_turn(schedule, spool, clock, router) -> None:
    turns = []
    turn = 0
    resolve = router.resolve

    async def counted(*args, **kwargs):
        turns.append(turn)
        return await resolve(*args, **kwargs)

    router.resolve = counted
    schedule(FakeAgent(answering(REFUSED)))
    spool.commit(*(spool.make(HERE) for _ in range(30)))
    # Each call that the clock holds is one turn of a reactor.
    while due := [call for call in clock.getDelayedCalls() if call.getTime() <= clock.seconds()]:
        turn += 1
        clock.calls.remove(due[0])
        due[0].func(*due[0].args, **due[0].kw)
    assert len(spool.reports) == 30
    assert len(set(turns)) == 30


@pytest.mark.parametrize("outcome", [RELAYED, LATER, REFUSED])
def test_the_log_has_the_words_of_others_as_plain_text(schedule, spool, clock, outcome) -> None:
    said: list[str] = []

    def observe(event):
        said.append(formatEvent(event))

    schedule(FakeAgent(answering(replace(outcome, text="see \u202etxt.exe\u2066 \x1b[2J", remote="mx.example"))))
    globalLogPublisher.addObserver(observe)
    try:
        spool.commit(spool.make(HERE, sender=None))
        clock.turn()
    finally:
        globalLogPublisher.removeObserver(observe)
    assert any("mx.example: see  txt.exe   [2J" in line for line in said)


def test_a_list_tells_the_sender_that_it_has_the_message(schedule, spool, clock) -> None:
    # RFC 3461 section 5.2.7.1.
    schedule()
    delivery = spool.make(Destination(REDISTRIBUTED, "here.example"))
    wishes = RecipientOptions(Notify.SUCCESS)
    recipients = tuple(replace(one, options=wishes) for one in delivery.recipients)
    spool.commit(replace(delivery, recipients=recipients))
    clock.turn()
    [report] = spool.reports
    assert [target.address for target in report.targets] == [SENDER]
    status = list(message_from_bytes(report.content).walk())[2]
    [told] = status.get_payload()[1:]
    assert (told["Action"], told["Final-Recipient"]) == ("delivered", "rfc822; user0@here.example")
    assert not spool.leased


def test_a_settlement_that_the_spool_cannot_write_is_put_on_hold_and_stops_no_other(schedule, spool, clock) -> None:
    settle = spool.settle

    async def settle_what_is_text(settlements):
        for one in settlements:
            for outcome in one.outcomes:
                if not outcome.text.isascii():
                    raise SpoolError("the spool cannot use queue.db")
        await settle(settlements)

    spool.settle = settle_what_is_text
    scheduler = schedule(FakeAgent(answering(replace(RELAYED, text="odd \udcff"))))
    spool.commit(spool.make(HERE))
    clock.turn()
    assert scheduler.has_room(HERE, 1)
    assert spool.results() == [Result.HELD]
    assert "was relayed" in spool.history[0][2].text
    assert [event.kind for event in spool.events] == [EventKind.FAULT]


def test_strangers_whose_readers_are_slow_stop_nobody(schedule, spool, clock, router) -> None:
    resolve = router.resolve

    async def slow(recipient, *args, **kwargs):
        if recipient.domain == "slow.example":
            await deferLater(clock, 20.0)
        return await resolve(recipient, *args, **kwargs)

    router.resolve = slow
    scheduler = schedule(FakeAgent(answering(REFUSED)))
    spool.commit(*(spool.make(HERE, sender=Address("u", "slow.example")) for _ in range(2100)))
    clock.turn()
    spool.commit(spool.make(HERE))
    clock.pump([1.0] * 2)
    assert scheduler.settlements.is_behind
    clock.pump([1.0] * 1100)
    assert not scheduler.settlements.is_behind
    assert len(spool.reports) == 1


def test_a_report_that_cannot_be_queued_costs_no_further_attempt_and_is_dropped_in_the_end(
    schedule, spool, clock, router
) -> None:
    router.refusal = DirectoryUnavailable("over quota")
    attempts = []

    async def act(run):
        while (delivery := await run.next()) is not None:
            attempts.append(delivery)
            run.settle(delivery, [REFUSED])

    schedule(FakeAgent(act))
    spool.commit(spool.make(HERE))
    clock.turn()
    clock.pump([900.0] * (5 * DAY // 900))
    assert len(spool.waiting) == 1
    clock.pump([900.0] * (2 * DAY // 900))
    assert len(attempts) == 1
    assert not spool.waiting
    assert not spool.leased
    assert spool.results()[-1] is Result.FAILED
    assert [event.detail["why"] for event in spool.events if event.kind is EventKind.REPORTED] == ["put off", "dropped"]


def test_a_report_that_was_put_off_tells_of_the_failure_that_there_was(schedule, spool, clock, router) -> None:
    router.refusal = DirectoryUnavailable("locked")
    schedule(FakeAgent(answering(REFUSED)))
    spool.commit(spool.make(HERE))
    clock.turn()
    router.refusal = None
    clock.pump([10.0] * 60)
    [report] = spool.reports
    assert b"5.1.1" in report.content
    assert REFUSED.text.encode() in report.content
