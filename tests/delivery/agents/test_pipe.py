"""The pipe agent with real programs, and what it makes of how they end."""

import os
import stat

import pytest
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.process import reapAllProcesses
from twisted.internet.task import LoopingCall
from twisted.plugin import getPlugins
from zope.interface.verify import verifyObject

from mailsuite import plugins
from mailsuite.delivery.agents.child import Ending
from mailsuite.delivery.agents.discard import DiscardAgent
from mailsuite.delivery.agents.pipe import PipeAgent, PipeSettings, judge
from mailsuite.interfaces import IDeliveryAgent, IDeliveryAgentMaker
from mailsuite.mail.address import Address
from mailsuite.mail.content import MemoryContent
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.queue import Delivery, Message, Recipient, Result
from mailsuite.mail.route import Destination

TICKETS = Destination("tickets")
SENDER = Address("sender", "there.example")


class Run:
    """A queue run with these deliveries, which remembers what became of them."""

    destination = TICKETS

    def __init__(self, *deliveries):
        self.waiting = list(deliveries)
        self.settled = []

    async def next(self):
        return self.waiting.pop(0) if self.waiting else None

    async def batch(self, limit):
        taken, self.waiting = self.waiting[:limit], self.waiting[limit:]
        return taken

    def settle(self, delivery, outcomes):
        self.settled.append((delivery, list(outcomes)))

    @property
    def outcome(self):
        [(_delivery, [outcome])] = self.settled
        return outcome


def delivery(*recipients, content=b"Subject: x\r\n\r\nbody\r\n", sender=SENDER):
    who = tuple(Recipient(at, address) for at, address in enumerate(recipients))
    content = MemoryContent(content) if isinstance(content, bytes) else content
    return Delivery(Message("Q1", Envelope(sender), content.size, 0.0), TICKETS, who, content)


def bob(local="bob"):
    return Address(local, "Here.example")


@pytest.fixture
def program(tmp_path):
    """Write a program, and give its path."""

    def program(text):
        path = tmp_path / "program"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    return program


@pytest.fixture
def pipe(reactor, run, tmp_path):
    """Pipe deliveries through a command, and give the run."""
    # The reactor of the tests takes no signals, so children are looked for.
    reaping = LoopingCall(reapAllProcesses)
    reaping.clock = reactor
    reaping.start(0.01).addErrback(lambda failure: failure)

    def pipe(command, *deliveries, timeout=30.0):
        taken = Run(*deliveries)
        run(PipeAgent(PipeSettings(command, timeout=timeout), reactor, reactor).deliver(taken), timeout=30)
        return taken

    yield pipe
    reaping.stop()


def test_a_program_gets_the_message_its_words_and_a_small_environment(pipe, program, tmp_path) -> None:
    path = program(f'cat > {tmp_path}/stdin; echo "$@" > {tmp_path}/words; env > {tmp_path}/env; echo thanks')
    command = [path, "-f", "{sender}", "--to={recipient}", "{local}", "{domain}", "{queue_id}", "{size}", "{{x}}", "*"]
    taken = pipe(command, delivery(bob()))
    assert (taken.outcome.result, taken.outcome.text) == (Result.DELIVERED, "thanks")
    assert (tmp_path / "stdin").read_bytes() == (
        b"Return-Path: <sender@there.example>\nDelivered-To: bob@Here.example\nSubject: x\n\nbody\n"
    )
    words = "-f sender@there.example --to=bob@Here.example bob here.example Q1 20 {x} *"
    assert (tmp_path / "words").read_text().strip() == words
    known = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
    assert set(known) <= {
        "PATH", "SENDER", "RECIPIENT", "ORIGINAL_RECIPIENT", "QUEUE_ID", "PWD", "SHLVL", "_", "OLDPWD",
    }  # fmt: skip
    assert known["SENDER"] == "sender@there.example"


def test_each_recipient_has_a_run_of_the_program_and_an_outcome(pipe, program, tmp_path) -> None:
    path = program(f'echo "$1" >> {tmp_path}/all; test "$1" != carol || exit 67')
    taken = pipe([path, "{local}"], delivery(bob(), bob("carol")), delivery(bob("dave")))
    assert (tmp_path / "all").read_text().split() == ["bob", "carol", "dave"]
    assert [[one.result for one in outcomes] for _, outcomes in taken.settled] == [
        [Result.DELIVERED, Result.FAILED],
        [Result.DELIVERED],
    ]


@pytest.mark.parametrize("hostile", ["; rm -rf /", "$(id)", "`id`", "a\nb", "*", "{domain}"])
def test_nothing_that_a_peer_sends_is_ever_a_command(pipe, program, tmp_path, hostile) -> None:
    path = program(f'printf "%s" "$1" > {tmp_path}/word; echo $# > {tmp_path}/count')
    assert pipe([path, "{local}"], delivery(Address(hostile, "here.example"))).outcome.result is Result.DELIVERED
    assert (tmp_path / "word").read_text() == hostile
    assert (tmp_path / "count").read_text().strip() == "1"


