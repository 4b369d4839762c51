"""Queue ids."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from mailsuite.spool.ids import QueueIds, base36


@given(st.lists(st.floats(-1e5, 1e5), min_size=1, max_size=50), st.integers(1, 10**9))
def test_ids_grow_whatever_the_clock_does(steps: list[float], start: int) -> None:
    clock = Clock()
    clock.rightNow = 1.7e9
    ids = QueueIds(clock, start)
    given_ids = []
    for step in steps:
        clock.rightNow += step
        given_ids.append(ids.next())
    assert given_ids == sorted(set(given_ids))
    assert {len(one) for one in given_ids} == {10 + len(base36(start))}


@given(st.integers(0, 2**60), st.integers(1, 10**6), st.integers(1, 10**6))
def test_two_starts_never_give_the_same(microseconds: int, first: int, second: int) -> None:
    clock = Clock()
    clock.rightNow = microseconds / 1e6
    ids = {QueueIds(clock, first).next(), QueueIds(clock, second).next()}
    assert len(ids) == (1 if first == second else 2)


@given(st.integers(0, 2**70))
def test_base36_is_what_int_reads(number: int) -> None:
    assert int(base36(number), 36) == number


def test_id_tells_its_time() -> None:
    clock = Clock()
    clock.rightNow = 1_700_000_000.123456
    assert int(QueueIds(clock, 7).next()[:10], 36) == 1_700_000_000_123_456
