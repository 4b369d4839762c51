"""CHECKPOINT (RFC 1845) in the relaying session: TRANSID, and content that goes on where a server wants it."""

from dataclasses import replace

import pytest

from mailsuite.mail.content import MemoryContent
from mailsuite.mail.route import Destination, NextHop
from mailsuite.session.reading import BLOCK, ContentUnreadable, place_of
from mailsuite.session.transid import transid_of
from mailsuite.wire.smtp.checkpoint import is_transid
from tests.session.relaying import BYE, GOOD_MORNING, HELLO, converse, relay
from tests.session.remembering import Memory
from tests.session.scripted import finish, make_delivery, read_script
from tests.session.test_relay_content import StoredContent, spoken
from tests.session.test_streaming import content_of, hold, mailbox
from tests.wire.smtp.client_dialogue import one_by_one, whole

HOST = "relay.example.org"
TEXT = b"Subject: hello\r\n\r\nGood morning.\r\n"


def name(delivery=None, *, serial: int = 0, chunking: bool = False) -> str:
    delivery = delivery or make_delivery()
    return transid_of(delivery, range(len(delivery.recipients)), HOST, chunking=chunking, serial=serial)


def mail(**options) -> str:
    return f"C: MAIL FROM:<ann@example.org> TRANSID=<{name(**options)}>"


BOB = "C: RCPT TO:<bob@example.net>"
DATA_OFFER = f"{HELLO}S: 250-CHECKPOINT\nS: 250 PIPELINING\n"
# Without SIZE, so that nothing is said ahead of an answer.
BDAT_OFFER = f"{HELLO}S: 250-CHECKPOINT\nS: 250-CHUNKING\nS: 250 PIPELINING\n"
RESUMED_AT = [
    (0, GOOD_MORNING),
    (16, "C:\nC: Good morning."),
    (18, "C: Good morning."),
    (33, ""),
]


@pytest.mark.parametrize("cut", [whole, one_by_one])
@pytest.mark.parametrize(("offset", "rest"), RESUMED_AT)
def test_data_goes_on_at_the_beginning_of_a_line(offset, rest, cut):
    run, _ = relay(
        f"{DATA_OFFER}{mail()}\n{BOB}\nS: 355 {offset} is the transaction offset\nS: 250 ok\n"
        f"C: DATA\nS: 354 go\n{rest}\nC: .\nS: 250 2.0.0 All of it\n{BYE}",
        cut=cut,
    )
    assert run.settled["q1"][0].text == "All of it"


@pytest.mark.parametrize("cut", [whole, one_by_one])
@pytest.mark.parametrize("offset", [0, 1, 15, 18, 32, 33])
def test_chunks_go_on_anywhere(offset, cut):
    rest = TEXT[offset:]
    steps = read_script(f"{BDAT_OFFER}{mail(chunking=True)}\n{BOB}\nS: 355 {offset}\nS: 250 ok\n")
    steps += [("C", f"BDAT {len(rest)} LAST\r\n".encode()), *spoken(rest)]
    steps += read_script(f"S: 250 2.0.0 All of it\n{BYE}")
    run, _ = relay(steps, cut=cut)
    assert run.settled["q1"][0].text == "All of it"


@pytest.mark.parametrize("offset", [1, 17, 32, 34, 10**19])
def test_data_that_cannot_go_on_begins_anew_by_another_name(offset):
    run, end = relay(
        f"{DATA_OFFER}{mail()}\n{BOB}\nS: 355 {offset}\nS: 250 ok\n"
        f"C: RSET\n{mail(serial=1)}\n{BOB}\nS: 250 ok\nS: 250 ok\nS: 250 ok\n"
        f"C: DATA\nS: 354 go\n{GOOD_MORNING}\nC: .\nS: 250 ok\n{BYE}"
    )
    assert run.results("q1") == ["relayed"]
    assert end.settled == 1


