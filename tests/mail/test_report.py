"""Reports, read back with the standard library's parser as a mail program would read them."""

from email import message_from_bytes
from email.policy import default

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsuite.mail.address import Address
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.queue import Message, Outcome, Recipient, Result
from mailsuite.mail.reply import Reply
from mailsuite.mail.report import HEADER_LIMIT, failure_report, header_section, needs_smtputf8
from mailsuite.mail.status import EnhancedStatus
from mailsuite.mail.trace import date_time

ARRIVED, NOW = 1_700_000_000.0, 1_700_000_900.0
BOB = Address("bob", "sender.example")
NOBODY = Address("nobody", "example.org")
HEADER = b"Received: from a by b\r\nMessage-ID: <1@sender.example>\r\nSubject: hello\r\n\r\nbody\r\n"
REFUSAL = Outcome.of_reply(Reply.make(550, "5.1.1", "No such user"), "mx.example.org")
EXPIRY = Outcome(Result.FAILED, EnhancedStatus(4, 4, 7), "given up after 5 days")


def compose(failures, *, sender=BOB, header=HEADER, smtputf8=False, arrived=ARRIVED):
    message = Message("Q7", Envelope(sender, smtputf8=smtputf8), 1234, arrived)
    return failure_report(
        message, failures, header, hostname="mx.example.net", now=NOW, message_id="<r1@mx.example.net>"
    )


def read(octets):
    assert octets.count(b"\n") == octets.count(b"\r\n") == octets.count(b"\r")
    assert all(len(line) <= 998 for line in octets.split(b"\r\n"))
    return message_from_bytes(octets, policy=default)


def nobody(key=1, address=NOBODY, original=None):
    return Recipient(key, address, original)


def test_a_report_has_three_parts_in_order() -> None:
    report = read(compose([(nobody(), REFUSAL)]))
    assert report.get_content_type() == "multipart/report"
    assert report.get_param("report-type") == "delivery-status"
    kinds = [part.get_content_type() for part in report.iter_parts()]
    assert kinds == ["text/plain", "message/delivery-status", "text/rfc822-headers"]
    assert not report.defects


def test_a_report_is_addressed_to_the_sender_and_marked_as_automatic() -> None:
    report = read(compose([(nobody(), REFUSAL)]))
    assert report["To"].addresses[0].addr_spec == "bob@sender.example"
    assert report["From"].addresses[0].addr_spec == "MAILER-DAEMON@mx.example.net"
    assert report["Auto-Submitted"] == "auto-replied"
    assert report["Date"].datetime.timestamp() == NOW
    assert report["Message-ID"] == "<r1@mx.example.net>"
    assert report["In-Reply-To"] == report["References"] == "<1@sender.example>"


def test_the_status_part_has_fields_for_the_message_and_for_each_recipient() -> None:
    expired = nobody(2, Address("late", "example.com"), Address("list", "example.net"))
    status = list(read(compose([(nobody(), REFUSAL), (expired, EXPIRY)])).iter_parts())[1]
    of_message, first, second = status.get_payload()
    assert of_message["Reporting-MTA"] == "dns; mx.example.net"
    assert of_message["Arrival-Date"] == date_time(ARRIVED)
    assert list(first.items()) == [
        ("Final-Recipient", "rfc822; nobody@example.org"),
        ("Action", "failed"),
        ("Status", "5.1.1"),
        ("Remote-MTA", "dns; mx.example.org"),
        ("Diagnostic-Code", "smtp; 550 5.1.1 No such user"),
        ("Last-Attempt-Date", date_time(NOW)),
    ]
    # RFC 3464 section 2.3.5 and 2.3.6: no remote host spoke, so neither it nor its words are named.
    assert list(second.items()) == [
        ("Original-Recipient", "rfc822; list@example.net"),
        ("Final-Recipient", "rfc822; late@example.com"),
        ("Action", "failed"),
        ("Status", "4.4.7"),
        ("Last-Attempt-Date", date_time(NOW)),
    ]


@pytest.mark.parametrize(
    ("remote", "name"),
    [
        ("mx.example.org", "mx.example.org"),
        ("192.0.2.1", "[192.0.2.1]"),
        ("2001:db8::1", "[IPv6:2001:db8::1]"),
        ("fe80::1%eth0", "[IPv6:fe80::1]"),
        ("192.0.2.1 of somebody", "192.0.2.1 of somebody"),
    ],
)
def test_a_remote_host_without_a_name_is_an_address_literal(remote: str, name: str) -> None:
    outcome = Outcome.of_reply(Reply.make(550, "5.1.1", "No such user"), remote)
    status = list(read(compose([(nobody(), outcome)])).iter_parts())[1]
    assert status.get_payload()[1]["Remote-MTA"] == f"dns; {name}"


def test_the_text_says_who_who_said_it_and_what() -> None:
    text = next(read(compose([(nobody(), REFUSAL), (nobody(2), EXPIRY)])).iter_parts()).get_content()
    assert "<nobody@example.org>" in text
    assert "mx.example.org said: 550 5.1.1 No such user" in text
    assert "given up after 5 days" in text
    assert date_time(ARRIVED) in text


