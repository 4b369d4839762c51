"""Which mail for held domains is taken: the router with quotas and recipients."""

import os
import sys
import time
from pathlib import Path
from threading import Thread

import pytest
from twisted.internet.defer import CancelledError, Deferred

from mailsuite.delivery.on_demand.admission import Admission
from mailsuite.delivery.on_demand.quota import Quota
from mailsuite.delivery.on_demand.recipients import Callouts, Commands, Memory, Recipients
from mailsuite.delivery.router import Router
from mailsuite.delivery.routes import Route, Routes
from mailsuite.interfaces import Refused
from mailsuite.mail.address import Address, parse_mailbox
from mailsuite.mail.customer import RecipientRule
from mailsuite.mail.route import HOLD, RELAY, Destination, NextHop
from mailsuite.net.dialer import ConnectFailed
from tests.delivery.agents.test_relay import FakeDialer, in_thread
from tests.delivery.fakes import RELAYED, FakeDirectory
from tests.delivery.on_demand.conftest import held, pending, result

KNOWN = """
S: 220 hello
C: EHLO mx.here.example
S: 250 ship.example
C: MAIL FROM:<>
S: 250 ok
C: RCPT TO:<captain@ship.example>
S: 250 ok
C: QUIT
S: 221 bye
"""
UNKNOWN = KNOWN.replace("example>\nS: 250 ok\nC: QUIT", "example>\nS: 550 5.1.1 who?\nC: QUIT")
HOP = NextHop("ship.example")


class FakeHops:
    async def find(self, destination):
        assert destination.agent == HOLD
        return (HOP,)


class House:
    """A router over held domains; `dialer` has what the customer's server says."""

    def __init__(self, provider, clock):
        self.provider = provider
        self.clock = clock
        self.dialer = FakeDialer(ship_example=())
        self.scripts = self.dialer.scripts["ship.example"]
        self.commands = Commands(in_thread)
        self.callouts = Callouts(FakeHops(), self.dialer, clock, "mx.here.example")
        admission = Admission(
            provider.customers,
            Quota(provider.customers, provider.spool, clock),
            Recipients(provider.customers, self.commands, self.callouts),
        )
        directory = FakeDirectory({"here.example"}, {"sender@here.example"}, ALIASES)
        self.router = Router(directory, Routes([Route("*", (NextHop("smart.example"),))]), held=admission)

    def resolve(self, address, *, trusted=False):
        return result(self.router.resolve(parse_mailbox(address), None, trusted=trusted))

    def refused(self, address, **how):
        with pytest.raises(Refused) as caught:
            self.resolve(address, **how)
        return str(caught.value.reply)[:9]


ALIASES = {
    "captain@here.example": ["captain@ship.example"],
    "both@here.example": ["captain@ship.example", "nobody@ship.example", "sender@here.example"],
    "nobody@here.example": ["nobody@ship.example"],
}


@pytest.fixture
def house(provider, clock):
    return House(provider, clock)


# ------------------------------------------------------------------------------------------- the router


def test_strangers_may_send_to_what_is_held_before_any_route(house) -> None:
    [target] = house.resolve("captain@Ship.Example")
    assert (target.address, target.destination) == (Address("captain", "Ship.Example"), held("ship.example"))
    assert house.router.destination(target.address) == held("ship.example")
    assert house.refused("x@far.example") == "550 5.7.1"
    assert house.router.destination(Address("x", "far.example")) == Destination(RELAY, "[smart.example]:25")


def test_a_local_domain_is_not_held(house, provider) -> None:
    provider.change("ship", domains=("here.example",))
    [target] = house.resolve("sender@here.example")
    assert target.destination.agent != HOLD


def test_an_alias_leads_to_held_mail(house) -> None:
    [target] = house.resolve("captain@here.example")
    assert target.destination == held("ship.example")
    assert target.original == Address("captain", "here.example")


def test_an_alias_leaves_out_whoever_does_not_exist(house, provider) -> None:
    provider.change("ship", recipients=RecipientRule.LIST)
    provider.customers.listed = {"captain@ship.example"}
    assert len(house.resolve("both@here.example")) == 2
    assert house.refused("nobody@here.example") == "550 5.1.1"


