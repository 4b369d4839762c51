"""Reports: what they say, and how."""

import quopri

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsuite.mail.address import Address
from mailsuite.mail.envelope import Body, Envelope
from mailsuite.mail.options import ByMode, MessageOptions, RecipientOptions
from mailsuite.mail.queue import Message, Outcome, Recipient, Result
from mailsuite.mail.reply import Reply
from mailsuite.mail.reports import HEADER_LIMIT, Reported, compose, header_section, needs_smtputf8
from mailsuite.mail.status import EnhancedStatus
from mailsuite.mail.trace import date_time
from tests.reports import read_report

ARRIVED, NOW = 1_700_000_000.0, 1_700_000_900.0
BOB = Address("bob", "sender.example")
NOBODY = Address("nobody", "example.org")
HEADER = b"Received: from a by b\r\nMessage-ID: <1@sender.example>\r\nSubject: hello\r\n\r\nbody\r\n"
REFUSAL = Outcome.of_reply(Reply.make(550, "5.1.1", "No such user"), "mx.example.org")
EXPIRY = Outcome(Result.FAILED, EnhancedStatus(4, 4, 7), "given up after 5 days")


def write(told, *, sender=BOB, header=HEADER, smtputf8=False, arrived=ARRIVED, reader=None, **how):
    options = how.pop("options", MessageOptions())
    message = Message("Q7", Envelope(sender, smtputf8=smtputf8, options=options), len(header), arrived)
    told = [one if isinstance(one, Reported) else Reported(*one, NOW) for one in told]
    return compose(
        message,
        reader or sender,
        told,
        header,
        hostname="mx.example.net",
        now=NOW,
        message_id="<r1@mx.example.net>",
        **how,
    )


def octets_of(told, **how):
    return write(told, **how).octets


def read(told, **how):
    return read_report(octets_of(told, **how))


def nobody(key=1, address=NOBODY, original=None):
    return Recipient(key, address, original)


@pytest.mark.parametrize("bare", [b"\n", b"\r", b"\n.\r\nMAIL FROM:<eve@evil.example>", b"\r.\r"])
def test_line_ends_that_are_none_do_not_stand_bare_in_a_report(bare) -> None:
    # RFC 2045 section 2.7: 7bit has CR and LF only together; RFC 5321 section 2.3.8.
    header = b"Subject: x\r\nX-Odd: y" + bare + b"\r\n\r\n"
    composed = write([(nobody(), REFUSAL)], header=header)
    left = composed.octets.replace(b"\r\n", b"")
    assert b"\n" not in left
    assert b"\r" not in left
    [_, _, returned] = read([(nobody(), REFUSAL)], header=header).message.iter_parts()
    assert returned["Content-Transfer-Encoding"] == "quoted-printable"
    quoted = composed.octets.partition(b"quoted-printable\r\n\r\n")[2]
    assert quopri.decodestring(quoted).startswith(b"Subject: x\r\nX-Odd: y" + bare)


def test_a_report_has_three_parts_in_order() -> None:
    report = read([(nobody(), REFUSAL)]).message
    assert report.get_content_type() == "multipart/report"
    assert report.get_param("report-type") == "delivery-status"
    kinds = [part.get_content_type() for part in report.iter_parts()]
    assert kinds == ["text/plain", "message/delivery-status", "text/rfc822-headers"]
    assert not report.defects


def test_a_report_is_addressed_to_the_sender_and_marked_as_automatic() -> None:
    report = read([(nobody(), REFUSAL)]).message
    assert report["To"].addresses[0].addr_spec == "bob@sender.example"
    assert report["From"].addresses[0].addr_spec == "MAILER-DAEMON@mx.example.net"
    assert report["Auto-Submitted"] == "auto-replied"
    assert report["Date"].datetime.timestamp() == NOW
    assert report["Message-ID"] == "<r1@mx.example.net>"
    assert report["In-Reply-To"] == report["References"] == "<1@sender.example>"


def test_the_status_part_has_fields_for_the_message_and_for_each_recipient() -> None:
    expired = nobody(2, Address("late", "example.com"), Address("list", "example.net"))
    report = read([(nobody(), REFUSAL), (expired, EXPIRY)])
    of_message, (first, second) = report.of_message, report.recipients
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
        ("Final-Recipient", "rfc822; late@example.com"),
        ("Action", "failed"),
        ("Status", "4.4.7"),
        ("Last-Attempt-Date", date_time(NOW)),
        ("X-Original-Recipient", "rfc822; list@example.net"),
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
    assert read([(nobody(), outcome)]).recipients[0]["Remote-MTA"] == f"dns; {name}"