def test_chunks_that_would_begin_past_the_end_begin_anew():
    run, _ = relay(
        f"{BDAT_OFFER}{mail(chunking=True)}\n{BOB}\nS: 355 34\nS: 250 ok\n"
        f"C: RSET\n{mail(chunking=True, serial=1)}\n{BOB}\nS: 250 ok\nS: 250 ok\nS: 250 ok\n"
        f"C: BDAT 33 LAST\n{GOOD_MORNING}\nS: 250 ok\n{BYE}"
    )
    assert run.results("q1") == ["relayed"]


def test_server_that_resumes_what_it_cannot_know_is_not_asked_a_third_time():
    run, _ = relay(
        f"{DATA_OFFER}{mail()}\n{BOB}\nS: 355 99\nS: 250 ok\n"
        f"C: RSET\n{mail(serial=1)}\n{BOB}\nS: 250 ok\nS: 355 99\nS: 250 ok\n"
        f"C: RSET\nC: MAIL FROM:<ann@example.org>\n{BOB}\nC: DATA\n"
        f"S: 250 ok\nS: 250 ok\nS: 250 ok\nS: 354 go\n{GOOD_MORNING}\nC: .\nS: 250 ok\n{BYE}"
    )
    assert run.results("q1") == ["relayed"]


def test_server_that_takes_no_recipient_again_is_begun_anew_with():
    two = make_delivery("q1", "bob@example.net", "eve@example.net")
    eve = "C: RCPT TO:<eve@example.net>"
    run, _ = relay(
        f"{DATA_OFFER}{mail(delivery=two)}\n{BOB}\n{eve}\nS: 355 18\nS: 503 no\nS: 503 no\n"
        f"C: RSET\n{mail(delivery=two, serial=1)}\n{BOB}\n{eve}\nS: 250 ok\nS: 250 ok\nS: 250 ok\nS: 550 5.1.1 no\n"
        f"C: DATA\nS: 354 go\n{GOOD_MORNING}\nC: .\nS: 250 ok\n{BYE}",
        two,
    )
    assert run.results("q1") == ["relayed", "failed"]


def test_recipient_that_is_not_in_the_resumed_transaction_goes_with_another():
    two = make_delivery("q1", "bob@example.net", "eve@example.net")
    for_eve = transid_of(two, [1], HOST, chunking=False)
    run, _ = relay(
        f"{DATA_OFFER}{mail(delivery=two)}\n{BOB}\nC: RCPT TO:<eve@example.net>\nS: 355 33\nS: 250 ok\nS: 503 no\n"
        "C: DATA\nS: 354 go\nC: .\n"
        f"C: MAIL FROM:<ann@example.org> TRANSID=<{for_eve}>\nC: RCPT TO:<eve@example.net>\n"
        f"S: 250 ok\nS: 250 ok\nS: 250 ok\nC: DATA\nS: 354 go\n{GOOD_MORNING}\nC: .\nS: 250 ok\n{BYE}",
        two,
    )
    assert run.results("q1") == ["relayed", "relayed"]


def test_refused_recipients_of_a_resumed_transaction_are_refused():
    run, _ = relay(f"{BDAT_OFFER}{mail(chunking=True)}\n{BOB}\nS: 355 18\nS: 550 5.1.1 no\nC: RSET\nS: 250 ok\n{BYE}")
    assert run.results("q1") == ["failed"]


def test_refused_mail_is_refused_with_a_transid_too():
    run, _ = relay(f"{DATA_OFFER}{mail()}\n{BOB}\nS: 550 5.7.1 no\nS: 503 no\n{BYE}")
    assert run.results("q1") == ["failed"]


def test_without_pipelining_one_command_follows_the_other():
    run, _ = relay(
        f"{HELLO}S: 250-CHUNKING\nS: 250 CHECKPOINT\n{mail(chunking=True)}\nS: 355 18\n{BOB}\nS: 250 ok\n"
        f"C: BDAT 15 LAST\nC: Good morning.\nS: 250 ok\n{BYE}"
    )
    assert run.results("q1") == ["relayed"]


