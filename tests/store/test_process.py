"""Delivery in a process of its own: the frames, the two ends, and what happens when the far one is lost."""

import subprocess
import sys
from dataclasses import replace
from io import BytesIO

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessTerminated
from twisted.python.failure import Failure

from mailsuite.mail.address import Address
from mailsuite.mail.queue import Result
from mailsuite.store.maildir import MaildirStore
from mailsuite.store.process import MaildirProcess
from mailsuite.store.sync import Sync
from mailsuite.store.worker import LENGTH, frame, pack, serve, unframe, unpack
from tests.store.test_maildir import ALICE, BOB, NOW, FileContent, delivery


class Child:
    """A process as the reactor would spawn it: what it is told, and a store that answers."""

    def __init__(self, protocol, *, answers=True):
        self.protocol = protocol
        self.answers = answers
        self.told = b""
        protocol.makeConnection(self)

    def write(self, octets):
        self.told += octets
        while self.answers and self._answer():
            pass

    def _answer(self):
        if len(self.told) < LENGTH.size:
            return False
        end = LENGTH.size + LENGTH.unpack_from(self.told)[0]
        value, self.told = unframe(self.told[LENGTH.size : end]), self.told[end:]
        if isinstance(value, dict):
            self.store = MaildirStore(**value, now=lambda: NOW)
        else:
            answer = frame(self.store.deliver([unpack(packed) for packed in value]))
            self.protocol.outReceived(answer[:7])  # pipes cut where they like
            self.protocol.outReceived(answer[7:])
        return bool(self.told)

    def die(self):
        self.protocol.processEnded(Failure(ProcessTerminated(9)))


class Reactor:
    """Spawns children, and keeps them."""

    def __init__(self, *, answers=True, error=None):
        self.children = []
        self.answers = answers
        self.error = error

    def spawnProcess(self, protocol, executable, args, env):
        if self.error is not None:
            raise self.error
        assert executable == sys.executable
        self.children.append(Child(protocol, answers=self.answers))


@pytest.fixture
def maildirs(tmp_path):
    return tmp_path / "maildirs"


@pytest.fixture
def arguments(maildirs):
    return {"root": maildirs, "hostname": "mx.example.org", "sync": Sync.FILES}


@pytest.fixture
def store(arguments):
    store = MaildirStore(**arguments, now=lambda: NOW)
    yield store
    store.close()


def packed(number):
    one = delivery(number, ALICE)
    return pack(one, one.content.in_memory())


async def at_once(function, *args):
    return function(*args)


def result_of(coroutine):
    kept = []
    Deferred.fromCoroutine(coroutine).addBoth(kept.append)
    return kept


def files(maildirs, user="alice"):
    return list((maildirs / "example.org" / user / "new").iterdir())


def test_small_messages_go_to_the_child_and_large_ones_to_a_thread_each_outcome_in_its_place(
    maildirs, arguments, store
):
    reactor, threads = Reactor(), []

    async def in_thread(function, batch):
        threads.append([one.message.queue_id for one in batch])
        return function(batch)

    batch = [
        delivery(1, ALICE),
        delivery(2, ALICE, BOB, content=FileContent(b"Subject: big\r\n\r\n")),
        delivery(3, BOB),
    ]
    (outcomes,) = result_of(MaildirProcess(reactor, arguments, in_thread).run(store.deliver, batch))
    assert [[one.result for one in of] for of in outcomes] == [
        [Result.DELIVERED],
        [Result.DELIVERED] * 2,
        [Result.DELIVERED],
    ]
    assert threads == [["Q2"]]
    assert len(reactor.children) == 1
    assert len(files(maildirs)) == len(files(maildirs, "bob")) == 2


def test_the_child_knows_who_stands_in_the_place_of_the_sender(maildirs, arguments, store):
    one = delivery(1, ALICE)
    owner = Address("owner-list", "example.org")
    owned = replace(one, recipients=(replace(one.recipients[0], reverse_path=owner),))
    assert result_of(MaildirProcess(Reactor(), arguments, at_once).run(store.deliver, [owned]))
    assert files(maildirs)[0].read_bytes().startswith(b"Return-Path: <owner-list@example.org>\n")