def test_an_address_is_never_an_option(pipe, program, tmp_path) -> None:
    path = program(f'echo "$1 $2" > {tmp_path}/words')
    dash = Address("-oQ/tmp", "there.example")
    pipe([path, "{sender}", "{recipient}"], delivery(dash, sender=dash))
    assert (tmp_path / "words").read_text().strip() == '"-oQ/tmp"@there.example "-oQ/tmp"@there.example'
    refused = pipe([path, "{local}"], delivery(dash)).outcome
    assert (refused.result, str(refused.status)) == (Result.FAILED, "5.1.3")


def test_a_large_message_is_fed_as_fast_as_it_is_read(pipe, program, tmp_path) -> None:
    lines = b"0123456789abcdef\r\n" * 60_000
    taken = pipe([program(f"sleep 0.2; cat > {tmp_path}/stdin")], delivery(bob(), content=b"A: b\r\n\r\n" + lines))
    assert taken.outcome.result is Result.DELIVERED
    assert (tmp_path / "stdin").read_bytes().endswith(b"\n\n" + lines.replace(b"\r\n", b"\n"))


def test_a_program_that_reads_nothing_may_be_content(pipe, program) -> None:
    assert pipe([program("exit 0")], delivery(bob(), content=b"x" * 3_000_000)).outcome.result is Result.DELIVERED


def test_a_program_that_hangs_is_ended(pipe, program) -> None:
    outcome = pipe([program("exec sleep 60")], delivery(bob()), timeout=0.2).outcome
    assert (outcome.result, "too long" in outcome.text) == (Result.DEFERRED, True)


def test_a_child_of_the_program_that_keeps_its_output_open_is_not_waited_for(pipe, program, reactor) -> None:
    began = reactor.seconds()
    outcome = pipe([program("echo 4.2.2 full; sleep 6 & exit 69")], delivery(bob()), timeout=20).outcome
    assert (outcome.result, str(outcome.status)) == (Result.DEFERRED, "4.2.2")
    assert reactor.seconds() - began < 5


def test_what_several_programs_at_once_have_written_is_read_to_its_end(pipe, program, reactor, run) -> None:
    assert pipe  # children are looked for
    path = program("cat > /dev/null; echo 4.2.2 mailbox full; exit 69")
    agent = PipeAgent(PipeSettings([path]), reactor, reactor)
    runs = [Run(delivery(bob(), content=b"Subject: x\r\n\r\nbody\r\n" * 2000)) for _ in range(40)]

    async def all_at_once():
        started = [Deferred.fromCoroutine(agent.deliver(one)) for one in runs]
        for one in started:
            await one

    run(all_at_once(), timeout=30)
    assert {(one.outcome.result, one.outcome.text) for one in runs} == {(Result.DEFERRED, "mailbox full")}


@pytest.mark.parametrize("timeout", [float("nan"), float("inf"), True])
def test_a_time_out_that_never_comes_is_refused(timeout) -> None:
    with pytest.raises(ValueError, match=r"timeout = .*: it takes seconds"):
        PipeSettings(["/bin/cat"], timeout=timeout)


def test_nothing_is_started_that_no_alarm_watches(run) -> None:
    class Reactor:
        started = 0

        def spawnProcess(self, *arguments, **options):
            self.started += 1

    class Broken:
        def callLater(self, *_arguments):
            raise OverflowError

    reactor = Reactor()
    with pytest.raises(OverflowError):
        run(PipeAgent(PipeSettings(["/bin/cat"]), reactor, Broken()).deliver(Run(delivery(bob()))))
    assert reactor.started == 0


def test_endless_output_is_read_and_forgotten(pipe, program) -> None:
    outcome = pipe([program("yes | head -c 3000000; printf '\\033[2J' >&2; exit 70")], delivery(bob())).outcome
    assert outcome.result is Result.DEFERRED
    assert len(outcome.text) < 600
    assert outcome.text.isprintable()


@pytest.mark.parametrize("name", ["missing", "plain"])
def test_a_program_that_cannot_be_run_defers_the_mail(pipe, tmp_path, name) -> None:
    (tmp_path / "plain").write_text("no program")
    outcome = pipe([str(tmp_path / name)], delivery(bob())).outcome
    assert (outcome.result, str(outcome.status)) == (Result.DEFERRED, "4.3.5")


class LostContent:
    size = 200_000

    def __init__(self, good):
        self.good = good

    def read(self, offset, limit):
        if offset >= self.good:
            return Deferred.fromCoroutine(self.fail())
        return succeed(b"x" * min(limit, self.good - offset))

    async def fail(self):
        raise OSError(5, os.strerror(5))


@pytest.mark.parametrize("good", [0, 70_000])
def test_a_program_never_takes_a_part_for_the_whole(pipe, program, tmp_path, good) -> None:
    path = program(f"cat > /dev/null; echo whole > {tmp_path}/done")
    outcome = pipe([path], delivery(bob(), content=LostContent(good))).outcome
    assert outcome.result is Result.DEFERRED
    assert not (tmp_path / "done").exists()