@pytest.mark.parametrize("lmtp", [False, True])
def test_no_transid_where_it_is_not_wanted(lmtp):
    # In LMTP nobody could tell how many replies a transaction that is resumed would have.
    run, _ = relay(
        f"{DATA_OFFER.replace('EHLO', 'LHLO') if lmtp else DATA_OFFER}"
        f"C: MAIL FROM:<ann@example.org>\n{BOB}\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\n"
        f"{GOOD_MORNING}\nC: .\nS: 250 ok\n{BYE}",
        hop=NextHop("mx.example.net", lmtp=lmtp),
        checkpoint=lmtp,
    )
    assert run.results("q1") == ["delivered" if lmtp else "relayed"]


def test_unreadable_message_is_taken_back_before_its_content_begins():
    content = StoredContent(TEXT * 10, fails_at=0)
    one = make_delivery("q1", content=content)
    run, _ = relay(f"{DATA_OFFER}{mail(delivery=one)}\n{BOB}\nS: 355 33\nS: 250 ok\nC: RSET\nS: 250 ok\n{BYE}", one)
    assert [str(outcome.status) for outcome in run.settled["q1"]] == ["4.3.0"]


# --------------------------------------------------------------------------------- with a server that remembers


@pytest.mark.parametrize(
    "text", [content_of(0, 400).replace(b"x.x.", b"\r\n.\r\n"), content_of(0) + b"no end", b"", b".\r\n" * 9]
)
@pytest.mark.parametrize("chunking", [False, True])
@pytest.mark.parametrize("pipelining", [False, True])
def test_message_arrives_once_wherever_the_line_breaks(text, chunking, pipelining):
    due = [make_delivery("q0", mailbox(0), content=text)]
    _, conversation = hold(Memory(chunking), due, pipelining=pipelining)
    arrived = text if chunking or not text or text.endswith(b"\n") else text + b"\r\n"
    for octets in range(1, conversation.passed):
        memory = Memory(chunking, by_lines=not chunking)
        run, _ = hold(memory, due, octets, pipelining=pipelining)
        if not run.settled:
            run, _ = hold(memory, due, pipelining=pipelining)
        assert run.results("q0") == ["relayed"]
        assert memory.copies(mailbox(0)) == [arrived], octets


