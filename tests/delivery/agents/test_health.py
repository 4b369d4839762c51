"""The health of hosts: what has failed is left alone, by everybody, for a while."""

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from mailsuite.delivery.agents.relay import health as module
from mailsuite.delivery.agents.relay.health import Health, HealthSettings, Place
from mailsuite.delivery.agents.relay.slots import Standing

A, B = Place("192.0.2.1", 25), Place("192.0.2.2", 25)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def health(clock):
    return Health(clock, HealthSettings(first=30.0, longest=100.0, probes=2, alive=3600.0))


def admit(health, place=A):
    admitted = []
    Deferred.fromCoroutine(health.admit(place)).addCallback(lambda _: admitted.append(True))
    return admitted


def test_what_fails_rests_longer_each_time_up_to_a_limit(clock, health):
    rests = []
    for _ in range(4):
        health.failed(A, "no answer in time")
        assert health.trouble(A) == "no answer in time"
        began = clock.seconds()
        while health.trouble(A) is not None:
            clock.advance(1)
        rests.append(clock.seconds() - began)
    assert rests == [30, 60, 100, 100]
    assert health.trouble(B) is None


def test_a_clock_that_is_set_back_ends_the_rest(clock, health):
    clock.advance(86400)
    health.failed(A, "no answer in time")
    clock.rightNow -= 3600
    assert health.trouble(A) is None
    health.failed(A, "connection refused")
    assert health.trouble(A) == "connection refused"


def test_of_several_that_find_it_dead_one_counts(clock, health):
    for _ in range(5):
        health.failed(A, "connection refused")
    clock.advance(30)
    assert health.trouble(A) is None


def test_once_it_is_ready_its_failures_are_forgotten(clock, health):
    for _ in range(3):
        health.failed(A, "no route")
        clock.advance(100)
    health.is_ready(A)
    health.left(A)
    health.failed(A, "no route")
    clock.advance(30)
    assert health.trouble(A) is None


def test_an_address_that_serves_us_is_not_dead(health):
    health.is_ready(A)
    health.failed(A, "too many connections")
    assert health.trouble(A) is None
    assert health.standing([A]) is Standing.ALIVE


def test_how_a_host_stands_is_what_its_best_address_does(clock, health):
    assert health.standing([]) is health.standing([A, B]) is Standing.UNKNOWN
    health.failed(A, "no route")
    assert health.standing([A]) is Standing.FAILED
    assert health.standing([A, B]) is Standing.UNKNOWN
    health.is_ready(B)
    health.left(B)
    assert health.standing([A, B]) is Standing.ALIVE
    clock.advance(3600)
    assert health.standing([B]) is Standing.UNKNOWN


def test_few_dial_what_nobody_knows_and_the_others_learn_from_them(health):
    asked = [admit(health) for _ in range(10)]
    assert asked.count([True]) == 2
    health.failed(A, "no answer in time")
    assert asked.count([True]) == 10  # all hear of it, and look
    assert health.trouble(A) is not None


def test_once_it_is_alive_as_many_may_dial_as_like(health):
    asked = [admit(health) for _ in range(10)]
    health.is_ready(A)
    assert asked.count([True]) == 10


def test_a_dial_that_says_nothing_lets_one_more(health):
    asked = [admit(health) for _ in range(10)]
    health.dial_over(A)
    assert asked.count([True]) == 3


def test_after_its_rest_one_dial_tries_it_for_all(clock, health):
    health.failed(A, "no answer in time")
    clock.advance(30)
    assert [admit(health) for _ in range(5)].count([True]) == 1


def test_who_gives_up_waiting_is_not_woken(health):
    for _ in range(2):
        admit(health)
    failures = []
    waiting = Deferred.fromCoroutine(health.admit(A))
    waiting.addErrback(failures.append)
    waiting.cancel()
    assert failures[0].check(CancelledError)
    behind = admit(health)
    health.dial_over(A)
    assert behind == [True]


def test_an_operator_may_have_everything_tried_now(health):
    health.failed(A, "no route")
    health.wake()
    assert health.trouble(A) is None


def test_what_is_remembered_is_bounded(monkeypatch, clock):
    monkeypatch.setattr(module, "_MOST", 10)
    health = Health(clock)
    health.is_ready(A)
    for number in range(50):
        health.failed(Place(f"198.51.100.{number}", 25), "no route")
    assert health.standing([A]) is Standing.ALIVE
    assert health.standing([Place("198.51.100.0", 25)]) is Standing.UNKNOWN
    assert health.standing([Place("198.51.100.49", 25)]) is Standing.FAILED