def test_what_was_delivered_before_a_stop_is_not_delivered_again(reactor, run, pipe, program, tmp_path) -> None:
    path = program(f'test "$1" = bob || exec sleep 60; echo x > {tmp_path}/bob')
    taken = Run(delivery(bob(), bob("carol")))
    delivering = Deferred.fromCoroutine(PipeAgent(PipeSettings([path, "{local}"]), reactor, reactor).deliver(taken))

    async def stop():
        while not (tmp_path / "bob").exists():
            waited = Deferred()
            reactor.callLater(0.02, waited.callback, None)
            await waited
        waited = Deferred()
        reactor.callLater(0.2, waited.callback, None)
        await waited
        delivering.cancel()
        with pytest.raises(CancelledError):
            await delivering

    run(stop(), timeout=20)
    [(_, outcomes)] = taken.settled
    assert [outcome.result for outcome in outcomes] == [Result.DELIVERED, Result.DEFERRED]


@pytest.mark.parametrize(
    ("ending", "result", "status"),
    [
        (Ending(0), Result.DELIVERED, "2.0.0"),
        (Ending(1), Result.DEFERRED, "4.3.0"),
        (Ending(64), Result.DEFERRED, "4.3.0"),
        (Ending(65), Result.FAILED, "5.6.0"),
        (Ending(67), Result.FAILED, "5.1.1"),
        (Ending(69), Result.FAILED, "5.3.0"),
        (Ending(75), Result.DEFERRED, "4.3.0"),
        (Ending(77), Result.FAILED, "5.7.0"),
        (Ending(127), Result.DEFERRED, "4.3.5"),
        (Ending(None, signal=11), Result.DEFERRED, "4.3.0"),
        (Ending(None, signal=9, timed_out=True), Result.DEFERRED, "4.3.0"),
        (Ending(75, output=b"4.2.2 no room\n"), Result.DEFERRED, "4.2.2"),
        (Ending(1, output=b"5.7.1 not from you\n"), Result.FAILED, "5.7.1"),
        (Ending(67, output=b"4.2.1 later"), Result.DEFERRED, "4.2.1"),
        (Ending(67, output=b"2.0.0 what?"), Result.FAILED, "5.1.1"),
        (Ending(67, output=b"\xff\xfe"), Result.FAILED, "5.1.1"),
    ],
)
def test_how_a_program_ends_tells_what_became_of_the_message(ending, result, status) -> None:
    outcome = judge(ending, "program")
    assert (outcome.result, str(outcome.status)) == (result, status)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({}, "names no program"),
        ({"command": ["cat"]}, "whole path"),
        ({"command": ["/bin/{local}"]}, "whole path"),
        ({"command": ["/nonexistent"]}, "there is no program"),
        ({"command": ["/bin/cat", "{password}"]}, "in braces there may be"),
        ({"command": ["/bin/cat", "{sender.local_part}"]}, "in braces there may be"),
        ({"command": ["/bin/cat", "{sender!r}"]}, "in braces there may be"),
        ({"command": ["/bin/cat", "{sender"]}, "brace too few"),
        ({"command": "/bin/cat"}, "a list of words"),
        ({"command": [1]}, "a list of words"),
        ({"command": ["/bin/cat"], "timeout": "soon"}, "seconds"),
        ({"command": ["/bin/cat"], "timeout": 0}, "more than nothing"),
        ({"command": ["/bin/cat"], "timeout": float("nan")}, "seconds"),
        ({"command": ["/bin/cat"], "timeout": True}, "seconds"),
        ({"command": ["/bin/cat", "a\0b"]}, "NUL"),
        ({"command": ["/bin/c\0at"]}, "NUL"),
        ({"command": ["/bin/cat"], "concurrency": True}, "a number"),
        ({"shell": True}, "no such option"),
    ],
)
def test_a_wrong_option_is_told_in_a_sentence(options, complaint) -> None:
    with pytest.raises(ValueError, match=complaint):
        maker("pipe").make(options, Parts())


def test_both_plugins_make_agents() -> None:
    made = [maker("pipe").make({"command": ["/bin/cat"], "timeout": "5m"}, Parts()), maker("discard").make({}, Parts())]
    for agent in made:
        assert verifyObject(IDeliveryAgent, agent)
        assert agent.concurrency >= 1


def test_what_is_discarded_was_delivered(run) -> None:
    taken = Run(delivery(bob(), bob("carol")), delivery(bob()))
    run(DiscardAgent().deliver(taken))
    assert [len(outcomes) for _, outcomes in taken.settled] == [2, 1]
    assert {outcome.result for _, outcomes in taken.settled for outcome in outcomes} == {Result.DELIVERED}


class Parts:
    reactor = None


def maker(name):
    [found] = [one for one in getPlugins(IDeliveryAgentMaker, plugins) if one.name == name]
    return found
