"""What a held run gives out, and what becomes of it."""

import pytest

from mailsuite.delivery.on_demand.held_run import HeldQueue, HeldRun, Returns
from mailsuite.interfaces import SpoolError
from mailsuite.mail.address import Address
from mailsuite.mail.queue import Outcome
from mailsuite.mail.reply import Reply
from tests.delivery.fakes import DEAD, LATER, REFUSED, RELAYED
from tests.delivery.on_demand.conftest import held, pending, result

DAY = 86400.0
FULL = Outcome.of_reply(Reply.make(452, "4.3.1", "disk full"), "ship.example")
PLAIN = Outcome.of_reply(Reply.make(452, None, "no room"), "ship.example")
MAILBOX_FULL = Outcome.of_reply(Reply.make(452, "4.2.2", "mailbox full"), "ship.example")


@pytest.fixture
def make_run(provider, clock):
    def make_run(*domains, limit=10_000, settlements=provider.settlements):
        queue = HeldQueue(provider.spool, settlements, clock, Returns(provider.spool, clock), limit)
        return queue.run([held(domain) for domain in domains or ("ship.example",)])

    return make_run


@pytest.fixture
def run(make_run) -> HeldRun:
    return make_run()


def drain(run, clock, *outcomes):
    """Settle everything with these outcomes in turn; tell the queue ids."""
    taken = []
    while (delivery := result(run.next())) is not None:
        outcome = outcomes[len(taken) % len(outcomes)]
        taken.append(delivery.message.queue_id)
        run.settle(delivery, [outcome] * len(delivery.recipients))
        clock.turn()
    return taken


def test_the_oldest_come_first_of_all_domains(provider, make_run, clock) -> None:
    ids = []
    for domain in ("ship.example", "crew.ship.example") * 3:
        ids.append(provider.store(f"a@{domain}"))
        clock.advance(1)
    assert drain(make_run("crew.ship.example", "ship.example"), clock, RELAYED) == ids


def test_mail_that_comes_meanwhile_is_sent(provider, run, clock) -> None:
    first = provider.store("a@ship.example")
    run.settle(result(run.next()), [RELAYED])
    second = provider.store("a@ship.example")
    assert first != second
    assert drain(run, clock, RELAYED) == [second]


def test_little_is_claimed_ahead(provider, run) -> None:
    for _ in range(100):
        provider.store("a@ship.example")
    result(run.next())
    assert len(provider.waiting()) == 68


def test_large_contents_make_the_claims_small(provider, run, clock) -> None:
    for _ in range(40):
        provider.store("a@ship.example", content=b"x" * 100_000 + b"\r\n")
    for _ in range(33):
        run.settle(result(run.next()), [RELAYED])
    clock.turn()
    assert len(provider.waiting()) == 0
    run.end()
    assert len(provider.waiting()) == 7


def test_there_is_a_limit(provider, make_run, clock) -> None:
    for _ in range(10):
        provider.store("a@ship.example")
    run = make_run(limit=7)
    assert len(drain(run, clock, RELAYED)) == 7
    assert "as many" in run.trouble
    run.end()
    assert len(provider.waiting()) == 3


def test_what_was_deferred_is_not_offered_again_and_stays_held(provider, run, clock) -> None:
    ids = [provider.store("a@ship.example") for _ in range(100)]
    assert drain(run, clock, LATER, RELAYED, MAILBOX_FULL) == ids
    run.end()
    left = provider.waiting()
    assert len(left) == 67
    again = result(provider.spool.claim_held([held("ship.example")], 1))
    assert again[0].recipients[0].attempts == 1
    assert again[0].content.size > 0


def test_what_is_deferred_for_weeks_is_not_given_up_here(provider, make_run, clock) -> None:
    provider.store("a@ship.example")
    for _ in range(4):
        clock.advance(5 * DAY)
        run = make_run()
        assert len(drain(run, clock, LATER)) == 1
        run.end()
    assert len(provider.waiting()) == 1
    assert provider.queued_elsewhere("here.example") == []


def test_a_partial_deferral_leaves_the_others(provider, run, clock) -> None:
    provider.store("a@ship.example", "b@ship.example")
    delivery = result(run.next())
    run.settle(delivery, [RELAYED, LATER])
    clock.turn()
    assert result(run.next()) is None
    run.end()
    [left] = result(provider.spool.claim_held([held("ship.example")], 10))
    assert [str(one.address) for one in left.recipients] == ["b@ship.example"]