def test_the_text_says_who_who_said_it_and_what() -> None:
    text = read([(nobody(), REFUSAL), (nobody(2), EXPIRY)]).text
    assert "<nobody@example.org>" in text
    assert "mx.example.org said: 550 5.1.1 No such user" in text
    assert "given up after 5 days" in text
    assert date_time(ARRIVED) in text


def test_a_reply_stays_beside_our_own_words() -> None:
    reply = Reply.make(451, "4.7.1", "Greylisted")
    outcome = Outcome(Result.FAILED, EnhancedStatus(4, 4, 7), "given up after 5 days", reply, "mx.example.org")
    report = read([(nobody(), outcome)])
    assert "451 4.7.1 Greylisted" in report.text
    assert "given up after 5 days" in report.text
    assert report.recipients[0]["Diagnostic-Code"] == "smtp; 451 4.7.1 Greylisted"


def test_nobody_is_said_to_have_said_our_words() -> None:
    outcome = Outcome(Result.FAILED, EnhancedStatus(4, 4, 1), "Cannot connect to 192.0.2.1", None, "mx.example.org")
    text = read([(nobody(), outcome)]).text
    assert "said" not in text
    assert "Cannot connect to 192.0.2.1" in text


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (b"Subject: hello\r\n", "Subject: hello"),
        (b"SUBJECT : hello\r\n\tworld\r\n", "Subject: hello world"),
        (b"Subject: =?utf-8?b?R3LDvMOfZQ==?=\r\n", "Subject: Grüße"),
        (b"Subject: =?utf-8?b?YQ0KYg==?=\r\n", "Subject: a b"),
        (b"Subject: =?nonsense?q?a?=\r\n", "Subject: =?nonsense?q?a?="),
        (b"From: a@example.org\r\n", None),
        (b"Subject:\r\n", None),
    ],
)
def test_the_text_names_the_subject_of_the_message(fields: bytes, told: str | None) -> None:
    text = read([(nobody(), REFUSAL)], header=fields + b"\r\nSubject: of the body\r\n").text
    lines = [line for line in text.splitlines() if line.startswith("Subject")]
    assert lines == ([] if told is None else [told])


def test_the_header_comes_back_without_the_body() -> None:
    assert read([(nobody(), REFUSAL)]).returned.strip() == HEADER.partition(b"\r\n\r\n")[0]


def test_an_8bit_header_is_encoded() -> None:
    header = "Subject: Grüße aus Köln\r\nX: a=b\r\n\r\n".encode("latin-1")
    octets = octets_of([(nobody(), REFUSAL)], header=header)
    assert octets.isascii()
    part = list(read_report(octets).message.iter_parts())[2]
    assert part["Content-Transfer-Encoding"] == "quoted-printable"
    assert part.get_payload(decode=True).strip() == header.strip()


def test_an_over_long_header_line_is_encoded() -> None:
    header = b"X-Long: " + b"x" * 5000 + b"\r\n\r\n"
    assert read([(nobody(), REFUSAL)], header=header).returned.strip() == header.strip()


def test_the_header_of_an_smtputf8_message_keeps_its_kind() -> None:
    header = "Subject: Grüße\r\n\r\n".encode()
    octets = octets_of([(nobody(), REFUSAL)], header=header, smtputf8=True)
    assert read_report(octets).returned_type == "message/global-headers"
    assert b"Subject: Gr=C3=BC=C3=9Fe" in octets


def test_an_internationalized_recipient_is_written_in_seven_bits() -> None:
    recipient = nobody(1, Address("jörg", "bücher.example"))
    octets = octets_of([(recipient, REFUSAL)])
    assert octets.isascii()
    report = read_report(octets)
    assert report.recipients[0]["Final-Recipient"] == r"utf-8; j\x{F6}rg@b\x{FC}cher.example"
    assert "jörg@bücher.example" in report.text


@pytest.mark.parametrize(
    ("sender", "line", "utf8"),
    [
        (Address("bob", "bücher.example"), b"To: <bob@xn--bcher-kva.example>\r\n", False),
        (Address("jörg", "sender.example"), "To: <jörg@sender.example>\r\n".encode(), True),
    ],
)
def test_a_sender_is_written_in_ascii_where_that_can_be(sender, line, utf8) -> None:
    composed = write([(nobody(), REFUSAL)], sender=sender)
    assert line in composed.octets
    assert composed.smtputf8 is utf8
    assert needs_smtputf8(sender) is utf8


def test_a_remote_host_cannot_write_fields_of_its_own() -> None:
    reply = Reply(550, None, ("no\r\nAction: delivered\r\n\r\nX: y", "\x00\x1b[2J" + "long " * 5000))
    outcome = Outcome.of_reply(reply, "mx\r\nX-Remote: y")
    [fields] = read([(nobody(), outcome)]).recipients
    assert fields.get_all("Action") == ["failed"]
    assert fields["X-Remote"] is None
    assert len(fields["Diagnostic-Code"]) < 1000