def test_an_alias_waits_for_whoever_has_no_room(house, provider) -> None:
    provider.change("ship", max_messages=1)
    provider.store("captain@ship.example")
    assert house.refused("both@here.example") == "452 4.2.2"


# --------------------------------------------------------------------------------------------- quotas


def test_where_the_quota_is_used_up_it_is_refused_until_the_mail_is_gone(house, provider, clock) -> None:
    provider.change("ship", max_messages=2)
    provider.store("captain@ship.example")
    for _ in range(9):  # asking keeps no room
        assert house.resolve("captain@ship.example")
    provider.store("cook@crew.ship.example")
    clock.advance(5)
    assert house.refused("captain@ship.example") == "452 4.2.2"
    assert house.refused("cook@crew.ship.example", trusted=True) == "452 4.2.2"
    assert house.resolve("cow@farm.example")
    turn = provider.begin()
    while (delivery := result(turn.run.next())) is not None:
        turn.run.settle(delivery, [RELAYED] * len(delivery.recipients))
    clock.turn()
    clock.advance(1)
    assert house.resolve("captain@ship.example")


# ----------------------------------------------------------------------------------- lists and commands


def test_a_list_names_those_who_exist(house, provider) -> None:
    provider.change("ship", recipients=RecipientRule.LIST)
    provider.customers.listed = {"captain@ship.example"}
    assert house.resolve("captain@SHIP.example")
    assert house.resolve("postmaster@ship.example")
    assert house.refused("cook@ship.example", trusted=True) == "550 5.1.1"


@pytest.mark.parametrize(
    ("program", "answer"),
    [
        ("raise SystemExit(0)", None),
        ("raise SystemExit(1)", "550 5.1.1"),
        ("raise SystemExit(75)", "450 4.3.0"),
        ("import os; os.kill(os.getpid(), 9)", "450 4.3.0"),
        ("import sys; raise SystemExit(sys.argv[1:] != ['captain@ship.example'])", None),
    ],
)
def test_a_command_tells_by_its_exit_status(house, provider, program, answer) -> None:
    provider.change("ship", recipients=RecipientRule.COMMAND, recipients_command=(sys.executable, "-c", program))
    if answer is None:
        assert house.resolve("captain@ship.example")
    else:
        assert house.refused("captain@ship.example") == answer


def test_a_command_that_is_missing_or_slow_cannot_tell(house, provider, monkeypatch) -> None:
    provider.change("ship", recipients=RecipientRule.COMMAND, recipients_command=("/nonexistent/command",))
    assert house.refused("captain@ship.example") == "450 4.3.0"
    monkeypatch.setattr("mailsuite.delivery.on_demand.recipients._COMMAND_TIME", 0.05)
    provider.change("ship", recipients_command=(sys.executable, "-c", "import time; time.sleep(9)"))
    assert house.refused("captain@ship.example") == "450 4.3.0"


FORKS = """
import os, sys, time
if os.fork() == 0:
    time.sleep(60)
path = os.path.join(*sys.argv[1:])
with open(path, "w") as file:
    file.write(str(os.getpgid(0)))
os.rename(path, path + ".done")
time.sleep(60)
"""


