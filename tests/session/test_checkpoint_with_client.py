"""Both sides of CHECKPOINT are ours: over lines that break, each message comes once, and its octets travel once."""

import random
from dataclasses import replace
from typing import Any

import pytest
from twisted.internet.task import Clock

from mailsuite.mail.options import MessageOptions, Notify, RecipientOptions, Return
from mailsuite.mail.queue import Delivery, Result
from mailsuite.mail.route import Destination
from mailsuite.session.checkpoints import Checkpoints
from mailsuite.spool.memory import MemorySpool
from tests.session.interrupted import Server
from tests.session.scripted import make_delivery
from tests.session.turning import CustomerSite, FakeOnDemand, Line

LARGE = 2_000_000


class Site(CustomerSite):
    """A customer whose spool outlasts its connections."""

    def __init__(self, spool: MemorySpool, checkpoints: Checkpoints, **offer: Any) -> None:
        super().__init__(checkpoint=True, **offer)
        self.door = replace(self.door, spool=spool, checkpoints=checkpoints)


class Sites:
    """Turn after turn of one customer, until everything is settled."""

    def __init__(self, due: list[Delivery], **offer: Any) -> None:
        self.spool = MemorySpool(Clock())
        self.checkpoints = Checkpoints()
        self.due = due
        self.offer = offer
        self.passed = 0
        self.turns = 0

    def turn(self, octets: int | None) -> None:
        on_demand = FakeOnDemand(self.due)
        line = Line(on_demand, Site(self.spool, self.checkpoints, **self.offer))
        line.carry(octets, piece=16 * 1024)
        self.passed += line.passed
        self.turns += 1
        for turn in on_demand.turns:
            turn.run.check_accounts()
            for queue_id, outcomes in turn.run.settled.items():
                assert {one.result for one in outcomes} == {Result.RELAYED}
                self.due = [one for one in self.due if one.message.queue_id != queue_id]
        assert len(self.checkpoints) == 0

    def deliveries(self) -> list[Delivery]:
        taken: list[Delivery] = []
        self.spool.claim(Destination("maildir"), 1000).addCallback(taken.extend)
        return taken

    def contents(self) -> list[bytes]:
        return [Server.without_trace(one.content.in_memory()) for one in self.deliveries()]


def some(chance: random.Random, sizes: list[int]) -> list[Delivery]:
    return [
        make_delivery(
            f"q{number}",
            "bob@ship.example.org",
            content=f"Subject: q{number}\r\n\r\n".encode()
            + b"".join(chance.choice([b"..\r\n", b"x" * 70 + b"\r\n", b".\r\n"]) for _ in range(size // 25)),
        )
        for number, size in enumerate(sizes)
    ]


@pytest.mark.parametrize("chunking", [True, False])
@pytest.mark.parametrize("seed", range(10))
def test_each_message_comes_once_however_the_line_breaks(seed: int, *, chunking: bool) -> None:
    chance = random.Random(f"{seed} {chunking}")
    due = some(chance, [chance.choice([100, 3000, 40_000, 700_000]) for _ in range(12)])
    sites = Sites(due, chunking=chunking)
    for _ in range(300):
        if not sites.due:
            break
        sites.turn(chance.choice([600, 2_000, 30_000, 100_000, 600_000]))
    assert sites.due == []
    assert sorted(sites.contents()) == sorted(one.content.in_memory() for one in due)


@pytest.mark.parametrize("chunking", [True, False])
def test_large_message_travels_once(chunking: bool) -> None:
    [message] = some(random.Random(1), [LARGE])
    size = message.content.size
    sites = Sites([message], chunking=chunking)
    while sites.due:
        sites.turn(size // 7)
    assert sites.turns in {8, 9}
    assert sites.passed < 1.2 * size
    assert sites.contents() == [message.content.in_memory()]


@pytest.mark.parametrize("chunking", [True, False])
def test_what_was_asked_for_comes_with_it(*, chunking: bool) -> None:
    """RFC 3461, over a line that breaks: parts and recipients are kept with it, and MAIL says it again."""
    options = MessageOptions(Return.HEADERS, "a+b")
    wishes = RecipientOptions(Notify.SUCCESS | Notify.DELAY, "rfc822;Bob@ship.example.org")
    message = make_delivery(
        "q1",
        "bob@ship.example.org",
        content=b"Subject: q1\r\nTLS-Required: No\r\n\r\n" + b"x" * 60 + b"\r\n" * 100_000,
        options=options,
        wishes=[wishes],
    )
    sites = Sites([message], chunking=chunking, dsn=True)
    while sites.due:
        sites.turn(60_000)
    assert 4 <= sites.turns <= 8
    [taken] = sites.deliveries()
    assert taken.message.envelope.options == replace(options, tls_optional=True)
    assert [one.options for one in taken.recipients] == [wishes]
