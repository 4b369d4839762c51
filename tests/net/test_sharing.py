"""Work that several ask for at once."""

import pytest
from twisted.internet.defer import CancelledError, Deferred

from mailsuite.net.sharing import Shared


class Work:
    def __init__(self):
        self.shared = Shared()
        self.begun = 0

    async def work(self):
        self.begun += 1
        self.end = Deferred()
        return await self.end

    def ask(self, key="key"):
        results = []
        asking = Deferred.fromCoroutine(self.shared.get(key, self.work)).addBoth(results.append)
        return asking, results


def test_work_is_done_once_and_again_after_its_end():
    work = Work()
    asked = [work.ask() for _ in range(3)]
    work.end.callback("done")
    assert [results for _asking, results in asked] == [["done"]] * 3
    assert work.begun == 1
    work.ask()
    assert work.begun == 2


def test_keys_are_apart():
    work = Work()
    work.ask("one")
    work.ask("two")
    assert work.begun == 2


def test_failure_is_everybodys():
    work = Work()
    asked = [work.ask() for _ in range(2)]
    work.end.errback(ValueError("no"))
    assert [str(results[0].value) for _asking, results in asked] == ["no", "no"]


def test_who_is_cancelled_does_not_end_the_work():
    work = Work()
    (first, gone), (_second, results) = work.ask(), work.ask()
    first.cancel()
    work.end.callback("done")
    assert isinstance(gone[0].value, CancelledError)
    assert results == ["done"]


@pytest.mark.parametrize("fails", [True, False])
def test_work_that_nobody_waits_for_ends_in_silence(fails):
    work = Work()
    first, _gone = work.ask()
    first.cancel()
    if fails:
        work.end.errback(ValueError("no"))
    else:
        work.end.callback("done")
    assert work.begun == 1
    work.ask()
    assert work.begun == 2


def test_cancelling_all_ends_all():
    work = Work()
    asked = [work.ask(key) for key in ("one", "one", "two")]
    work.shared.cancel()
    assert all(isinstance(results[0].value, CancelledError) for _asking, results in asked)
