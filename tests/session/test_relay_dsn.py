"""What a sender has asked for, on its way to the next hop (RFC 3461 section 5.2, RFC 8689 section 4.2)."""

import pytest

from mailsuite.mail.options import MessageOptions, Notify, RecipientOptions, Return
from mailsuite.mail.queue import Result
from mailsuite.mail.route import NextHop
from mailsuite.mail.session import Peer
from mailsuite.session.relay import RelaySession, RelaySettings
from mailsuite.wire.smtp.client import SmtpClientCore
from tests.session.relaying import BYE, GOOD_MORNING, HELLO, converse, relay
from tests.session.scripted import TLS, ListedRun, ScriptedConversation, finish, make_delivery

ASKED = MessageOptions(Return.HEADERS, "QQ 1")
WISHES = (RecipientOptions(Notify.SUCCESS | Notify.DELAY, "rfc822;Bob+1@example.net"), RecipientOptions(Notify(0)))
REQUIRED = MessageOptions(require_tls=True)
SRS = "SRS0=abcd=EF=example.org=ann@here.example"


def script(offer: str, mail: str, *recipients: str) -> str:
    """One message, line by line, all of it accepted."""
    said = "".join(f"C: {line}\nS: 250 2.0.0 ok\n" for line in (mail, *recipients))
    return f"{HELLO}\nS: 250 {offer}\n{said}\nC: DATA\nS: 354 go\n{GOOD_MORNING}\nC: .\nS: 250 2.0.0 taken\n{BYE}"


def test_all_is_passed_on_where_it_is_known():
    run, _ = relay(
        script(
            "DSN",
            "MAIL FROM:<ann@example.org> RET=HDRS ENVID=QQ+201",
            "RCPT TO:<bob@example.net> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Bob+2B1@example.net",
            "RCPT TO:<eve@example.net> NOTIFY=NEVER",
            "RCPT TO:<joe@example.net>",
        ),
        make_delivery("q1", "bob@example.net", "eve@example.net", "joe@example.net", options=ASKED, wishes=WISHES),
    )
    assert [outcome.result for outcome in run.settled["q1"]] == [Result.RELAYED] * 3
    assert all(outcome.dsn_passed_on for outcome in run.settled["q1"])


def test_nothing_is_said_where_it_is_not_known():
    run, _ = relay(
        script("8BITMIME", "MAIL FROM:<ann@example.org>", "RCPT TO:<bob@example.net>", "RCPT TO:<eve@example.net>"),
        make_delivery(
            "q1", "bob@example.net", "eve@example.net", options=ASKED, wishes=WISHES, original="x@example.com"
        ),
    )
    assert [outcome.dsn_passed_on for outcome in run.settled["q1"]] == [False, False]


def test_nothing_is_said_behind_helo():
    run, _ = relay(
        f"""
S: 220 old.example.net
C: EHLO relay.example.org
S: 500 what
C: HELO relay.example.org
S: 250 old.example.net
C: MAIL FROM:<ann@example.org>
S: 250 ok
C: RCPT TO:<bob@example.net>
S: 250 ok
C: DATA
S: 354 go
{GOOD_MORNING}
C: .
S: 250 taken
{BYE}""",
        make_delivery(options=ASKED, wishes=WISHES),
    )
    assert [outcome.dsn_passed_on for outcome in run.settled["q1"]] == [False]


def test_who_is_refused_hears_of_it_from_us():
    run, _ = relay(
        f"""{HELLO}
S: 250 DSN
C: MAIL FROM:<ann@example.org> RET=HDRS ENVID=QQ+201
S: 250 ok
C: RCPT TO:<bob@example.net> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Bob+2B1@example.net
S: 550 5.1.1 no
C: RSET
S: 250 ok
{BYE}""",
        make_delivery(options=ASKED, wishes=WISHES),
    )
    (outcome,) = run.settled["q1"]
    assert (outcome.result, outcome.dsn_passed_on) == (Result.FAILED, False)


def test_delivery_by_lmtp_is_told_by_whoever_knows_how():
    lmtp = script("DSN", "MAIL FROM:<ann@example.org>", "RCPT TO:<bob@example.net> NOTIFY=NEVER").replace(
        "EHLO", "LHLO"
    )
    run, _ = relay(lmtp, make_delivery(wishes=WISHES[1:]), hop=NextHop("mx.example.net", lmtp=True))
    (outcome,) = run.settled["q1"]
    assert (outcome.result, outcome.dsn_passed_on) == (Result.DELIVERED, True)


def test_original_recipient_is_told_where_an_alias_led_on():
    # RFC 3461 section 5.2.1 (d): "the recipient address from the RCPT command used when the message was received"
    relay(
        script("DSN", "MAIL FROM:<ann@example.org>", "RCPT TO:<bob@example.net> ORCPT=rfc822;info@here.example"),
        make_delivery(original="info@here.example"),
    )
    run, _ = relay(
        script(
            "DSN",
            "MAIL FROM:<ann@example.org>",
            r"RCPT TO:<bob@example.net> NOTIFY=NEVER ORCPT=utf-8;gr\x{F6}\x{DF}e@here.example",
        ),
        make_delivery(original="größe@here.example", wishes=WISHES[1:]),
    )
    assert run.results("q1") == ["relayed"]


@pytest.mark.parametrize("reverse_path", ["owner-list@here.example", "srs0x@here.example"])
def test_list_passes_nothing_on_and_its_owner_is_the_sender(reverse_path):
    # RFC 3461 section 5.2.7.1
    run, _ = relay(
        script("DSN", f"MAIL FROM:<{reverse_path}>", "RCPT TO:<bob@example.net>"),
        make_delivery(options=ASKED, original="list@here.example", reverse_path=reverse_path),
    )
    assert run.results("q1") == ["relayed"]


