"""Quotas as strangers meet them: real sessions over a router, a spool in memory, and the customers' limits."""

import pytest
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from mailsuite.delivery.on_demand.admission import Admission
from mailsuite.delivery.on_demand.quota import Quota
from mailsuite.delivery.on_demand.recipients import Callouts, Commands, Recipients
from mailsuite.delivery.router import Router
from mailsuite.delivery.routes import Routes
from mailsuite.interfaces import IQuota, IReservation, SpoolError
from mailsuite.mail.route import Target
from tests.delivery.agents.test_relay import FakeDialer, in_thread
from tests.delivery.fakes import RELAYED, FakeDirectory
from tests.delivery.on_demand.conftest import held, result
from tests.session.interrupted import Server

CAPTAIN = b"RCPT TO:<captain@ship.example>\r\n"
COOK = b"RCPT TO:<cook@crew.ship.example>\r\n"
OVER = b"452 4.2.2 Too much mail is held for this domain, try again later"
OK = b"250 2.1.5 Recipient OK"
LINE = b"x" * 98 + b"\r\n"
WAYS = [b"RSET\r\n", b"QUIT\r\n", b"EHLO x.example\r\n", b"HELO x.example\r\n", b"DATA\r\nA: \rb\r\n.\r\n", None]


class House:
    """A server on the provider's spool; `quota` has the customers' limits."""

    def __init__(self, provider, clock):
        self.clock = clock
        self.provider = provider
        self.quota = Quota(provider.customers, provider.spool, clock)
        callouts = Callouts(None, FakeDialer(), clock, "mx.here.example")
        recipients = Recipients(provider.customers, Commands(in_thread), callouts)
        router = Router(
            FakeDirectory({"here.example"}, {"sender@here.example"}, {"crew@here.example": ["captain@ship.example"]}),
            Routes(()),
            held=Admission(provider.customers, self.quota, recipients),
        )
        self.server = Server(provider.spool, router=router, quota=self.quota)

    def asks(self, rcpt=CAPTAIN, *, size=None, transid=None):
        """A new connection that has said MAIL and RCPT, and the answer to the last."""
        client = self.server.connect()
        words = b"" if size is None else b" SIZE=%d" % size
        words += b"" if transid is None else b" TRANSID=<%s@c>" % transid
        [mail] = client.say(b"MAIL FROM:<fred@example.org>" + words + b"\r\n")
        assert mail.startswith(b"250"), mail
        return client, client.say(rcpt)[-1]

    def sends(self, content=b"A: b\r\n\r\n", **said):
        """What a message is answered in the end."""
        client, answer = self.asks(**said)
        if answer != OK:
            return answer
        return client.say(b"DATA\r\n" + content + b".\r\n")[-1]

    def collect(self):
        turn = self.provider.begin()
        while (delivery := result(turn.run.next())) is not None:
            turn.run.settle(delivery, [RELAYED] * len(delivery.recipients))
        self.clock.turn()
        self.clock.advance(1)

    @property
    def messages(self):
        return sum(one.messages for one in result(self.provider.spool.held()))

    @property
    def octets(self):
        return sum(one.octets for one in result(self.provider.spool.held()))


@pytest.fixture
def house(provider, clock):
    return House(provider, clock)


def test_they_keep_the_interfaces(house) -> None:
    assert verifyObject(IQuota, house.quota)
    assert verifyObject(IReservation, house.quota.reservation(0))


# -------------------------------------------------------------------------------------------- messages


@pytest.mark.parametrize("way", WAYS)
def test_whoever_brings_nothing_takes_no_room(house, provider, way) -> None:
    provider.change("ship", max_messages=3)
    for _ in range(20):
        client, answer = house.asks()
        assert answer == OK
        if way is None:
            client.lose()
        else:
            client.say(way)
    assert house.sends().startswith(b"250")


def test_one_connection_keeps_room_for_one_message(house, provider) -> None:
    provider.change("ship", max_messages=2)
    client, _ = house.asks()
    for _ in range(20):
        client.say(b"RSET\r\nMAIL FROM:<>\r\n")
        assert client.say(CAPTAIN) == [OK]
        assert client.say(CAPTAIN) == [OK]
        assert client.say(COOK) == [OK]
        assert client.say(b"RCPT TO:<crew@here.example>\r\n") == [OK]
    assert house.sends().startswith(b"250")
    house.clock.advance(1)
    assert house.asks()[1] == OVER
    client.say(b"RSET\r\n")
    assert house.asks()[1] == OK


@pytest.mark.parametrize("wait", [0, 1, 60])
def test_many_sessions_stay_within_the_limit(house, provider, wait) -> None:
    provider.change("ship", max_messages=5)
    asked = []
    for _ in range(20):
        asked.append(house.asks())
        house.clock.advance(wait)  # a look at the spool leaves the others' room alone
    assert [answer for _, answer in asked] == [OK] * 5 + [OVER] * 15
    for client, answer in asked:
        if answer == OK:
            client.say(b"DATA\r\nA: b\r\n\r\n.\r\n")
            house.clock.advance(wait)
    assert house.messages == 5
    assert house.asks()[1] == OVER
    house.collect()
    assert house.asks()[1] == OK


