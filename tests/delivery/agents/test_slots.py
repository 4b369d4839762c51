"""Slots: the dead do not use up what the living need, and nobody who waits is forgotten."""

from twisted.internet.defer import CancelledError, Deferred

from mailsuite.delivery.agents.relay.slots import Slots, Standing

ALIVE, UNKNOWN, FAILED = Standing


def ask(slots, standing=UNKNOWN, source=None):
    """Ask for a slot: a list that it comes into."""
    got = []
    Deferred.fromCoroutine(slots.acquire(source, standing)).addCallback(got.append)
    return got


def granted(asked):
    return [bool(one) for one in asked]


def test_the_living_may_have_every_slot():
    slots = Slots(10)
    asked = [ask(slots, ALIVE) for _ in range(12)]
    assert granted(asked) == [True] * 10 + [False] * 2
    asked[0][0].release()
    assert granted(asked) == [True] * 11 + [False]
    assert (slots.used, slots.waiting) == (10, 1)


def test_the_dead_have_half_of_them_and_keep_no_living_one_waiting():
    slots = Slots(10)
    dead = [ask(slots) for _ in range(10_000)]
    assert granted(dead).count(True) == 5
    assert granted([ask(slots, ALIVE) for _ in range(5)]) == [True] * 5


def test_whoever_proves_alive_makes_room_for_the_next_one():
    slots = Slots(4)
    asked = [ask(slots) for _ in range(5)]
    assert granted(asked) == [True, True, False, False, False]
    asked[0][0].prove()
    asked[0][0].prove()
    assert granted(asked) == [True, True, True, False, False]
    asked[2][0].prove()
    assert granted(asked) == [True, True, True, True, False]
    asked[0][0].release()
    asked[0][0].release()
    asked[0][0].prove()
    assert granted(asked) == [True] * 4 + [False]
    asked[1][0].release()
    assert granted(asked) == [True] * 5
    assert slots.used == 3


def test_the_unknown_come_before_the_failed_but_for_each_fourth():
    slots = Slots(2)
    [held] = ask(slots)
    waiting = {"failed": [ask(slots, FAILED) for _ in range(3)], "unknown": [ask(slots) for _ in range(6)]}
    order = []
    while slots.waiting:
        held.release()
        [(name, held)] = [(name, one.pop()) for name, asked in waiting.items() for one in asked if one]
        order.append(name)
    assert order == ["unknown"] * 3 + ["failed"] + ["unknown"] * 3 + ["failed"] * 2


def test_a_tenth_is_for_newcomers_beside_the_living():
    slots = Slots(10)
    busy = [ask(slots, ALIVE) for _ in range(10)]
    more = [ask(slots, ALIVE) for _ in range(2)]
    newcomers = [ask(slots) for _ in range(2)]
    busy[0][0].release()
    assert (granted(more), granted(newcomers)) == ([False, False], [True, False])
    busy[1][0].release()
    assert (granted(more), granted(newcomers)) == ([True, False], [True, False])


def test_each_source_has_its_own_limit():
    slots = Slots(10, per_source=2)
    one = [ask(slots, ALIVE, "192.0.2.1") for _ in range(3)]
    other = [ask(slots, ALIVE, "192.0.2.2") for _ in range(2)]
    assert (granted(one), granted(other)) == ([True, True, False], [True, True])
    other[0][0].release()
    assert granted(one) == [True, True, False]
    one[0][0].release()
    assert granted(one) == [True, True, True]


def test_a_source_that_is_full_keeps_no_other_waiting():
    slots = Slots(3, per_source=2)
    full = [ask(slots, ALIVE, "192.0.2.1") for _ in range(4)]
    rest = ask(slots, ALIVE)
    more = ask(slots, ALIVE)
    assert (granted(full), granted([rest, more])) == ([True, True, False, False], [True, False])
    rest[0].release()
    assert granted([more]) == [True]


def test_who_gives_up_waiting_leaves_nothing_behind():
    slots = Slots(2)
    [held] = ask(slots)
    failures = []
    waiter = Deferred.fromCoroutine(slots.acquire(None, UNKNOWN))
    waiter.addErrback(failures.append)
    behind = ask(slots)
    waiter.cancel()
    assert failures[0].check(CancelledError)
    assert slots.waiting == 1
    held.release()
    behind[0].release()
    assert (slots.used, slots.waiting) == (0, 0)


def test_who_is_idle_is_called_back_as_soon_as_somebody_waits():
    slots = Slots(2)
    [first], [_second] = ask(slots, ALIVE), ask(slots, ALIVE)
    wait, over = Deferred(), Deferred()
    ends = []
    wait.addCallback(ends.append)
    with slots.idle(over):
        assert not over.called
    with slots.idle(wait):
        assert ends == []
        waiting = ask(slots, ALIVE)
        assert ends == [False]
    assert not over.called
    first.release()
    assert granted([waiting]) == [True]
