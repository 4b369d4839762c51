"""What is over before it is tried: no agent sees it."""

from dataclasses import replace

import pytest

from mailsuite.delivery.expiry import GIVEN_UP, TOO_LATE, sort_out
from mailsuite.delivery.ready import Bounds
from mailsuite.mail.options import ByMode, MessageOptions
from mailsuite.mail.queue import Result
from mailsuite.mail.route import EXPIRED, Destination
from tests.delivery.fakes import DEAD, FakeAgent, relay

HERE = relay("here.example")
GONE = Destination(EXPIRED, "home.example")


def given_up(delivery, *which):
    return replace(
        delivery,
        recipients=tuple(replace(one, expired=not which or at in which) for at, one in enumerate(delivery.recipients)),
    )


def due_by(delivery, when, mode=ByMode.RETURN):
    envelope = replace(delivery.message.envelope, options=MessageOptions(deliver_by=when, by_mode=mode))
    return replace(delivery, message=replace(delivery.message, envelope=envelope))


def test_what_is_not_over_stays_as_it_is(spool) -> None:
    deliveries = [spool.make(HERE), spool.make(HERE, recipients=3)]
    live, over = sort_out(deliveries, 1000.0)
    assert [id(one) for one in live] == [id(one) for one in deliveries]
    assert over == []


def test_a_delivery_of_which_some_recipients_were_given_up_is_taken_apart(spool) -> None:
    delivery = given_up(spool.make(HERE, recipients=3), 1)
    [live], [(over, outcome)] = sort_out([delivery], 1000.0)
    assert live.recipients == (delivery.recipients[0], delivery.recipients[2])
    assert (over.recipients, outcome) == ((delivery.recipients[1],), GIVEN_UP)


@pytest.mark.parametrize(
    ("mode", "now", "is_over"),
    [(ByMode.RETURN, 999.0, False), (ByMode.RETURN, 1000.0, True), (ByMode.NOTIFY, 2000.0, False)],
)
def test_what_must_come_back_after_some_time_is_over_then(spool, mode, now, is_over) -> None:
    delivery = due_by(spool.make(HERE), 1000.0, mode)
    live, over = sort_out([delivery], now)
    assert [outcome for _, outcome in over] == [TOO_LATE] * is_over
    assert len(live) == (not is_over)


@pytest.mark.parametrize("destination", [HERE, GONE, Destination("pigeon", "x")])
def test_what_was_given_up_fails_without_an_attempt_whoever_the_agent_is(schedule, spool, destination) -> None:
    spool.store(*(given_up(spool.make(destination)) for _ in range(250)))
    agent = FakeAgent()
    schedule(agent)
    assert spool.results() == [Result.FAILED] * 250
    assert agent.runs == []
    assert not spool.leased


def test_all_that_comes_under_the_name_of_the_expired_fails(schedule, spool) -> None:
    spool.store(spool.make(GONE, recipients=2))
    schedule(FakeAgent())
    assert [str(outcome.status) for _, _, outcome in spool.history] == ["4.4.7", "4.4.7"]


def test_of_a_delivery_that_is_taken_apart_the_rest_is_delivered(schedule, spool) -> None:
    spool.store(given_up(spool.make(HERE, recipients=3), 0))
    schedule(FakeAgent())
    assert sorted(spool.results()) == [Result.FAILED, Result.RELAYED, Result.RELAYED]
    assert not spool.leased


def test_what_is_given_up_while_its_host_is_dead_fails_as_soon_as_somebody_says_so(schedule, spool, clock) -> None:
    async def act(run):
        run.fail(DEAD)

    agent = FakeAgent(act)
    scheduler = schedule(agent, first=600)
    spool.store(*(spool.make(HERE) for _ in range(120)))
    scheduler.due([HERE])
    clock.turn()
    assert spool.results() == [Result.DEFERRED] * 120
    spool.history.clear()
    waiting = [given_up(delivery) for delivery, _ in spool.waiting.values()]
    spool.waiting.clear()
    spool.store(*waiting)
    scheduler.due([HERE])
    clock.turn()
    assert spool.results() == []
    scheduler.wake([HERE])
    clock.turn()
    assert spool.results() == [Result.FAILED] * 120
    assert len(agent.runs) == 1


def test_without_room_in_memory_what_is_over_still_leaves(schedule, spool, clock) -> None:
    spool.store(*(given_up(spool.make(HERE)) for _ in range(150)))
    spool.store(*(spool.make(GONE) for _ in range(150)))
    agent = FakeAgent()
    schedule(agent, bounds=Bounds(total_count=0))
    clock.turn()
    assert spool.results() == [Result.FAILED] * 300


def test_the_time_of_mail_that_must_come_back_is_not_overstepped(schedule, spool, clock) -> None:
    attempts = []

    async def act(run):
        while (delivery := await run.next()) is not None:
            attempts.append(clock.seconds())
            run.settle(delivery, [DEAD] * len(delivery.recipients))

    start = clock.seconds()
    spool.store(due_by(spool.make(HERE), start + 1000.0))
    schedule(FakeAgent(act), first=300)
    clock.pump([1.0] * 1100)
    assert len(attempts) == 3
    assert max(attempts) < start + 1000
    assert spool.results()[-1] is Result.FAILED
    assert str(spool.history[-1][2].status) == "5.4.7"
    assert clock.seconds() - spool.history[-1][0] < 101