def test_bare_line_ends_do_not_mislead():
    """What DATA has made of them the offset counts, and what we have is shorter: it begins anew."""
    text = b"one\n.\ntwo\r\nthree\r\n" * 20
    due = [make_delivery("q0", mailbox(0), content=text)]
    memory = Memory(chunking=False, by_lines=True)
    hold(memory, due, 600)
    assert memory.parts
    run, _ = hold(memory, due)
    assert run.results("q0") == ["relayed"]
    assert memory.copies(mailbox(0)) == [text.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")]


@pytest.mark.parametrize("takes_again", [True, False])
@pytest.mark.parametrize("wrong", [lambda offset: offset + 10**6, lambda offset: offset - 1])
def test_server_whose_offsets_are_wrong_has_it_all_the_same(takes_again, wrong):
    due = [make_delivery("q0", mailbox(0), content=content_of(0, 400))]
    memory = Memory(chunking=False, by_lines=True, takes_again=takes_again, offset=wrong)
    hold(memory, due, 600)
    assert memory.parts
    run, _ = hold(memory, due)
    assert run.results("q0") == ["relayed"]
    assert memory.copies(mailbox(0)) == [content_of(0, 400)]


def test_content_before_the_offset_is_not_read_for_chunks():
    content = StoredContent(b"x" * (4 * BLOCK))
    steps = read_script(f"{BDAT_OFFER}{mail(delivery=make_delivery(content=content), chunking=True)}\n{BOB}\n")
    steps += read_script(f"S: 355 {4 * BLOCK - 10}\nS: 250 ok\nC: BDAT 10 LAST\n")
    steps += [("C", b"x" * 10)]
    run, _, _ = converse([*steps, *read_script(f"S: 250 ok\n{BYE}")], make_delivery(content=content))
    assert run.results("q1") == ["relayed"]
    assert content.reads == [4 * BLOCK - 10]


# ------------------------------------------------------------------------------------------- where it goes on


@pytest.mark.parametrize(
    ("octets", "offset", "data", "chunks"),
    [
        (b"", 0, 0, 0),
        (b"", 1, None, None),
        (b"", 2, None, None),
        (b"a\r\nb\r\n", 0, 0, 0),
        (b"a\r\nb\r\n", 1, None, 1),
        (b"a\r\nb\r\n", 2, None, 2),
        (b"a\r\nb\r\n", 3, 3, 3),
        (b"a\r\nb\r\n", 6, 6, 6),
        (b"a\r\nb\r\n", 8, None, None),
        (b"a\r\nb", 4, None, 4),
        (b"a\r\nb", 6, 4, None),  # DATA has ended the last line
        (b"a\r\nb", 5, None, None),
        (b"a\nb\r\n", 5, None, 5),
        (b"a\nb\r\n", 6, None, None),
        (b"a\rb\r\n", 5, None, 5),
        (b"a\r\nb\r", 3, 3, 3),
        (b"a\r\nb\r", 7, None, None),
    ],
)
@pytest.mark.parametrize("block", [1, 2, 1000])
def test_place_in_the_content(octets, offset, data, chunks, block):
    for content in (MemoryContent(octets), StoredContent(octets, block=block)):
        assert finish(place_of(content, offset, chunking=False)) == data
        assert finish(place_of(content, offset, chunking=True)) == chunks


def test_place_in_content_that_cannot_be_read():
    with pytest.raises(ContentUnreadable):
        finish(place_of(StoredContent(TEXT, fails_at=0), 18, chunking=False))


# --------------------------------------------------------------------------------------------------- names


def test_name_outlasts_a_restart_and_differs_by_what_is_sent():
    one = make_delivery("q1", "bob@example.net", "eve@example.net")
    names = [
        transid_of(one, (0, 1), HOST, chunking=True),
        transid_of(one, (0,), HOST, chunking=True),
        transid_of(one, (1,), HOST, chunking=True),
        transid_of(one, (0, 1), HOST, chunking=False),
        transid_of(one, (0, 1), HOST, chunking=True, serial=1),
        transid_of(one, (0, 1), "other.example.org", chunking=True),
        transid_of(replace(one, destination=Destination("hold", "example.net")), (0, 1), HOST, chunking=True),
        transid_of(replace(one, message=replace(one.message, arrived=1.5)), (0, 1), HOST, chunking=True),
        transid_of(make_delivery("q2", "bob@example.net", "eve@example.net"), (0, 1), HOST, chunking=True),
    ]
    assert len(set(names)) == len(names)
    assert all(map(is_transid, names))
    assert names[0].startswith("q1.")
    assert names[0].endswith("@relay.example.org")
    again = make_delivery("q1", "bob@example.net", "eve@example.net")
    assert transid_of(again, (1, 0), HOST, chunking=True) == names[0]


@pytest.mark.parametrize("queue_id", ["", "a b", "q.1", "ü", "x" * 200, "<>", "q/1", "Q-1"])
@pytest.mark.parametrize("hostname", [HOST, "[192.0.2.1]", "[IPv6:2001:db8::1]", "a" * 60 + ".example.org", "x"])
def test_every_message_and_host_has_a_name(queue_id, hostname):
    name = transid_of(make_delivery(queue_id), (0,), hostname, chunking=True)
    assert is_transid(name)
    assert name == transid_of(make_delivery(queue_id), (0,), hostname, chunking=True)