def test_a_reply_stays_beside_our_own_words() -> None:
    reply = Reply.make(451, "4.7.1", "Greylisted")
    outcome = Outcome(Result.FAILED, EnhancedStatus(4, 4, 7), "given up after 5 days", reply, "mx.example.org")
    parts = list(read(compose([(nobody(), outcome)])).iter_parts())
    text = parts[0].get_content()
    assert "451 4.7.1 Greylisted" in text
    assert "given up after 5 days" in text
    assert parts[1].get_payload()[1]["Diagnostic-Code"] == "smtp; 451 4.7.1 Greylisted"


def test_the_header_comes_back_without_the_body() -> None:
    part = list(read(compose([(nobody(), REFUSAL)])).iter_parts())[2]
    assert part.get_payload(decode=True).strip() == HEADER.partition(b"\r\n\r\n")[0]


def test_an_8bit_header_is_encoded() -> None:
    header = "Subject: Grüße aus Köln\r\nX: a=b\r\n\r\n".encode("latin-1")
    octets = compose([(nobody(), REFUSAL)], header=header)
    assert octets.isascii()
    part = list(read(octets).iter_parts())[2]
    assert part["Content-Transfer-Encoding"] == "quoted-printable"
    assert part.get_payload(decode=True).strip() == header.strip()


def test_an_over_long_header_line_is_encoded() -> None:
    header = b"X-Long: " + b"x" * 5000 + b"\r\n\r\n"
    part = list(read(compose([(nobody(), REFUSAL)], header=header)).iter_parts())[2]
    assert part.get_payload(decode=True).strip() == header.strip()


def test_the_header_of_an_smtputf8_message_keeps_its_kind() -> None:
    header = "Subject: Grüße\r\n\r\n".encode()
    octets = compose([(nobody(), REFUSAL)], header=header, smtputf8=True)
    part = list(message_from_bytes(octets, policy=default).iter_parts())[2]
    assert part.get_content_type() == "message/global-headers"
    assert b"Subject: Gr=C3=BC=C3=9Fe" in octets


def test_an_internationalized_recipient_is_written_in_seven_bits() -> None:
    recipient = nobody(1, Address("jörg", "bücher.example"))
    octets = compose([(recipient, REFUSAL)])
    assert octets.isascii()
    fields = list(read(octets).iter_parts())[1].get_payload()[1]
    assert fields["Final-Recipient"] == r"utf-8; j\x{F6}rg@b\x{FC}cher.example"
    assert "jörg@bücher.example" in next(read(octets).iter_parts()).get_content()


@pytest.mark.parametrize(
    ("sender", "line", "utf8"),
    [
        (Address("bob", "bücher.example"), b"To: <bob@xn--bcher-kva.example>\r\n", False),
        (Address("jörg", "sender.example"), "To: <jörg@sender.example>\r\n".encode(), True),
    ],
)
def test_a_sender_is_written_in_ascii_where_that_can_be(sender, line, utf8) -> None:
    octets = compose([(nobody(), REFUSAL)], sender=sender)
    assert line in octets
    assert needs_smtputf8(sender) is utf8


def test_a_remote_host_cannot_write_fields_of_its_own() -> None:
    reply = Reply(550, None, ("no\r\nAction: delivered\r\n\r\nX: y", "\x00\x1b[2J" + "long " * 5000))
    outcome = Outcome.of_reply(reply, "mx\r\nX-Remote: y")
    report = read(compose([(nobody(), outcome)]))
    groups = list(report.iter_parts())[1].get_payload()
    assert len(groups) == 2
    assert groups[1].get_all("Action") == ["failed"]
    assert groups[1]["X-Remote"] is None
    assert len(groups[1]["Diagnostic-Code"]) < 1000


@given(text=st.text(), local=st.text(min_size=1), remote=st.text(), header=st.binary(max_size=300), utf8=st.booleans())
def test_whatever_is_reported_the_form_stays_sound(text, local, remote, header, utf8) -> None:
    outcome = Outcome(Result.FAILED, EnhancedStatus(5, 0, 0), text, Reply(550, None, (text,)), remote)
    recipient = nobody(1, Address(local, "example.org"), Address(local, "example.net"))
    octets = compose([(recipient, outcome)], header=header, smtputf8=utf8)
    assert octets.isascii()
    parts = list(read(octets).iter_parts())
    assert len(parts) == 3
    assert [group["Action"] for group in parts[1].get_payload()] == [None, "failed"]


def test_nothing_is_reported_to_the_null_sender() -> None:
    with pytest.raises(ValueError, match="null reverse-path"):
        compose([(nobody(), REFUSAL)], sender=None)


def test_the_same_facts_give_the_same_octets() -> None:
    assert compose([(nobody(), REFUSAL)]) == compose([(nobody(), REFUSAL)])


@pytest.mark.parametrize(
    ("content", "header"),
    [
        (HEADER, HEADER[: -len(b"\r\nbody\r\n")]),
        (b"\r\nbody", b""),
        (b"", b""),
        (b"A: b\r\n", b"A: b\r\n"),
        (b"A: b\r\nB: cut of", b"A: b\r\n"),
        (b"no line", b""),
        (b"A: b\r\n" * HEADER_LIMIT, b"A: b\r\n" * (HEADER_LIMIT // 6)),
    ],
)
def test_header_section(content, header) -> None:
    assert header_section(content) == header