def test_room_is_kept_for_whoever_has_asked_while_the_spool_is_looked_at(house, provider) -> None:
    provider.change("ship", max_messages=10)
    look, asked = provider.spool.held, []

    def held():
        asked.append(Deferred())
        return asked[-1]

    provider.spool.held = held
    clients = [house.server.connect() for _ in range(50)]
    for client in clients:
        client.say(b"MAIL FROM:<>\r\n")
        client.say(CAPTAIN)
    assert len(asked) == 1
    clients[0].lose()
    asked[0].callback(result(look()))
    assert sorted(answer for client in clients[1:] for answer in client.hear()) == [OK] * 10 + [OVER] * 39


def test_what_has_landed_counts_until_the_spool_says_so_itself(house, provider) -> None:
    provider.change("ship", max_messages=3)
    assert [house.sends()[:3] for _ in range(5)] == [b"250"] * 3 + [b"452"] * 2
    house.clock.advance(5)
    assert house.sends() == OVER
    look = provider.spool.held
    provider.change("ship", max_messages=5)
    before = Deferred()
    provider.spool.held = lambda: before
    client = house.server.connect()
    client.say(b"MAIL FROM:<>\r\n")
    house.clock.advance(5)
    assert client.say(CAPTAIN) == []  # it is looked up, and
    provider.spool.held = look
    old = result(look())
    other = house.quota.reservation(0)
    house.quota._held = {}  # noqa: SLF001 - the look that is under way is as old as this
    keeping = Deferred.fromCoroutine(other.include([Target(None, held("ship.example"))]))
    before.callback(old)
    assert keeping.called
    assert client.hear() == [OK]
    other.landed()
    assert house.asks()[1] == OVER


def test_a_spool_that_cannot_tell_refuses_for_now(house, provider) -> None:
    async def held():
        raise SpoolError("on fire")

    look, provider.spool.held = provider.spool.held, held
    assert house.asks()[1] == OK
    provider.change("ship", max_messages=1)
    assert house.asks()[1].startswith(b"451 4.3.0")
    provider.spool.held = look
    assert house.asks()[1] == OK
    assert house.asks()[1] == OVER


def test_a_customer_over_its_quota_keeps_no_room_of_anothers(house, provider) -> None:
    provider.change("ship", max_messages=1)
    provider.change("farm", max_messages=1)
    provider.store("captain@ship.example")
    client, answer = house.asks()
    assert answer == OVER
    assert client.say(b"RCPT TO:<cow@farm.example>\r\n") == [OK]
    assert house.asks(b"RCPT TO:<cow@farm.example>\r\n")[1] == OVER


def test_a_commit_that_fails_gives_the_room_back(house, provider) -> None:
    provider.change("ship", max_messages=1)
    draft = provider.spool.draft

    async def fails(*_arguments, **_named):
        raise SpoolError("no disk")

    provider.spool.draft = lambda: Draft(draft(), fails)
    for _ in range(5):
        assert house.sends().startswith(b"451 4.3.0")
    provider.spool.draft = draft
    assert house.sends().startswith(b"250")


class Draft:
    """A draft whose commit is another one."""

    def __init__(self, draft, commit):
        self._draft = draft
        self.commit = commit

    def __getattr__(self, name):
        return getattr(self._draft, name)


def test_a_commit_whose_session_has_gone_counts_when_it_lands(house, provider) -> None:
    provider.change("ship", max_messages=1)
    draft, gate = provider.spool.draft, Deferred()

    def slow():
        made = draft()

        async def commit(*arguments, **named):
            await gate
            await made.commit(*arguments, **named)

        return Draft(made, commit)

    provider.spool.draft = slow
    client, _ = house.asks()
    assert client.say(b"DATA\r\nA: b\r\n\r\n.\r\n")[1:] == []
    client.lose()
    house.clock.advance(60)
    assert house.asks()[1] == OVER
    gate.callback(None)
    assert house.asks()[1] == OVER
    assert house.messages == 1
    house.collect()
    assert house.asks()[1] == OK


# ---------------------------------------------------------------------------------------------- octets


def test_what_is_announced_counts_at_once(house, provider) -> None:
    provider.change("ship", max_octets=10_000)
    first, answer = house.asks(size=9000)
    assert answer == OK
    assert house.asks(size=2000)[1] == OVER
    second, answer = house.asks(size=900)
    assert answer == OK
    first.say(b"RSET\r\n")
    assert house.asks(size=9000)[1] == OK
    assert house.asks(size=500)[1] == OVER
    second.lose()
    assert house.asks(size=500)[1] == OK