@given(text=st.text(), local=st.text(min_size=1), remote=st.text(), header=st.binary(max_size=300), utf8=st.booleans())
def test_whatever_is_reported_the_form_stays_sound(text, local, remote, header, utf8) -> None:
    outcome = Outcome(Result.FAILED, EnhancedStatus(5, 0, 0), text, Reply(550, None, (text,)), remote)
    recipient = nobody(1, Address(local, "example.org"), Address(local, "example.net"))
    octets = octets_of([(recipient, outcome)], header=header, smtputf8=utf8)
    assert octets.isascii()
    assert [fields["Action"] for fields in read_report(octets).recipients] == ["failed"]


def test_the_same_facts_give_the_same_octets() -> None:
    assert octets_of([(nobody(), REFUSAL)]) == octets_of([(nobody(), REFUSAL)])


# ---------------------------------------------------------------------------------------- what is told


@pytest.mark.parametrize(
    ("result", "subject", "sentence"),
    [
        (Result.FAILED, "Your message could not be delivered", "will not be tried again"),
        (Result.DEFERRED, "Your message is delayed", f"tried again until {date_time(NOW + 3600)}"),
        (Result.RELAYED, "Your message was passed on", "does not say when"),
        (Result.DELIVERED, "Your message was delivered", "was delivered to"),
    ],
)
def test_each_action_has_its_words(result, subject, sentence) -> None:
    outcome = Outcome(result, EnhancedStatus(2, 0, 0), "so it is")
    report = read([Reported(nobody(), outcome, NOW, NOW + 3600)])
    assert report.message["Subject"] == subject
    assert sentence in report.text.replace("\n", " ")
    [fields] = report.recipients
    assert fields["Action"] == result.value
    # RFC 3464 section 2.3.9: in no other report.
    assert fields["Will-Retry-Until"] == (date_time(NOW + 3600) if result is Result.DEFERRED else None)


def test_several_actions_stand_in_one_report_under_the_gravest() -> None:
    late = Outcome(Result.DEFERRED, EnhancedStatus(4, 4, 1), "no answer")
    report = read([(nobody(), late), (nobody(2, BOB), REFUSAL)])
    assert report.message["Subject"] == "Your message could not be delivered"
    assert report.actions == {"nobody@example.org": "delayed", "bob@sender.example": "failed"}
    assert report.text.index("<bob@") < report.text.index("<nobody@")


def test_the_envelope_id_and_the_time_limit_are_named_as_they_were_given() -> None:
    options = MessageOptions(envid="QQ 314+159", deliver_by=NOW - 5, by_mode=ByMode.RETURN)
    fields = read([(nobody(), REFUSAL)], options=options).of_message
    assert fields["Original-Envelope-Id"] == "QQ 314+159"
    assert fields["Deliver-By-Date"] == date_time(NOW - 5)
    assert read([(nobody(), REFUSAL)]).of_message["Original-Envelope-Id"] is None


@pytest.mark.parametrize(
    ("orcpt", "said"),
    [
        ("rfc822;Carol@Ivory.EDU", "rfc822; Carol@Ivory.EDU"),
        ("RFC822;car ol@ivory.edu", "RFC822; car ol@ivory.edu"),
        ("x400;/G=carol/", "x400; /G=carol/"),
        (r"utf-8;j\x{F6}rg@example", r"utf-8; j\x{F6}rg@example"),
        ("utf-8;jörg+list@example", r"utf-8; j\x{F6}rg\x{2B}list@example"),
        ("rfc822;x\r\nAction: delivered", "rfc822; x Action: delivered"),
        (r"utf-8;x\x{0A}y", r"utf-8; x\x{5C}x{0A}y"),
        (r"utf-8;x\x{D800}y", r"utf-8; x\x{5C}x{D800}y"),
        ("nonsense", None),
        ("rfc 822;nonsense", None),
    ],
)
def test_the_original_recipient_is_what_the_sender_has_said(orcpt, said) -> None:
    # RFC 3461 section 6.3: and where he has said nothing, there is none.
    recipient = Recipient(1, NOBODY, BOB, options=RecipientOptions(orcpt=orcpt))
    octets = octets_of([(recipient, REFUSAL)])
    assert octets.isascii()
    [fields] = read_report(octets).recipients
    assert fields["Original-Recipient"] == said