def test_a_refusal_makes_a_report(provider, run, clock) -> None:
    provider.store("a@ship.example", sender=Address("someone", "far.example"))
    drain(run, clock, REFUSED)
    [report] = provider.queued_elsewhere("far.example")
    assert report.message.envelope.reverse_path is None
    assert b"no such user" in report.content.in_memory()
    assert provider.waiting() == []


@pytest.mark.parametrize(("outcome", "tried"), [(FULL, 5), (PLAIN, 5), (MAILBOX_FULL, 20)])
def test_a_customer_without_room_ends_the_run(provider, run, clock, outcome, tried) -> None:
    for number in range(20):
        provider.store(f"user{number}@ship.example")
    assert len(drain(run, clock, outcome)) == tried
    assert (run.trouble is not None) is (tried == 5)
    run.end()
    assert len(provider.waiting()) == 20


def test_one_full_mailbox_does_not_end_the_run(provider, run, clock) -> None:
    ids = [provider.store("a@ship.example") for _ in range(20)]
    assert drain(run, clock, PLAIN) == ids


def test_one_with_room_between_those_without_goes_on(provider, run, clock) -> None:
    ids = [provider.store("a@ship.example") for _ in range(20)]
    assert drain(run, clock, FULL, FULL, FULL, FULL, RELAYED) == ids


def test_what_was_given_back_comes_first_again(provider, run) -> None:
    ids = [provider.store("a@ship.example") for _ in range(3)]
    first = result(run.next())
    run.release(first)
    run.release(first)
    assert [result(run.next()).message.queue_id for _ in range(3)] == ids


def test_what_broke_the_last_turn_comes_last_and_its_first_at_the_very_end(provider, clock) -> None:
    ids = []
    for _ in range(5):
        ids.append(provider.store("a@ship.example"))
        clock.advance(1)
    queue = HeldQueue(provider.spool, provider.settlements, clock, Returns(provider.spool, clock))
    broken = queue.run([held("ship.example")])
    taken = [result(broken.next()) for _ in range(3)]
    broken.settle(taken[0], [RELAYED])
    for delivery in reversed(taken[1:]):
        broken.release(delivery)
    assert broken.under_way == (ids[1], ids[2])
    broken.end()
    clock.turn()
    again = queue.run([held("ship.example")], last=[ids[2], ids[1]])
    seen = [result(again.next()) for _ in range(4)]
    assert [delivery.message.queue_id for delivery in seen] == [ids[3], ids[4], ids[2], ids[1]]
    assert [delivery.replayed for delivery in seen] == [False, False, True, True]
    for delivery in seen:
        again.settle(delivery, [RELAYED])
    assert drain(again, clock, RELAYED) == []


def test_a_failure_of_the_whole_counts_nothing(provider, run) -> None:
    ids = [provider.store("a@ship.example") for _ in range(3)]
    result(run.next())
    run.fail(DEAD)
    assert provider.waiting() == ids
    assert result(run.next()) is None
    [one] = result(provider.spool.claim_held([held("ship.example")], 1))
    assert one.recipients[0].attempts == 0
    assert run.trouble == DEAD.text


def test_defects_of_a_session_are_shown(provider, run) -> None:
    provider.store("a@ship.example")
    delivery = result(run.next())
    with pytest.raises(ValueError, match="2 outcomes for 1 recipients"):
        run.settle(delivery, [RELAYED, RELAYED])
    run.settle(delivery, [RELAYED])
    with pytest.raises(ValueError, match="not held by this run"):
        run.settle(delivery, [RELAYED])


class Behind:
    """Settlements that cannot keep up."""

    is_behind = True


def test_a_spool_that_cannot_keep_up_is_waited_for(provider, make_run, clock) -> None:
    provider.store("a@ship.example")
    settlements = Behind()
    run = make_run(settlements=settlements)
    got = pending(run.next())
    clock.pump([1.0] * 10)
    assert got == []
    settlements.is_behind = False
    clock.advance(1)
    assert got[0].message.size > 0


def test_it_is_not_waited_for_longer_than_a_customer_waits(provider, make_run, clock) -> None:
    provider.store("a@ship.example")
    run = make_run(settlements=Behind())
    got = pending(run.next())
    clock.pump([1.0] * 61)
    assert got == [None]
    assert "keep up" in run.trouble


def test_a_spool_that_fails_ends_the_run(provider, run) -> None:
    provider.store("a@ship.example")
    provider.spool.failure = SpoolError("on fire")
    assert result(run.next()) is None
    assert run.trouble == "on fire"
