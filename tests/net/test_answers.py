"""Answers of the DNS that are kept, and questions that are asked once."""

from random import Random

import pytest
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.names import dns
from twisted.names.error import DNSNameError, DNSServerError

from mailsuite.net.answers import Answers, Known
from mailsuite.net.resolver import MX, DnsFailure, Resolver


class Asked:
    """A question whose answer comes when it is told to."""

    def __init__(self):
        self.questions = []

    async def __call__(self):
        self.questions.append(Deferred())
        return await self.questions[-1]


def begin(answers, key, ask):
    return Deferred.fromCoroutine(answers.get(key, ask))


def ended(deferred):
    results = []
    deferred.addBoth(results.append)
    [result] = results
    if hasattr(result, "raiseException"):
        result.raiseException()
    return result


def test_an_answer_from_a_time_still_to_come_is_not_believed():
    # The clock was set back: nobody knows how old it is.
    clock, asked = Clock(), Asked()
    clock.advance(3600)
    answers = Answers(clock)
    begin(answers, "x", asked)
    asked.questions[0].callback(Known(["a"], 60.0))
    clock.rightNow -= 1800
    again = begin(answers, "x", asked)
    asked.questions[1].callback(Known(["b"], 60.0))
    assert ended(again) == ["b"]
    assert ended(begin(answers, "x", asked)) == ["b"]


def test_an_answer_is_kept_as_long_as_it_holds():
    clock, asked = Clock(), Asked()
    answers = Answers(clock)
    first = begin(answers, "x", asked)
    asked.questions[0].callback(Known(["a"], 60.0))
    assert ended(first) == ["a"]
    clock.advance(59)
    assert ended(begin(answers, "x", asked)) == ["a"]
    clock.advance(1)
    again = begin(answers, "x", asked)
    assert len(asked.questions) == 2
    asked.questions[1].callback(Known(["b"], 0.0))
    assert ended(again) == ["b"]
    begin(answers, "x", asked)
    assert len(asked.questions) == 3


def test_a_question_is_asked_once_however_many_wait():
    asked = Asked()
    answers = Answers(Clock())
    waiting = [begin(answers, "x", asked) for _ in range(100)]
    other = begin(answers, "y", asked)
    assert len(asked.questions) == 2
    asked.questions[0].callback(Known(1, 1.0))
    assert [ended(one) for one in waiting] == [1] * 100
    assert not other.called


def test_that_there_is_nothing_is_kept_and_that_nobody_knows_is_not():
    asked = Asked()
    answers = Answers(Clock())
    for _ in range(2):
        waiting = begin(answers, "x", asked)
        asked.questions[-1].errback(DnsFailure("x", "no answer", temporary=True))
        with pytest.raises(DnsFailure):
            ended(waiting)
    waiting = begin(answers, "x", asked)
    asked.questions[-1].callback(Known(None, 60.0, DnsFailure("x", "no such domain", temporary=False)))
    for _ in range(3):
        with pytest.raises(DnsFailure, match="no such domain") as caught:
            ended(waiting)
        depth, trace = 0, caught.value.__traceback__
        while trace is not None:
            depth, trace = depth + 1, trace.tb_next
        assert depth < 15
        waiting = begin(answers, "x", asked)
    with pytest.raises(DnsFailure):
        ended(waiting)
    assert len(asked.questions) == 3


def test_who_is_cancelled_waits_no_more_and_the_last_one_ends_the_question():
    asked = Asked()
    answers = Answers(Clock())
    one, two = begin(answers, "x", asked), begin(answers, "x", asked)
    one.cancel()
    with pytest.raises(CancelledError):
        ended(one)
    assert not asked.questions[0].called
    two.cancel()
    with pytest.raises(CancelledError):
        ended(two)
    assert asked.questions[0].called
    begin(answers, "x", asked)
    assert len(asked.questions) == 2


def test_what_is_kept_is_bounded_and_the_longest_unused_goes_first():
    asked = []

    def ask(key):
        async def ask():
            asked.append(key)
            return Known(key, 600.0)

        return ask

    answers = Answers(Clock(), most=3)
    for key in (1, 2, 3, 1, 4, 1, 3, 4):
        assert ended(begin(answers, key, ask(key))) == key
    assert asked == [1, 2, 3, 4]
    ended(begin(answers, 2, ask(2)))
    assert asked == [1, 2, 3, 4, 2]


class Server:
    """Answers every question with these records; counts the questions."""

    def __init__(self, *records, error=None):
        self.records = records
        self.error = error
        self.count = 0

    def lookup(self, name, timeout=None):
        self.count += 1
        if self.error is not None:
            raise self.error
        return succeed((list(self.records), [], []))

    lookupMailExchange = lookupAddress = lookupIPV6Address = lookup


def record(name, payload, ttl=300):
    return dns.RRHeader(name, payload.TYPE, payload=payload, ttl=ttl)


def test_the_least_time_of_an_answer_counts_and_chance_is_thrown_each_time():
    clock = Clock()
    hosts = [record("a.example", dns.Record_MX(10, f"mx{number}.example")) for number in range(8)]
    server = Server(record("a.example", dns.Record_MX(20, "last.example"), ttl=30), *hosts)
    resolver = Resolver(server, clock, Random(1))
    orders = {tuple(ended(Deferred.fromCoroutine(resolver.mx("a.example")))) for _ in range(20)}
    assert server.count == 1
    assert len(orders) > 10
    assert {order[-1] for order in orders} == {MX(20, "last.example")}
    clock.advance(30)
    ended(Deferred.fromCoroutine(resolver.mx("a.example")))
    assert server.count == 2


def test_what_an_answer_says_of_other_names_is_not_believed():
    server = Server(
        record("a.example", dns.Record_CNAME("b.example")),
        record("B.example", dns.Record_CNAME("a.example")),
        record("victim.example", dns.Record_MX(1, "evil.example")),
        record("b.example", dns.Record_MX(5, "mx.b.example")),
    )
    resolver = Resolver(server, Clock(), Random(1))
    assert ended(Deferred.fromCoroutine(resolver.mx("a.example"))) == [MX(5, "mx.b.example")]


def test_a_domain_that_is_not_there_is_asked_for_once_a_minute():
    clock = Clock()
    server = Server(error=DNSNameError())
    resolver = Resolver(server, clock, Random(1))
    counts = []
    for pause in (0, 30, 31):
        clock.advance(pause)
        with pytest.raises(DnsFailure, match="no such domain"):
            ended(Deferred.fromCoroutine(resolver.mx("gone.example")))
        counts.append(server.count)
    assert counts[0] == counts[1] < counts[2]


def test_servers_that_fail_are_asked_again():
    server = Server(error=DNSServerError())
    resolver = Resolver(server, Clock(), Random(1))
    for number in (1, 2):
        with pytest.raises(DnsFailure) as caught:
            ended(Deferred.fromCoroutine(resolver.mx("a.example")))
        assert caught.value.temporary
        assert server.count == number