def is_alive(group):
    """Whether there is a process in this group that is no zombie."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, of = status.read_text().rpartition(")")[2].split()[:3]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(of) == group and state != "Z":
            return True
    return False


def groups_in(directory):
    """The process groups of the commands that have begun."""
    return [int(path.read_text()) for path in directory.glob("*.done")]


def wait_until(condition):
    for _ in range(500):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it does not come")


def test_a_slow_command_leaves_no_children_behind(house, provider, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("mailsuite.delivery.on_demand.recipients._COMMAND_TIME", 1.0)
    command = (sys.executable, "-c", FORKS, str(tmp_path))
    provider.change("ship", recipients=RecipientRule.COMMAND, recipients_command=command)
    assert house.refused("captain@ship.example") == "450 4.3.0"
    [group] = groups_in(tmp_path)
    assert group != os.getpgid(0)
    wait_until(lambda: not is_alive(group))


def test_commands_under_way_are_killed_when_the_server_stops(provider, tmp_path) -> None:
    threads = []

    def in_real_thread(function, *args):
        answer = Deferred()
        ends = []

        def work():
            try:
                ends.append((answer.callback, function(*args)))
            except Exception as error:  # noqa: BLE001 - for whoever waits
                ends.append((answer.errback, error))

        threads.append((Thread(target=work), ends))
        threads[-1][0].start()
        return answer

    command = (sys.executable, "-c", FORKS, str(tmp_path))
    provider.change("ship", recipients=RecipientRule.COMMAND, recipients_command=command)
    commands = Commands(in_real_thread)
    commands.startService()
    ship = provider.customers.customer("ship")
    answers = [pending(commands.exists(ship, Address(f"u{number}", "ship.example"))) for number in range(5)]
    assert len(threads) == 4
    wait_until(lambda: len(groups_in(tmp_path)) == 4)
    assert all(map(is_alive, groups_in(tmp_path)))
    stopped = pending(commands.stopService())
    assert stopped == []
    for thread, ends in threads:
        thread.join(10)
        [(tell, end)] = ends
        tell(end)
    assert stopped == [None]
    assert answers == [[None]] * 5  # the fifth has not begun
    wait_until(lambda: not any(map(is_alive, groups_in(tmp_path))))


def test_whoever_leaves_makes_no_room_for_a_further_command(provider) -> None:
    waiting = []

    def slowly(function, *args):
        waiting.append(Deferred())
        return waiting[-1]

    provider.change("ship", recipients=RecipientRule.COMMAND, recipients_command=("/bin/true",))
    commands = Commands(slowly)
    ship = provider.customers.customer("ship")
    asked = [Deferred.fromCoroutine(commands.exists(ship, Address(f"u{n}", "ship.example"))) for n in range(10)]
    for one in asked:
        one.addErrback(lambda failure: failure.trap(CancelledError))
        one.cancel()
    assert len(waiting) == 4  # threads that are busy still
    last = pending(commands.exists(ship, Address("last", "ship.example")))
    waiting[0].callback(0)
    assert len(waiting) == 5  # nobody asks for the others any more
    waiting[4].callback(0)
    assert last == [True]


def test_no_address_is_taken_for_an_option(house, provider) -> None:
    provider.change("ship", recipients=RecipientRule.COMMAND, recipients_command=("/bin/true",))
    assert house.refused("-x@ship.example") == "550 5.1.1"


def test_only_a_few_commands_run_at_once(provider) -> None:
    waiting = []

    def slowly(function, *args):
        waiting.append(Deferred())
        return waiting[-1]

    provider.change("ship", recipients=RecipientRule.COMMAND, recipients_command=("/bin/true",))
    commands = Commands(slowly)
    ship = provider.customers.customer("ship")
    answers = [pending(commands.exists(ship, Address(f"u{number}", "ship.example"))) for number in range(103)]
    assert len(waiting) == 4
    assert answers[100:] == [[None]] * 3
    for one in waiting:  # it grows while they are answered
        one.callback(0)
    assert answers[:100] == [[True]] * 100


# -------------------------------------------------------------------------------------------- callouts


@pytest.fixture
def asking(house, provider):
    provider.change("ship", recipients=RecipientRule.ASK)
    return house


def test_the_customers_server_is_asked_and_its_word_remembered(asking, clock) -> None:
    asking.scripts += [KNOWN, UNKNOWN]
    assert asking.resolve("captain@ship.example")
    clock.advance(6 * 86400)
    assert asking.resolve("captain@ship.example")
    assert asking.dialer.hosts == ["ship.example"]
    clock.advance(2 * 86400)
    assert asking.refused("captain@ship.example") == "550 5.1.1"
    assert asking.refused("captain@ship.example") == "550 5.1.1"
    asking.scripts.append(KNOWN)
    clock.advance(2 * 3600)
    assert asking.resolve("captain@ship.example")


def test_a_server_that_is_away_refuses_nobody_and_is_left_alone(asking, clock) -> None:
    asking.scripts += [ConnectFailed("no route"), UNKNOWN]
    assert asking.resolve("captain@ship.example")
    assert asking.resolve("cook@ship.example")
    assert len(asking.dialer.hosts) == 1
    clock.advance(300)
    assert asking.refused("captain@ship.example") == "550 5.1.1"


@pytest.mark.parametrize(
    ("reply", "refused"),
    [
        ("550 no such user", True),
        ("551 gone", True),
        ("553 not allowed", True),
        ("550 5.7.1 relaying denied", False),
        ("552 full", False),
        ("550 5.2.2 full", False),
        ("450 4.2.0 greylisted", False),
        ("421 closing", False),
        ("530 5.7.0 Must issue a STARTTLS command first", False),
    ],
)
def test_only_a_word_about_the_recipient_counts(asking, reply, refused) -> None:
    quits = "" if reply.startswith("421") else "C: QUIT\nS: 221 bye\n"
    asking.scripts.append(KNOWN[: KNOWN.index("S: 250 ok\nC: QUIT")] + f"S: {reply}\n{quits}")
    if refused:
        assert asking.refused("captain@ship.example") == "550 5.1.1"
    else:
        assert asking.resolve("captain@ship.example")


@pytest.mark.parametrize(
    "script",
    [
        "S: 554 go away\nC: QUIT\nS: 221 bye\n",
        "S: 220 hello\nC: EHLO mx.here.example\nS: 421 busy\n",
        "S: 220 hello\nC: EHLO mx.here.example\nX: close\n",
        "S: 220 hello\nC: EHLO mx.here.example\nX: slow\n",
        "S: nonsense\n",
        "S: 220 hi\nC: EHLO mx.here.example\nS: 500 what?\nC: HELO mx.here.example\nS: 502 no\nC: QUIT\nS: 221 bye\n",
        "S: 220 hello\nC: EHLO mx.here.example\nS: 250 hi\nC: MAIL FROM:<>\nS: 550 5.7.1 no\nC: QUIT\nS: 221 bye\n",
    ],
)
def test_a_server_that_does_not_say_refuses_nobody(asking, script) -> None:
    asking.scripts.append(script)
    assert asking.resolve("captain@ship.example")
    assert asking.scripts == []


def test_an_internationalized_recipient_is_asked_for_where_that_can_be_said(asking) -> None:
    short = "S: 220 hello\nC: EHLO mx.here.example\nS: 250 hi\nC: QUIT\nS: 221 bye\n"
    able = UNKNOWN.replace("S: 250 ship.example", "S: 250-ship.example\nS: 250 SMTPUTF8")
    able = able.replace("MAIL FROM:<>", "MAIL FROM:<> SMTPUTF8").replace("captain", "käpten")
    asking.scripts += [short, able]
    assert asking.resolve("käpten@ship.example")
    assert asking.refused("käpten@ship.example") == "550 5.1.1"


def test_an_old_server_is_asked_by_helo(asking) -> None:
    asking.scripts.append(
        UNKNOWN.replace("S: 250 ship.example", "S: 500 what?\nC: HELO mx.here.example\nS: 250 ship.example")
    )
    assert asking.refused("captain@ship.example") == "550 5.1.1"


def test_those_who_ask_at_once_wait_for_one_callout_and_not_for_ever(asking, clock) -> None:
    dialled = []

    async def dial(*args, **how):
        dialled.append(Deferred())
        await dialled[-1]

    asking.dialer.dial = dial
    answers = [pending(asking.router.resolve(Address("a", "ship.example"), None, trusted=False)) for _ in range(20)]
    assert len(dialled) == 1
    clock.advance(20)
    assert all(isinstance(answer, tuple) for [answer] in answers)


def test_the_memory_is_bounded_and_forgets_what_was_used_longest_ago(clock) -> None:
    memory = Memory(clock, bound=3)
    for name in "abc":
        memory.note(Address(name, "ship.example"), exists=True)
    assert memory.exists(Address("a", "ship.example"))
    memory.note(Address("d", "ship.example"), exists=False)
    assert [memory.exists(Address(name, "ship.example")) for name in "abcd"] == [True, None, True, False]


def test_readers_of_reports_are_found_without_commands_and_callouts(house, provider, tmp_path) -> None:
    def reader(name):
        return result(house.router.resolve(Address(name, "ship.example"), None, trusted=True, is_report=True))

    trace = tmp_path / "asked"
    provider.change("ship", recipients=RecipientRule.COMMAND, recipients_command=("/usr/bin/touch", str(trace)))
    assert len(reader("captain")) == 1
    assert not trace.exists()
    provider.change("ship", recipients=RecipientRule.ASK)
    assert len(reader("captain")) == 1
    provider.change("ship", recipients=RecipientRule.LIST)
    with pytest.raises(Refused):
        reader("nobody")
