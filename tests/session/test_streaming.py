"""Many messages under way at once, and a line that breaks: what is repeated comes once."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from mailsuite.mail.queue import Delivery
from mailsuite.mail.reply import Reply
from mailsuite.mail.route import NextHop
from mailsuite.session.relay import RelaySession, RelaySettings
from mailsuite.wire.smtp.commands import Bdat, ContentEnd, Mail, Rcpt
from tests.net.support import Side
from tests.session.remembering import (
    NO_SUCH_USER,
    BreakingConversation,
    Memory,
    RememberingServer,
    accept_all,
    one_by_one,
    whole,
)
from tests.session.scripted import ListedRun, finish, make_delivery
from tests.session.turning import CustomerSite, FakeOnDemand, Line, deliveries

HOP = NextHop("mx.example.net")


def mailbox(number: int) -> str:
    return f"user{number}@example.net"


def content_of(number: int, size: int = 40) -> bytes:
    return f"Subject: q{number}\r\n\r\n".encode() + b".x" * (size // 2) + b"\r\n"


def some(count: int, size: int = 40) -> list[Delivery]:
    return [make_delivery(f"q{n}", mailbox(n), content=content_of(n, size)) for n in range(count)]


def hold(
    memory: Memory, due: list[Delivery], octets: int | None = None, cut=whole, refuse=accept_all, **options
) -> tuple[ListedRun, BreakingConversation]:
    """One connection; the run has accounted for everything that it gave out."""
    run = ListedRun(*due)
    server = RememberingServer(memory, refuse)
    conversation = BreakingConversation(server, octets, cut)
    options.setdefault("breaks_count", False)
    session = RelaySession(run, RelaySettings("relay.example.org", HOP, **options))
    assert finish(session(conversation)) is None
    run.check_accounts()
    return run, conversation


def test_hundred_messages_take_a_few_round_trips():
    memory = Memory()
    run, conversation = hold(memory, some(100))
    assert list(run.settled) == [f"q{n}" for n in range(100)]
    assert [name for name, _ in memory.mailboxes] == [mailbox(n) for n in range(100)]
    assert [content for _, content in memory.mailboxes] == [content_of(n) for n in range(100)]
    # Greeting, EHLO, the first message's MAIL and RCPT, and QUIT are waited for; else only where the bound is met.
    assert conversation.trips <= 8
    assert conversation.most_unanswered <= 4 * 50 + 1


def test_what_is_unanswered_is_bounded():
    memory = Memory()
    _, few = hold(memory, some(100), ahead=5)
    assert few.most_unanswered <= 4 * 5 + 1
    assert few.trips >= 100 // 5
    # A quarter of a MiB each: four of them are under way, whatever the count allows.
    _, large = hold(Memory(), some(12, 250_000))
    assert large.most_unanswered <= 4 * 5
    assert len(memory.mailboxes) == 100


def test_recipients_are_bounded_too():
    names = [mailbox(n) for n in range(30)]
    due = [make_delivery(f"q{n}", *names) for n in range(10)]
    run, conversation = hold(Memory(), due)
    assert all(run.results(f"q{n}") == ["relayed"] * 30 for n in range(10))
    assert conversation.most_unanswered <= 100 + 3 * 4
    wide = [make_delivery("q0", *names), make_delivery("q1", *names)]
    run, conversation = hold(Memory(), wide, window=10)  # more than the window: in groups, each with its answers
    assert conversation.most_unanswered <= 10 + 3
    assert list(run.settled) == ["q0", "q1"]


@pytest.mark.parametrize("cut", [whole, one_by_one])
def test_refusals_in_the_midst_of_the_pipeline(cut):
    """Each refusal is for its own message, whatever follows it."""
    due = some(12)
    due[3] = make_delivery("q3", NO_SUCH_USER)
    due[4] = make_delivery("q4", NO_SUCH_USER, mailbox(4), content=content_of(4))

    def refuse(event):
        if isinstance(event, Mail) and str(event.reverse_path) == "evil@example.org":
            return Reply.make(550, "5.7.1", "Not from you")
        if isinstance(event, Rcpt) and str(event.address) == mailbox(7):
            return Reply.make(452, "4.2.2", "Full")
        return None

    due[6] = make_delivery("q6", mailbox(6), sender="evil@example.org")
    ends = iter(range(100))

    def refuse_one_end(event):
        # The fifth and the sixth content that are taken are those of q5 and q8.
        if isinstance(event, ContentEnd) and next(ends) == 5:
            return Reply.make(552, "5.3.4", "Too big")
        return refuse(event)

    memory = Memory()
    run, conversation = hold(memory, due, cut=cut, refuse=refuse_one_end)
    assert list(run.settled) == [f"q{n}" for n in range(12)]
    results = [run.results(f"q{n}") for n in range(12)]
    assert results[3] == ["failed"]
    assert results[4] == ["failed", "relayed"]
    assert results[6] == ["failed"]
    assert str(run.settled["q6"][0].status) == "5.7.1"
    assert results[7] == ["delayed"]
    assert str(run.settled["q7"][0].status) == "4.2.2"
    assert results[8] == ["failed"]
    assert str(run.settled["q8"][0].status) == "5.3.4"
    fine = [0, 1, 2, 4, 5, 9, 10, 11]
    assert all(results[n][-1] == "relayed" for n in fine)
    assert [name for name, _ in memory.mailboxes] == [mailbox(n) for n in fine]
    assert conversation.trips <= 6 or cut is one_by_one


def test_recipients_that_are_too_many_go_with_another_transaction():
    seen: Counter[str] = Counter()

    def refuse(event):
        if isinstance(event, Rcpt) and str(event.address) == mailbox(2):
            seen["rcpt"] += 1
            return Reply.make(452, "4.5.3", "Too many") if seen["rcpt"] == 1 else None
        return None

    memory = Memory()
    due = [*some(1), make_delivery("q1", mailbox(1), mailbox(2)), make_delivery("q2", mailbox(3))]
    run, _ = hold(memory, due, refuse=refuse)
    assert run.results("q1") == ["relayed", "relayed"]
    assert list(run.settled) == ["q0", "q2", "q1"]
    assert Counter(name for name, _ in memory.mailboxes) == {mailbox(n): 1 for n in range(4)}


def test_421_in_the_midst_settles_whoever_was_answered():
    seen: Counter[type] = Counter()

    def refuse(event):
        seen[type(event)] += 1
        return Reply.make(421, "4.3.2", "Bye") if isinstance(event, Mail) and seen[Mail] == 6 else None

    run, _ = hold(Memory(), some(20), refuse=refuse)
    assert list(run.settled) == [f"q{n}" for n in range(5)]
    assert sorted(run.released) == sorted(f"q{n}" for n in range(5, 20))
    # Whoever puts each in front has them in order again.
    assert run.released[-1] == "q5"
    run, _ = hold(Memory(), some(20), refuse=_hang_up_at_content(4), breaks_count=True)
    assert [run.results(f"q{n}") for n in range(5)] == [["relayed"]] * 4 + [["delayed"]]
    assert "q5" in run.released


def _hang_up_at_content(number: int):
    ends = iter(range(100))
    return lambda event: (
        Reply.make(421, "4.3.2", "Bye") if isinstance(event, ContentEnd) and next(ends) == number else None
    )


@pytest.mark.parametrize("cut", [whole, one_by_one])
def test_line_may_break_at_every_octet(cut):
    """What was not settled goes on over a second line: each message arrives, once."""
    due = [*some(4), make_delivery("q4", mailbox(4), NO_SUCH_USER, content=content_of(4))]
    _, conversation = hold(Memory(), due)
    resumed = []
    for octets in range(1, conversation.passed):
        memory = Memory()
        broken, _ = hold(memory, due, octets, cut)
        rest = [one for one in due if one.message.queue_id not in broken.settled]
        again, _ = hold(memory, rest, None, cut)
        assert {**broken.settled, **again.settled}.keys() == {f"q{n}" for n in range(5)}
        for n in range(5):
            assert memory.copies(mailbox(n)) == [content_of(n)], octets
            [first, *_] = broken.results(f"q{n}") if f"q{n}" in broken.settled else again.results(f"q{n}")
            assert first == "relayed"
        resumed += [offset for _, offset in memory.resumed]
    sizes = {len(content_of(n)) for n in range(5)}
    assert sizes <= set(resumed)  # some had arrived, unnoticed
    assert any(0 < offset < min(sizes) for offset in resumed)  # others had in part


@settings(max_examples=150)
@given(st.data(), st.lists(st.sampled_from([0, 30, 5_000, 300_000, 600_000]), min_size=1, max_size=25), st.booleans())
def test_line_that_breaks_again_and_again_delivers_each_message_once(data, sizes, chunking):
    memory = Memory(chunking=chunking, by_lines=not chunking)
    due = [
        make_delivery(f"q{n}", mailbox(n), f"also-{mailbox(n)}", content=content_of(n, size).replace(b"x.x", b"\r\n."))
        for n, size in enumerate(sizes)
    ]
    order = data.draw(st.permutations(due))
    settled: set[str] = set()
    for _ in range(100):
        left = [one for one in order if one.message.queue_id not in settled]
        octets = data.draw(st.one_of(st.integers(1, 3_000), st.integers(1, 900_000), st.none()))
        run, _ = hold(memory, left, octets)
        settled |= set(run.settled)
        assert all(run.results(queue_id) == ["relayed"] * 2 for queue_id in run.settled)
        if octets is None:
            break
    else:
        settled |= set(hold(memory, [one for one in order if one.message.queue_id not in settled])[0].settled)
    assert settled == {one.message.queue_id for one in due}
    for number, one in enumerate(due):
        octets_of_it = one.content.in_memory()
        assert memory.copies(mailbox(number)) == [octets_of_it]
        assert memory.copies(f"also-{mailbox(number)}") == [octets_of_it]


def test_large_message_goes_on_where_the_line_broke():
    memory = Memory()
    due = [make_delivery("big", mailbox(0), content=content_of(0, 20_000_000))]
    travelled = breaks = 0
    while not memory.mailboxes:
        run, conversation = hold(memory, due, 3_000_000)
        travelled += conversation.passed
        breaks += 1
    assert breaks == 7
    assert run.results("big") == ["relayed"]
    assert memory.copies(mailbox(0)) == [content_of(0, 20_000_000)]
    assert memory.content_taken <= 20_000_000 + 100
    assert travelled < 21_000_000


def test_large_message_waits_for_its_recipients_and_holds_nobody_up_behind_it():
    due = [*some(2), make_delivery("big", NO_SUCH_USER, content=content_of(0, 900_000)), *some(5)[2:]]
    run, conversation = hold(Memory(), due)
    assert run.results("big") == ["failed"]
    assert len(conversation.said) < 5_000  # nothing of the content was sent
    assert conversation.trips <= 7
    run, conversation = hold(Memory(), [*some(2), make_delivery("big", content=content_of(0, 900_000)), *some(5)[2:]])
    assert list(run.settled) == ["q0", "q1", "big", "q2", "q3", "q4"]
    assert conversation.trips <= 7


def test_server_that_knows_more_than_it_should_is_not_taken_in():
    """The content went ahead, and the server has it already: it refuses, and is asked again with care."""
    due = some(6)
    memory = Memory()
    hold(memory, due[3:5])  # on another line, of which nobody here has heard
    transid = next(iter(memory.completed))
    memory.parts[transid] = (memory.completed.pop(transid)[0], content_of(3)[:10])
    del memory.mailboxes[0]
    run, conversation = hold(memory, due)
    assert set(run.settled) == {f"q{n}" for n in range(6)}
    assert all(run.results(f"q{n}") == ["relayed"] for n in range(6))
    for n in range(6):
        assert memory.copies(mailbox(n)) == [content_of(n)]
    assert conversation.said.count(b"BDAT 0 LAST\r\n") == 1
    assert conversation.said.count(b"MAIL FROM:") == 6 + 2


@pytest.mark.parametrize("suspect", ["replayed", "attempts"])
def test_what_may_have_been_tried_elsewhere_waits_for_the_answer(suspect):
    one = make_delivery("q1", mailbox(1), content=content_of(1))
    if suspect == "replayed":
        one = replace(one, replayed=True)
    else:
        one = replace(one, recipients=(replace(one.recipients[0], attempts=1),))
    memory = Memory()
    hold(memory, [one])
    assert memory.copies(mailbox(1)) == [content_of(1)]
    run, conversation = hold(memory, [*some(1), one, *some(3)[2:]], breaks_count=True)
    assert run.results("q1") == ["relayed"]
    assert memory.copies(mailbox(1)) == [content_of(1)]
    assert b"BDAT 0 LAST\r\n" in conversation.said


class Unreadable:
    size = 10

    def in_memory(self):
        return None

    async def read(self, offset, limit):
        raise OSError(5, "Input/output error")


def test_unreadable_message_is_left_out():
    due = [*some(2), make_delivery("bad", content=Unreadable()), *some(4)[2:]]  # type: ignore[arg-type]
    memory = Memory()
    run, _ = hold(memory, due)
    assert run.results("bad") == ["delayed"]
    assert [name for name, _ in memory.mailboxes] == [mailbox(n) for n in range(4)]
    run, _ = hold(Memory(), [make_delivery("bad", content=Unreadable()), *some(1)])  # type: ignore[arg-type]
    assert run.results("bad") == ["delayed"]
    assert run.results("q0") == ["relayed"]


def test_what_comes_while_the_last_answers_are_awaited_is_sent():
    class Late(ListedRun):
        asked = 0

        async def next(self):
            self.asked += 1
            if self.asked == 4:
                return None
            return await super().next()

    run = Late(*some(5))
    memory = Memory()
    session = RelaySession(run, RelaySettings("relay.example.org", HOP))
    finish(session(BreakingConversation(RememberingServer(memory))))
    assert len(run.settled) == 5
    assert run.asked == 8  # None while answers were awaited, and None behind the last, twice
    assert session.end.outcome is None


def test_asking_for_more_holds_nothing_back():
    """When the run is asked, everything that was said has left."""

    class Looking(ListedRun):
        left: list[int]

        async def next(self):
            self.left.append(sum(isinstance(event, Bdat) for event in server.heard))
            return await super().next()

    run = Looking(*some(10))
    run.left = []
    server = RememberingServer(Memory())
    finish(RelaySession(run, RelaySettings("relay.example.org", HOP))(BreakingConversation(server)))
    assert run.left[:11] == list(range(11))


def test_lost_line_defers_what_may_have_arrived_and_gives_nothing_to_another_host():
    _, all_of_it = hold(Memory(), some(20))
    seen = set()
    for octets in range(all_of_it.passed // 2, all_of_it.passed, 7):
        run, _ = hold(Memory(), some(20), octets, breaks_count=True)
        results = [result for outcomes in run.settled.values() for outcome in outcomes for result in [outcome.result]]
        assert [str(result) for result in results] == sorted(map(str, results), reverse=True)  # relayed, then delayed
        assert run.released == []
        seen.add(results.count(results[0]))
    assert len(seen) > 3


# ------------------------------------------------------------------------ connections, and peers that are no help

GREETED = (
    b"220 mx.example.net\r\n250-mx.example.net\r\n250-PIPELINING\r\n250-SIZE\r\n250-CHUNKING\r\n250 CHECKPOINT\r\n"
)
BOTH = b"250 ok\r\n250 ok\r\n"


def connect(run: ListedRun, **options) -> tuple[RelaySession, Side]:
    settings_ = RelaySettings("relay.example.org", HOP, **{"breaks_count": False, **options})
    session = RelaySession(run, settings_)
    side = Side(session, settings_.core())
    side.receive(GREETED)
    side.receive(BOTH)  # the first message waits for the answers to MAIL and RCPT
    return session, side


def test_peer_that_never_answers_is_told_so_much_and_no_more():
    run = ListedRun(*some(200))
    session, side = connect(run)
    assert side.wire.sent.count(b"BDAT ") == 50
    assert len(run.taken) <= 51
    side.clock.advance(100_000)
    assert run.settled == {}
    run.check_accounts()
    assert session.end.outcome is not None


def test_peer_that_does_not_read_is_sent_nothing_more():
    run = ListedRun(*some(200, 100_000))
    _, side = connect(run, ahead=5)
    assert side.wire.sent.count(b"BDAT ") == 5
    side.wire.has_room = False
    before = len(side.wire.sent)
    for _ in range(20):
        side.receive(b"250 ok\r\n" * 2)
    assert len(side.wire.sent) - before < 110_000
    side.clock.advance(100_000)
    assert "relayed" in run.results("q0")
    run.check_accounts()


@pytest.mark.parametrize("extra", [b"250 ok\r\n", b"nonsense\r\n", b"354 go\r\n"])
def test_peer_that_answers_more_than_was_asked(extra):
    run = ListedRun(*some(3))
    _, side = connect(run)
    side.receive(b"250 ok\r\n" * (1 + 4 + 4))
    side.receive(extra * 2)
    run.check_accounts()
    assert set(run.settled) <= {"q0", "q1", "q2"}
    assert side.is_closing


def test_what_was_answered_before_the_line_was_lost_counts():
    """The session waits for the run, and not for the peer."""

    class Slow(ListedRun):
        gate: Deferred[None] = Deferred()

        async def next(self):
            if len(self.taken) == 4:
                await self.gate
            return await super().next()

    run = Slow(*some(10))
    _, side = connect(run)
    assert side.wire.sent.count(b"BDAT ") == 4  # nothing is held back for the one that is not there yet
    side.receive(b"250 ok\r\n" * (1 + 4 + 4))
    assert run.settled == {}
    side.lose()
    assert list(run.settled) == ["q0", "q1", "q2"]
    assert run.released == ["q3"]


@pytest.mark.parametrize("piece", [7, 1 << 20])
@pytest.mark.parametrize("count", [1, 120])
def test_turn_between_our_own_sides(count, piece):
    site = CustomerSite(chunking=True, checkpoint=True)
    line = Line(FakeOnDemand(deliveries(count)), site)
    line.carry(piece=piece)
    assert site.received == [f"q{number}" for number in range(count)]
    assert line.turn.ends == [None]
    assert list(line.turn.run.settled) == site.received
    line.check_accounts()
    assert line.provider.over == line.customer.over == [None]


@pytest.mark.parametrize("first", ["those that broke", "a new one"])
def test_turn_between_our_own_sides_may_break_at_every_octet(first):
    def turn(site: CustomerSite, held: list[Delivery], octets: int | None = None) -> Line:
        line = Line(FakeOnDemand(held), site)
        line.carry(octets)
        line.check_accounts()
        return line

    due = deliveries(4)
    content = b"Subject: new\r\n\r\n"
    new = [make_delivery("new", "bob@ship.example.org", content=content)] if first == "a new one" else []
    repeated = 0
    for octets in range(1, turn(CustomerSite(checkpoint=True), due).passed, 1 if not new else 5):
        site = CustomerSite(checkpoint=True)
        broken = turn(site, due, octets)
        settled = {queue_id for one in broken.on_demand.turns for queue_id in one.run.settled}
        arrived = len(site.received)
        # In whatever order they come again: what was under way may be sent ahead of its answer.
        again = turn(site, [*new, *(one for one in due if one.message.queue_id not in settled)])
        assert again.turn.ends == [None]
        assert Counter(site.received) == dict.fromkeys([*(f"q{n}" for n in range(4)), *("new" for _ in new)], 1)
        repeated += arrived - len(settled)
    assert repeated > 100  # they had arrived, unnoticed


# ------------------------------------------------------------------------------------------------- a full disk


def _full_while(is_full):
    """Refuse MAIL while `is_full()`, with what follows it."""
    return lambda event: Reply.make(452, "4.3.1", "Disk full") if isinstance(event, Mail) and is_full() else None


def test_full_disk_stops_content_from_being_said_ahead():
    memory = Memory()
    seen: Counter[type] = Counter()

    def is_full():
        seen[Mail] += 1
        return seen[Mail] > 1

    run, conversation = hold(memory, some(150), refuse=_full_while(is_full))
    assert [run.results(f"q{n}") for n in range(150)] == [["relayed"]] + [["delayed"]] * 149
    # What was under way when the first such answer came, and nothing after it.
    assert conversation.said.count(b"BDAT ") <= 1 + 50


def test_deliveries_are_taken_one_by_one_from_a_full_disk_until_one_has_room():
    asked: list[int] = []

    class Looking(ListedRun):
        async def next(self):
            asked.append(conversation.core.outstanding)
            return await super().next()

    mails: Counter[str] = Counter()

    def is_full():
        mails["said"] += 1
        return 1 < mails["said"] <= 60

    run = Looking(*some(200))
    conversation = BreakingConversation(RememberingServer(Memory(), _full_while(is_full)))
    finish(RelaySession(run, RelaySettings("relay.example.org", HOP))(conversation))
    assert [run.results(f"q{n}") for n in (0, 1, 59, 60, 199)] == [
        ["relayed"],
        ["delayed"],
        ["delayed"],
        ["relayed"],
        ["relayed"],
    ]
    assert asked[52:61] == [0] * 9  # nothing is under way when it is asked for another one
    assert max(asked[70:]) > 4 * 40  # and then the line is filled again
    assert conversation.trips < 100