def test_a_reader_with_an_internationalized_address_gets_fields_in_utf8() -> None:
    reader = Address("jörg", "sender.example")
    orcpt = RecipientOptions(orcpt=r"utf-8;f\x{FC}r@example.org")
    reply = Reply(550, None, ("Benutzer gelöscht",))
    composed = write(
        [(Recipient(1, Address("für", "example.org"), options=orcpt), Outcome.of_reply(reply, "mx.example.org"))],
        sender=reader,
    )
    assert (composed.smtputf8, composed.body) == (True, Body.EIGHT_BIT)
    report = read_report(composed.octets)
    assert report.message.get_param("report-type") == "global-delivery-status"
    [fields] = report.recipients
    assert fields["Final-Recipient"] == "utf-8; für@example.org"
    assert fields["Original-Recipient"] == "utf-8; für@example.org"
    assert fields["Diagnostic-Code"] == "smtp; 550 Benutzer gelöscht"


@pytest.mark.parametrize("local_part", ["x" * 1500, "\u00fc" * 300])
@pytest.mark.parametrize("sender", [BOB, Address("j\u00f6rg", "sender.example")])
def test_an_address_that_is_too_long_for_a_line_is_encoded(local_part, sender) -> None:
    composed = write([(nobody(1, Address(local_part, "example.org")), REFUSAL)], sender=sender)
    [fields] = read_report(composed.octets).recipients
    assert fields["Final-Recipient"].endswith(f"; {local_part}@example.org")
    assert composed.octets.isascii() is (sender is BOB)


def test_a_reader_whose_address_fits_into_no_line_is_not_named() -> None:
    report = read([(nobody(), REFUSAL)], sender=Address("x" * 1500, "sender.example"))
    assert report.message["To"] == "undisclosed-recipients:;"


def test_long_fields_are_folded() -> None:
    octets = octets_of([(nobody(), Outcome.of_reply(Reply(550, None, ("many words " * 60,)), "mx.example.org"))])
    assert max(map(len, octets.split(b"\r\n")[:12])) <= 78
    [fields] = read_report(octets).recipients
    assert fields["Diagnostic-Code"] == "smtp; 550 " + ("many words " * 60).strip()


# ------------------------------------------------------------------------------------ what comes back of it

MESSAGE = b"Subject: hello\r\nMessage-ID: <1@sender.example>\r\n\r\nbody\r\n..dots\r\n"


def test_a_message_comes_back_whole_where_that_is_wanted() -> None:
    report = read([(nobody(), REFUSAL)], header=MESSAGE, whole=True)
    assert report.returned_type == "message/rfc822"
    assert report.returned == MESSAGE
    assert "Your message is attached." in report.text


def test_an_8bit_message_comes_back_as_it_is() -> None:
    content = MESSAGE + "Grüße\r\n".encode()
    composed = write([(nobody(), REFUSAL)], header=content, whole=True)
    assert composed.body is Body.EIGHT_BIT
    assert not composed.smtputf8
    report = read_report(composed.octets)
    assert report.returned == content
    assert list(report.message.iter_parts())[2]["Content-Transfer-Encoding"] == "8bit"


def test_an_internationalized_message_comes_back_encoded() -> None:
    content = "Subject: Grüße\r\n\r\nvon = Jörg\r\n".encode()
    composed = write([(nobody(), REFUSAL)], header=content, smtputf8=True, whole=True)
    assert composed.body is Body.SEVEN_BIT
    assert composed.octets.isascii()
    assert b"Content-Type: message/global\r\nContent-Transfer-Encoding: quoted-printable\r\n" in composed.octets
    assert (
        quopri.decodestring(composed.octets.partition(b"message/global\r\n")[2]).partition(b"\r\n\r\n")[2][
            : len(content)
        ]
        == content
    )


@pytest.mark.parametrize("body", [b"bare\nline feed\r\n", b"bare\rreturn\r\n", b"nul\0\r\n", b"x" * 1000 + b"\r\n"])
def test_what_cannot_stand_in_a_report_is_not_returned(body) -> None:
    report = read([(nobody(), REFUSAL)], header=b"Subject: odd\r\n\r\n" + body, whole=True)
    assert report.returned_type == "text/rfc822-headers"
    assert report.returned.strip() == b"Subject: odd"
    assert "The header of the message is attached." in report.text


def test_a_boundary_stands_in_no_part() -> None:
    first = octets_of([(nobody(), REFUSAL)])
    report = read([(nobody(), REFUSAL)], header=first, whole=True)
    assert report.returned == first


def test_the_postmaster_is_told_of_what_nobody_has_sent() -> None:
    report = read([(nobody(), REFUSAL)], sender=None, reader=Address("postmaster", ""), header=MESSAGE, whole=True)
    assert report.message["To"].addresses[0].addr_spec == "postmaster@mx.example.net"
    assert report.message["Subject"] == "A message without a sender could not be delivered"
    assert report.returned == MESSAGE


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
