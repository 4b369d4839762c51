"""Many recipients, and messages that the next hop cannot take."""

import pytest

from mailsuite.mail.envelope import Body
from mailsuite.mail.queue import Result
from tests.session.relaying import BYE, GOOD_MORNING, HELLO, lines, names, relay
from tests.session.scripted import make_delivery


def test_groups_are_no_larger_than_the_window():
    recipients = [f"RCPT TO:<{name}>" for name in names(250)]
    run, _ = relay(
        f"""{HELLO}
S: 250 PIPELINING
C: MAIL FROM:<ann@example.org>
{lines("C", recipients[:99])}
{lines("S", ["250 ok"] * 100)}
{lines("C", recipients[99:199])}
{lines("S", ["250 ok"] * 100)}
{lines("C", recipients[199:])}
C: DATA
{lines("S", ["250 ok"] * 51)}
S: 354 go
{GOOD_MORNING}
C: .
S: 250 ok
{BYE}""",
        make_delivery("q1", *names(250)),
    )
    assert run.results("q1") == ["relayed"] * 250


@pytest.mark.parametrize("refusal", ["452 4.5.3 Too many", "452 Too many", "552 5.5.3 Too many"])
def test_recipients_that_are_too_many_go_in_a_second_transaction(refusal):
    # RFC 5321 section 4.5.3.1.10
    run, end = relay(
        f"""{HELLO}
S: 250 PIPELINING
C: MAIL FROM:<ann@example.org>
C: RCPT TO:<user0@example.net>
C: RCPT TO:<user1@example.net>
C: RCPT TO:<user2@example.net>
C: DATA
S: 250 ok
S: 250 ok
S: 550 5.1.1 no
S: {refusal}
S: 354 go
{GOOD_MORNING}
C: .
C: MAIL FROM:<ann@example.org>
C: RCPT TO:<user2@example.net>
C: DATA
S: 250 2.0.0 one
S: 250 ok
S: 250 ok
S: 354 go
{GOOD_MORNING}
C: .
S: 250 2.0.0 two
{BYE}""",
        make_delivery("q1", *names(3)),
    )
    assert [outcome.text for outcome in run.settled["q1"]] == ["one", "no", "two"]
    assert end.settled == 1


def test_first_recipient_is_never_too_many_and_552_is_mostly_something_else():
    run, _ = relay(
        f"""{HELLO}
S: 250 PIPELINING
C: MAIL FROM:<ann@example.org>
C: RCPT TO:<user0@example.net>
C: RCPT TO:<user1@example.net>
C: RCPT TO:<user2@example.net>
C: DATA
S: 250 ok
S: 452 4.5.3 Too many
S: 250 ok
S: 552 5.2.2 Over quota
S: 354 go
{GOOD_MORNING}
C: .
S: 250 ok
{BYE}""",
        make_delivery("q1", *names(3)),
    )
    assert run.results("q1") == ["delayed", "relayed", "failed"]


@pytest.mark.parametrize(
    ("offer", "delivery", "status"),
    [
        ("SIZE 32", make_delivery("q1"), "5.3.4"),
        ("CHUNKING", make_delivery("q1", body=Body.BINARY), "5.6.3"),
        ("8BITMIME", make_delivery("q1", "jürgen@example.net"), "5.6.7"),
        ("8BITMIME", make_delivery("q1", sender="jürgen@example.net"), "5.6.7"),
        ("8BITMIME", make_delivery("q1", content="Subject: ü\r\n\r\n".encode(), smtputf8=True), "5.6.9"),
        ("8BITMIME", make_delivery("q1", content=b"A: b\r\n" * 20_000 + b"\xff", smtputf8=True), "5.6.9"),
    ],
)
def test_message_that_the_next_hop_cannot_take(offer, delivery, status):
    run, end = relay(f"{HELLO}\nS: 250 {offer}\n{BYE}", delivery)
    [outcome] = run.settled["q1"]
    assert (outcome.result, str(outcome.status), outcome.remote) == (Result.FAILED, status, "mx.example.net")
    assert "mx.example.net" in outcome.text
    assert end.settled == 1


def test_only_recipients_that_need_smtputf8_fail_without_it():
    run, _ = relay(
        f"""{HELLO}
S: 250 PIPELINING
C: MAIL FROM:<ann@xn--bcher-kva.example>
C: RCPT TO:<bob@example.net>
C: RCPT TO:<eve@xn--bcher-kva.example>
C: DATA
S: 250 ok
S: 250 ok
S: 250 ok
S: 354 go
C: Subject: ascii
C:
C: grüße
C: .
S: 250 ok
{BYE}""",
        make_delivery(
            "q1",
            "bob@example.net",
            "jürgen@example.net",
            "eve@bücher.example",
            sender="ann@bücher.example",
            content="Subject: ascii\r\n\r\ngrüße\r\n".encode(),
            smtputf8=True,
        ),
    )
    assert run.results("q1") == ["relayed", "failed", "relayed"]
    assert str(run.settled["q1"][1].status) == "5.6.7"


def test_smtputf8_and_8bitmime_are_said_where_offered():
    run, _ = relay(
        f"""{HELLO}
S: 250-8BITMIME
S: 250 SMTPUTF8
C: MAIL FROM:<jürgen@bücher.example> BODY=8BITMIME SMTPUTF8
S: 250 ok
C: RCPT TO:<eve@bücher.example>
S: 250 ok
C: DATA
S: 354 go
C: Subject: grüße
C: .
S: 250 ok
C: MAIL FROM:<ann@example.org>
S: 250 ok
C: RCPT TO:<bob@example.net>
S: 250 ok
C: DATA
S: 354 go
C: Subject: plain
C: .
S: 250 ok
{BYE}""",
        make_delivery(
            "q1",
            "eve@bücher.example",
            sender="jürgen@bücher.example",
            content="Subject: grüße\r\n".encode(),
            body=Body.EIGHT_BIT,
            smtputf8=True,
        ),
        make_delivery("q2", content=b"Subject: plain\r\n"),
    )
    assert run.results("q1") == run.results("q2") == ["relayed"]


def test_eight_bit_content_goes_as_it_is_without_8bitmime():
    run, _ = relay(
        f"""{HELLO}
S: 250 HELP
C: MAIL FROM:<ann@example.org>
S: 250 ok
C: RCPT TO:<bob@example.net>
S: 250 ok
C: DATA
S: 354 go
C: grüße
C: .
S: 250 ok
{BYE}""",
        make_delivery("q1", content="grüße\r\n".encode(), body=Body.EIGHT_BIT),
    )
    assert run.results("q1") == ["relayed"]


def test_binary_content_goes_by_chunks():
    run, _ = relay(
        f"""{HELLO}
S: 250-BINARYMIME
S: 250 CHUNKING
C: MAIL FROM:<ann@example.org> BODY=BINARYMIME
S: 250 ok
C: RCPT TO:<bob@example.net>
S: 250 ok
C: BDAT 4 LAST
C: \0\x01
S: 250 ok
{BYE}""",
        make_delivery("q1", content=b"\0\x01\r\n", body=Body.BINARY),
    )
    assert run.results("q1") == ["relayed"]
