"""Sessions under way: waits that are stepped directly, other Deferreds, cancellation."""

import pytest
from twisted.internet.defer import CancelledError, Deferred, succeed

from mailsuite.net.stepping import SessionRun, Waiter


class Kept:
    """A run, and how it ended."""

    def __init__(self, coroutine):
        self.ends = []
        self.run = SessionRun(coroutine, self.ends.append, lambda failure: self.ends.append(failure.value))
        self.run.step()


async def listen(*waits):
    return [await one for one in waits]


def test_a_run_goes_from_wait_to_wait_and_ends_with_what_it_returns():
    first, second = Waiter(), Waiter()
    kept = Kept(listen(first, succeed(0), second))
    first.fire(1)
    assert kept.ends == []
    second.fire(2)
    assert kept.ends == [[1, 0, 2]]


def test_what_has_come_before_it_was_awaited_is_there_at_once():
    early, failed = Waiter(), Waiter()
    early.fire("early")
    assert Kept(listen(early)).ends == [["early"]]
    error = KeyError("failed")
    failed.fail(error)
    assert Kept(listen(failed)).ends == [error]


def test_an_error_is_raised_where_the_session_waits():
    waiter, error = Waiter(), ValueError("gone")

    async def session():
        with pytest.raises(ValueError, match="gone"):
            await waiter
        raise KeyError("of its own")

    kept = Kept(session())
    waiter.fail(error)
    assert [type(one) for one in kept.ends] == [KeyError]


def test_other_deferreds_continue_it_too():
    good, bad = Deferred(), Deferred()

    async def session():
        value = await good
        try:
            await bad
        except ValueError:
            return value

    kept = Kept(session())
    good.callback("value")
    bad.errback(ValueError())
    assert kept.ends == ["value"]


@pytest.mark.parametrize("kind", [Waiter, Deferred])
def test_cancelling_cancels_what_is_awaited(kind):
    asked = []
    kept = Kept(listen(kind(asked.append)))
    kept.run.cancel()
    assert len(asked) == 1
    assert [type(one) for one in kept.ends] == [CancelledError]


def test_cancelled_within_its_own_step_it_is_cancelled_at_its_next_wait():
    first, second = Waiter(), Deferred()

    async def session():
        await first
        kept.run.cancel()
        await second

    kept = Kept(session())
    first.fire(None)
    assert [type(one) for one in kept.ends] == [CancelledError]


def test_a_waiter_is_a_deferred_for_everybody_else():
    waiter = Waiter()
    heard = []
    Deferred.fromCoroutine(listen(waiter)).addCallback(heard.append)
    waiter.fire("came")
    assert heard == [["came"]]