def test_one_child_serves_batch_after_batch(maildirs, arguments, store):
    reactor = Reactor()
    process = MaildirProcess(reactor, arguments, at_once)
    for number in range(3):
        assert result_of(process.run(store.deliver, [delivery(number, ALICE)]))
    assert len(reactor.children) == 1
    assert len(files(maildirs)) == 3


def test_a_child_that_cannot_be_spawned_is_not_waited_for(maildirs, arguments, store):
    reactor = Reactor(error=OSError("no more processes"))
    process = MaildirProcess(reactor, arguments, at_once)
    for number in range(2):
        assert result_of(process.run(store.deliver, [delivery(number, ALICE)]))
    reactor.error = None
    assert result_of(process.run(store.deliver, [delivery(2, ALICE)]))
    assert len(reactor.children) == 1
    assert len(files(maildirs)) == 3


def test_a_child_that_ends_before_its_first_answer_has_no_successor(maildirs, arguments, store):
    reactor = Reactor(answers=False)
    process = MaildirProcess(reactor, arguments, at_once)
    kept = result_of(process.run(store.deliver, [delivery(1, ALICE)]))
    reactor.children[0].die()
    assert kept
    assert result_of(process.run(store.deliver, [delivery(2, ALICE)]))
    assert len(reactor.children) == 1
    assert len(files(maildirs)) == 2


def test_what_a_lost_child_had_delivered_is_not_delivered_again(maildirs, arguments, store):
    reactor = Reactor()
    process = MaildirProcess(reactor, arguments, at_once)
    assert result_of(process.run(store.deliver, [delivery(4, BOB)]))
    reactor.children[0].answers = False
    batch = [delivery(1, ALICE), delivery(2, ALICE)]
    kept = result_of(process.run(store.deliver, batch))
    assert kept == []
    store.deliver(batch[:1])  # the child got that far
    reactor.children[0].die()
    assert [[one.result for one in of] for of in kept[0]] == [[Result.DELIVERED], [Result.DELIVERED]]
    assert len(files(maildirs)) == 2
    assert result_of(process.run(store.deliver, [delivery(3, ALICE)]))
    assert len(reactor.children) == 2  # a new one for the next batch


def test_a_child_that_cannot_be_started_is_done_without(maildirs, arguments, store):
    process = MaildirProcess(Reactor(error=OSError("no more processes")), arguments, at_once)
    assert result_of(process.run(store.deliver, [delivery(1, ALICE)]))[0][0][0].result is Result.DELIVERED
    assert len(files(maildirs)) == 1


def test_a_batch_that_is_given_up_keeps_its_place_among_the_answers(arguments, store):
    reactor = Reactor(answers=False)
    process = MaildirProcess(reactor, arguments, at_once)
    first = Deferred.fromCoroutine(process.run(store.deliver, [delivery(1, ALICE)]))
    second = result_of(process.run(store.deliver, [delivery(2, ALICE), delivery(3, ALICE)]))
    first.addErrback(lambda _cancelled: None)
    first.cancel()
    child = reactor.children[0]
    child.answers = True
    child.write(b"")
    assert len(second[0]) == 2


def test_the_worker_serves_until_its_input_ends(maildirs, arguments):
    outgoing = BytesIO()
    serve(BytesIO(frame(arguments) + frame([packed(1)]) + frame([packed(2)])[:-1]), outgoing)
    told = outgoing.getvalue()
    assert LENGTH.unpack_from(told)[0] == len(told) - LENGTH.size  # one answer: the second batch was cut off
    assert unframe(told[LENGTH.size :])[0][0].result is Result.DELIVERED
    assert len(files(maildirs)) == 1


def test_the_worker_runs_as_a_program_of_its_own(maildirs, arguments):
    command = [sys.executable, "-P", "-m", "mailsuite.store.worker"]
    said = frame(arguments) + frame([packed(1)])
    done = subprocess.run(command, input=said, capture_output=True, timeout=60, check=True)
    assert unframe(done.stdout[LENGTH.size :])[0][0].result is Result.DELIVERED
    assert done.stderr == b""
    assert len(files(maildirs)) == 1