def test_rewritten_sender_is_the_same_sender():
    # RFC 3461 section 5.2.7.2
    run, _ = relay(
        script(
            "DSN",
            f"MAIL FROM:<{SRS}> RET=HDRS ENVID=QQ+201",
            "RCPT TO:<bob@example.net> NOTIFY=NEVER ORCPT=rfc822;info@here.example",
        ),
        make_delivery(options=ASKED, original="info@here.example", reverse_path=SRS, wishes=WISHES[1:]),
    )
    assert run.results("q1") == ["relayed"]


def test_report_asks_for_no_content_of_its_own_report():
    # RFC 3461 section 6.1: "the RET parameter MUST NOT be used"
    run, _ = relay(
        script("DSN", "MAIL FROM:<> ENVID=1", "RCPT TO:<bob@example.net> NOTIFY=NEVER"),
        make_delivery(sender="", options=MessageOptions(Return.FULL, "1"), wishes=WISHES[1:]),
    )
    assert run.results("q1") == ["relayed"]


def test_all_is_passed_on_at_once_where_content_does_not_wait():
    run, _ = relay(
        f"""{HELLO}
S: 250-PIPELINING
S: 250-CHUNKING
S: 250 DSN
C: MAIL FROM:<ann@example.org> RET=HDRS ENVID=QQ+201
C: RCPT TO:<bob@example.net> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Bob+2B1@example.net
C: RCPT TO:<eve@example.net> NOTIFY=NEVER
S: 250 ok
S: 250 ok
S: 250 ok
C: BDAT 32 LAST
C: Subject: hello
C:
C: Good morning.
S: 250 taken
{BYE}""".replace("BDAT 32", f"BDAT {len('Subject: hello Good morning.') + 5}"),
        make_delivery("q1", "bob@example.net", "eve@example.net", options=ASKED, wishes=WISHES),
    )
    assert all(outcome.dsn_passed_on for outcome in run.settled["q1"])


# ----------------------------------------------------------------------------------------- REQUIRETLS


def relay_secured(text: str, *deliveries, hop: NextHop, peer: Peer | None = None, tls=TLS) -> ListedRun:
    run = ListedRun(*deliveries)
    conversation = ScriptedConversation(SmtpClientCore(lmtp=hop.lmtp), text, tls=tls)
    if peer is not None:
        conversation.peer = peer
    assert finish(RelaySession(run, RelaySettings("relay.example.org", hop))(conversation)) is None
    conversation.check()
    run.check_accounts()
    return run


def test_tls_that_is_required_is_required_of_the_next_hop():
    run = relay_secured(
        script("REQUIRETLS", "MAIL FROM:<ann@example.org> REQUIRETLS", "RCPT TO:<bob@example.net>"),
        make_delivery(options=REQUIRED),
        hop=NextHop("mx.example.net"),
    )
    assert run.results("q1") == ["relayed"]


def test_server_that_does_not_promise_it_gets_nothing():
    run = relay_secured(
        script("DSN", "MAIL FROM:<ann@example.org>", "RCPT TO:<bob@example.net>"),
        make_delivery("q1", options=REQUIRED),
        make_delivery("q2"),
        hop=NextHop("mx.example.net"),
    )
    (outcome,) = run.settled["q1"]
    assert outcome.result is Result.FAILED
    assert str(outcome.status) == "5.7.30"
    assert outcome.text == "the message requires TLS, and mx.example.net does not offer REQUIRETLS"
    assert run.results("q2") == ["relayed"]


def test_plaintext_is_never_enough():
    run, _, conversation = converse(
        f"{HELLO}\nS: 250 REQUIRETLS\n{BYE}", make_delivery(options=REQUIRED), hop=NextHop("mx.example.net", tls="none")
    )
    conversation.check()
    (outcome,) = run.settled["q1"]
    assert outcome.result is Result.FAILED
    assert str(outcome.status) == "5.7.10"
    assert outcome.text == "the message requires TLS, and the connection to mx.example.net has none"


@pytest.mark.parametrize(("offer", "parameter"), [("DSN", ""), ("REQUIRETLS", " REQUIRETLS")])
def test_report_on_it_is_not_lost_for_that(offer, parameter):
    # RFC 8689 section 5
    run = relay_secured(
        script(offer, f"MAIL FROM:<>{parameter}", "RCPT TO:<bob@example.net>"),
        make_delivery(sender="", options=REQUIRED),
        hop=NextHop("mx.example.net"),
    )
    assert run.results("q1") == ["relayed"]


@pytest.mark.parametrize("host", ["", "127.0.0.1", "::1"])
def test_mail_store_on_our_own_machine_needs_none(host):
    # RFC 8689 section 4.4
    run = relay_secured(
        script("DSN", "MAIL FROM:<ann@example.org>", "RCPT TO:<bob@example.net>").replace("EHLO", "LHLO"),
        make_delivery(options=REQUIRED),
        hop=NextHop("store.example.net", lmtp=True, tls="none"),
        peer=Peer(host, 24),
        tls=None,
    )
    assert run.results("q1") == ["delivered"]


def test_mail_store_elsewhere_does():
    run = relay_secured(
        f"{HELLO}\nS: 250 DSN\n{BYE}".replace("EHLO", "LHLO"),
        make_delivery(options=REQUIRED),
        hop=NextHop("store.example.net", lmtp=True, tls="none"),
        tls=None,
    )
    assert run.results("q1") == ["failed"]
