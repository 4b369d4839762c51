"""The maildir agent, its plugin, and both together with a scheduler and a disk."""

from pathlib import Path

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.plugin import getPlugins
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailsuite import plugins
from mailsuite.delivery.agents.maildir import MaildirAgent
from mailsuite.interfaces import IAgentParts, IDeliveryAgent, IDeliveryAgentMaker
from mailsuite.mail.queue import Outcome, Result
from mailsuite.mail.route import MAILDIR, Destination
from mailsuite.mail.status import EnhancedStatus

LOCAL = Destination(MAILDIR)
DELIVERED = Outcome(Result.DELIVERED, EnhancedStatus(2, 1, 5), "Delivered")


@implementer(IAgentParts)
class Parts:
    hostname = "mx.here.example"

    def __init__(self, directory):
        self.reactor = Clock()
        self.data_directory = directory

    def in_thread(self, function, *args):
        return succeed(function(*args))


class SlowStore:
    """Delivers when it is told to."""

    def __init__(self):
        self.batches = []

    def in_thread(self, function, *args):
        assert function == self.deliver
        self.batches.append((Deferred(), args[0]))
        return self.batches[-1][0]

    def deliver(self, deliveries):
        raise AssertionError("a thread would do that")

    def finish(self, number):
        deferred, batch = self.batches[number]
        deferred.callback([(DELIVERED,) * len(one.recipients) for one in batch])


def maker():
    [found] = [one for one in getPlugins(IDeliveryAgentMaker, plugins) if one.name == "maildir"]
    return found


def test_the_plugin_is_found_and_makes_an_agent(tmp_path) -> None:
    agent = maker().make({}, Parts(tmp_path))
    assert verifyObject(IDeliveryAgent, agent)
    assert agent.name == MAILDIR


def test_relative_directories_begin_at_the_data_directory(tmp_path, schedule, spool, clock) -> None:
    agent = maker().make({"directory": "mail", "layout": "{local}"}, Parts(tmp_path))
    schedule(agent)
    spool.commit(spool.make(LOCAL, recipients=2))
    clock.turn()
    assert spool.results() == [Result.DELIVERED] * 2
    assert sorted(path.name for path in (tmp_path / "mail").iterdir()) == ["user0", "user1"]
    [file] = (tmp_path / "mail/user0/new").iterdir()
    assert file.read_bytes().startswith(b"Return-Path: <sender@here.example>\nDelivered-To: user0@here.example\n")


def test_an_absolute_directory_is_taken_as_it_is(tmp_path, schedule, spool, clock) -> None:
    agent = maker().make({"directory": str(tmp_path / "elsewhere")}, Parts(Path("/nowhere")))
    schedule(agent)
    spool.commit(spool.make(LOCAL))
    clock.turn()
    assert len(list((tmp_path / "elsewhere").glob("*/*/new/*"))) == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"dir": "x"}, "dir: there is no such option"),
        ({"directory": 7}, "directory = 7"),
        ({"layout": "../{local}"}, "layout"),
        ({"sync": "never"}, "sync = 'never'"),
    ],
)
def test_a_wrong_option_is_named(tmp_path, options, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        maker().make(options, Parts(tmp_path))


def test_batches_are_bounded_and_two_threads_work_at_once(schedule, spool, clock) -> None:
    store = SlowStore()
    schedule(MaildirAgent(store, store.in_thread, batch=10))
    spool.commit(*(spool.make(LOCAL) for _ in range(35)))
    clock.turn()
    assert [len(batch) for _, batch in store.batches] == [10, 10]
    store.finish(0)
    clock.turn()
    assert [len(batch) for _, batch in store.batches] == [10, 10, 10]
    assert len(spool.results()) == 10
    store.finish(1)
    store.finish(2)
    store.finish(3)
    clock.turn()
    assert spool.results() == [Result.DELIVERED] * 35


def test_a_stop_waits_for_the_thread_beyond_the_cancellation(schedule, spool, clock) -> None:
    store = SlowStore()
    scheduler = schedule(MaildirAgent(store, store.in_thread, batch=2, concurrency=1), grace=5.0)
    spool.commit(*(spool.make(LOCAL) for _ in range(4)))
    clock.turn()
    stopped = scheduler.stopService()
    clock.pump([1.0] * 9)
    assert not stopped.called
    store.finish(0)
    clock.turn()
    assert stopped.called
    assert spool.results() == [Result.DELIVERED] * 2
    assert len(spool.waiting) == 2
    assert len(store.batches) == 1


def test_what_makes_a_store_raise_is_put_on_hold(schedule, spool, clock) -> None:
    store = SlowStore()
    schedule(MaildirAgent(store, store.in_thread, batch=2, concurrency=1))
    spool.commit(*(spool.make(LOCAL) for _ in range(3)))
    clock.turn()
    store.batches[0][0].errback(RuntimeError("a defect"))
    clock.turn()
    for number in range(1, 4):
        if number == 2:
            store.batches[number][0].errback(RuntimeError("a defect"))
        else:
            store.finish(number)
        clock.turn()
    assert [len(batch) for _, batch in store.batches] == [2, 1, 1, 1]
    assert spool.results() == [Result.DELIVERED, Result.HELD, Result.DELIVERED]