def test_what_was_not_announced_counts_when_it_is_here(house, provider) -> None:
    provider.change("ship", max_octets=10_000)
    assert house.sends(b"A: b\r\n\r\n" + LINE * 100) == OVER
    assert house.messages == 0
    assert house.sends(b"A: b\r\n\r\n" + LINE * 60).startswith(b"250")
    assert house.sends(b"A: b\r\n\r\n" + LINE * 60) == OVER
    assert house.sends(b"A: b\r\n\r\n" + LINE * 20).startswith(b"250")
    assert house.octets <= 10_000


def test_many_sessions_with_large_messages_stay_within_the_limit(house, provider) -> None:
    provider.change("ship", max_octets=30_000)
    asked = [house.asks()[0] for _ in range(20)]
    for client in asked:
        client.say(b"DATA\r\nA: b\r\n\r\n" + LINE * 90)
    answers = [client.say(b".\r\n")[-1] for client in asked]
    assert sorted(answer[:3] for answer in answers) == [b"250"] * 3 + [b"452"] * 17
    assert house.octets <= 30_000


def test_who_announces_too_little_is_refused_in_the_end(house, provider) -> None:
    provider.change("ship", max_octets=10_000)
    assert house.sends(b"A: b\r\n\r\n" + LINE * 100, size=100) == OVER
    assert house.messages == 0


def test_our_own_trace_is_nobodys_fault(house, provider) -> None:
    provider.change("ship", max_octets=10_000)
    content = b"A: b\r\n" + LINE * 99 + b"x" * 92 + b"\r\n"
    assert len(content) == 10_000
    assert house.sends(content, size=10_000).startswith(b"250")
    assert house.sends(size=1) == OVER


def test_the_end_is_refused_for_messages_too_where_all_is_full_of_octets(house, provider) -> None:
    provider.change("ship", max_octets=1000)
    provider.store("captain@ship.example", content=b"x" * 999 + b"\n")
    assert house.asks()[1] == OVER


# ------------------------------------------------------------------------------------------ CHECKPOINT


def broken_off(house, transid=b"1", count=3):
    client, answer = house.asks(transid=transid)
    assert answer == OK
    client.say(b"BDAT 100000\r\nA: b\r\n\r\n" + LINE * count)
    client.lose()


def test_what_is_resumed_keeps_room_again(house, provider) -> None:
    provider.change("ship", max_messages=1)
    broken_off(house)
    other, answer = house.asks()
    assert answer == OK  # the line has broken: its room is free
    client = house.server.connect()
    assert client.begin(b"1@c") == OVER
    other.say(b"RSET\r\n")
    assert client.begin(b"1@c").startswith(b"355 308 ")
    assert house.asks()[1] == OVER
    assert client.say(b"BDAT 3 LAST\r\nx\r\n")[0].startswith(b"250")
    assert house.asks()[1] == OVER
    house.collect()
    assert house.asks()[1] == OK


def test_many_resumed_transactions_stay_within_the_limit(house, provider) -> None:
    provider.change("ship", max_messages=4)
    for number in range(20):
        broken_off(house, b"%d" % number)
    clients = [house.server.connect() for _ in range(20)]
    answers = [client.begin(b"%d@c" % number)[:3] for number, client in enumerate(clients)]
    assert sorted(answers) == [b"355"] * 4 + [b"452"] * 16
    for client in clients:
        client.say(b"BDAT 3 LAST\r\nx\r\n")
    assert house.messages == 4


def test_whoever_takes_a_transaction_over_has_its_room(house, provider) -> None:
    provider.change("ship", max_messages=1)
    first, answer = house.asks(transid=b"1")
    assert answer == OK
    first.say(b"BDAT 100000\r\nA: b\r\n\r\n" + LINE)
    second = house.server.connect()
    assert second.begin(b"1@c").startswith(b"355 108 ")
    first.lose()
    assert house.asks()[1] == OVER
    second.lose()
    assert house.asks()[1] == OK


def test_what_is_complete_needs_no_room(house, provider) -> None:
    provider.change("ship", max_messages=1)
    client, _ = house.asks(transid=b"1")
    client.say(b"BDAT 10 LAST\r\nA: b\r\n\r\nx\r\n")
    client.lose()
    again = house.server.connect()
    assert again.begin(b"1@c").startswith(b"355 ")
    assert again.say(b"BDAT 0 LAST\r\n")[-1].startswith(b"250")
    assert house.messages == 1


def test_room_of_a_transaction_that_is_looked_up_while_it_is_taken_over_goes_back(house, provider) -> None:
    provider.change("ship", max_messages=1)
    look, gate = provider.spool.held, Deferred()
    provider.spool.held = lambda: gate
    first = house.server.connect()
    first.begin(b"1@c")
    assert first.say(CAPTAIN) == []
    second = house.server.connect()
    assert second.begin(b"1@c").startswith(b"250")
    provider.spool.held = look
    gate.callback(result(look()))
    assert first.hear()[0].startswith(b"4")
    assert second.say(CAPTAIN) == [OK]
    second.say(b"RSET\r\n")
    assert house.asks()[1] == OK
