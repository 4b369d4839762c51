"""What `mailsuite send` is made of: the message, the run of one delivery, what is told of certificates and the DNS."""

from email import message_from_bytes
from email.policy import default
from types import SimpleNamespace

import pytest
from cryptography import x509
from twisted.internet.defer import Deferred, fail, succeed

from mailsuite.admin.send.around import WatchedDNS, WatchedHops, WatchedPolicies
from mailsuite.admin.send.certificates import Handshake
from mailsuite.admin.send.delivery import OneRun
from mailsuite.admin.send.message import body_of, compose, with_line_ends
from mailsuite.admin.send.steps import Mark, Step, Teller, print_step
from mailsuite.admin.send.watching import Trial, WatchedConversation, watched
from mailsuite.delivery.next_hops import Unroutable
from mailsuite.interfaces import Barred
from mailsuite.mail.address import Address
from mailsuite.mail.content import MemoryContent
from mailsuite.mail.envelope import Body, Envelope
from mailsuite.mail.queue import Delivery, Message, Outcome, Recipient, Result
from mailsuite.mail.reply import Reply
from mailsuite.mail.route import Destination, NextHop
from mailsuite.mail.session import Peer, TLSFacts
from mailsuite.mail.status import EnhancedStatus
from mailsuite.mail.tls_policy import TLSA, PolicySource, TLSFailureKind, TLSPolicy
from mailsuite.net.resolver import MX, NULL_MX, DnsFailure
from mailsuite.session.handover import Handover
from mailsuite.wire.core import ConnectionClosed
from mailsuite.wire.smtp.client import Greeting, Replied, SmtpClientCore
from mailsuite.wire.smtp.commands import Auth, AuthResponse, Bdat, Content, ContentEnd, Data, Ehlo, Mail, Quit, Rcpt
from tests.net.authority import Authority

NOW = 1_800_000_000.0
OK = Reply.make(250, "2.0.0", "OK")
DEFERRED = Outcome(Result.DEFERRED, EnhancedStatus(4, 4, 1), "no answer")
RELAYED = Outcome(Result.RELAYED, EnhancedStatus(2, 0, 0), "ok")


@pytest.fixture
def teller():
    return Teller(lambda: 0.0, lambda _step: None)


def said(teller):
    return [(step.name, step.mark.value, step.text) for step in teller.steps]


def now(coroutine):
    results = []

    async def wait():
        return await coroutine

    Deferred.fromCoroutine(wait()).addBoth(results.append)
    [result] = results
    if hasattr(result, "raiseException"):
        result.raiseException()
    return result


# ------------------------------------------------------------------------------------- message, run, steps


def test_the_message_is_one_that_parses():
    octets = compose(Address("bob", "example.net"), Address("a b", "example.org"), "hellö", "mx.test", NOW)
    message = message_from_bytes(octets, policy=default)
    assert message["To"].addresses[0].addr_spec == '"a b"@example.org'
    assert (message["Subject"], message["Auto-Submitted"]) == ("hellö", "auto-generated")
    assert message["Message-ID"].endswith("@mx.test>")
    assert b"\n" not in octets.replace(b"\r\n", b"")
    assert body_of(octets) is Body.SEVEN_BIT
    assert body_of(b"\xff") is Body.EIGHT_BIT
    assert b"postmaster@mx.test" in compose(None, Address("a", "b.test"), "x", "mx.test", NOW)


def test_line_ends_become_those_of_mail():
    assert with_line_ends(b"a\nb\r\nc\rd") == b"a\r\nb\r\nc\r\nd"


def test_the_run_has_one_delivery_until_it_is_settled():
    message = Message("TEST", Envelope(None), 4, NOW)
    delivery = Delivery(
        message, Destination("relay", "b.test"), (Recipient(1, Address("a", "b.test")),), MemoryContent(b"")
    )
    run = OneRun(delivery)
    assert now(run.batch(0)) == ()
    assert now(run.next()) is delivery
    assert now(run.next()) is None
    run.release(delivery)
    assert now(run.batch(5)) == (delivery,)
    run.settle(delivery, [RELAYED])
    run.release(delivery)
    run.fail(DEFERRED)
    assert now(run.next()) is None
    assert run.outcome is RELAYED


def test_steps_are_printed_without_what_commands_a_terminal(capsys):
    print_step(Step("smtp", Mark.HEARD, "250-a\x1b[2J\n250 b", 1.5))
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("  1.500  <-")
    assert first.endswith("smtp        250-a?[2J")
    assert second.strip() == "250 b"


# ------------------------------------------------------------------------------------------- the conversation


class FakeConversation:
    """Answers each command with 250."""

    peer, local, tls, line_by_line = Peer("192.0.2.1", 25), Peer("192.0.2.2", 4022), None, False

    def __init__(self):
        self.core = SmtpClientCore()
        self.core.receive_data(b"220 hi\r\n")
        self.core.next_event()
        self.sent = []
        self.waiting = []

    def send(self, message):
        self.sent.append(message)
        if not isinstance(message, (Bdat, Content)):
            self.waiting.append(message)

    async def receive(self):
        return Replied(self.waiting.pop(0), OK)

    async def drain(self):
        self.sent.append("drain")


MAIL, RCPT = Mail(Address("bob", "example.net")), Rcpt(Address("a", "b.test"))


async def deliver(conversation):
    for command in (Ehlo("me"), MAIL, RCPT, Bdat(4, last=True), Content(b"body"), ContentEnd()):
        conversation.send(command)
    await conversation.drain()
    for _ in range(4):
        await conversation.receive()


def test_what_is_said_and_heard_is_told_and_content_is_counted(teller):
    conversation, trial = FakeConversation(), Trial(holds_back=False)
    now(deliver(WatchedConversation(conversation, teller, trial)))
    texts = [text for _, mark, text in said(teller) if mark == "said"]
    assert texts == [
        "EHLO me",
        "MAIL FROM:<bob@example.net>",
        "RCPT TO:<a@b.test>",
        "BDAT 4 LAST",
        "(4 octets of content)",
    ]
    assert [text for _, mark, text in said(teller) if mark == "heard"] == ["250 2.0.0 OK"] * 4
    assert trial.answer == OK
    assert len(conversation.sent) == 7


@pytest.mark.parametrize("begins", [Data(), Bdat(4, last=True)])
def test_a_trial_ends_before_the_content(teller, begins):
    conversation, trial = FakeConversation(), Trial(holds_back=True)
    watching = WatchedConversation(conversation, teller, trial)
    for command in (MAIL, RCPT, begins, Content(b"body"), ContentEnd()):
        watching.send(command)
    now(watching.drain())
    assert now(watching.receive()).command is MAIL
    assert now(watching.receive()).command is RCPT
    with pytest.raises(ConnectionClosed):
        now(watching.receive())
    assert trial.is_over
    assert trial.answer == OK
    assert [type(one) for one in conversation.sent] == [Mail, Rcpt, Quit]


def test_credentials_are_not_told(teller):
    watching = WatchedConversation(FakeConversation(), teller, Trial(holds_back=False))
    watching.send(Auth(b"PLAIN", b"\0bob\0secret"))
    watching.send(AuthResponse(b"secret"))
    assert [text for _, _, text in said(teller)] == ["AUTH PLAIN (credentials)", "(credentials)"]


def test_all_else_is_the_conversations_own(teller):
    conversation = FakeConversation()
    watching = WatchedConversation(conversation, teller, Trial(holds_back=False))
    watching.line_by_line = True
    assert conversation.line_by_line
    assert watching.line_by_line
    assert (watching.peer, watching.local, watching.tls) == (conversation.peer, conversation.local, None)
    assert watching.core is conversation.core


def test_the_session_behind_starttls_is_watched_too(teller):
    heard = []

    async def second(conversation):
        heard.append(await conversation.receive())

    async def first(conversation):
        return Handover(SmtpClientCore(), second, "options")

    handshake = SimpleNamespace(creator=lambda tls: f"watched {tls}", succeeded=heard.append)
    handover = now(watched(first, teller, Trial(holds_back=False), handshake)(FakeConversation()))
    assert handover.tls == "watched options"
    conversation = FakeConversation()
    conversation.tls = TLSFacts("TLSv1.3", "X", 256)
    conversation.receive = lambda: succeed(Greeting(OK))
    assert now(handover.session(conversation)) is None
    assert heard == [conversation.tls, Greeting(OK)]
    assert said(teller) == [("smtp", "heard", "250 2.0.0 OK")]


# ---------------------------------------------------------------------------------------------- certificates


def handshake_with(teller, chain, host, ca_file):
    connection = SimpleNamespace(get_peer_cert_chain=lambda **_options: chain)
    handshake = Handshake(teller, host, chain[0].not_valid_after_utc.timestamp() - 86400 * 19, ca_file)
    handshake.creator(SimpleNamespace(clientConnectionForTLS=lambda _protocol: connection)).clientConnectionForTLS(None)
    handshake.succeeded(TLSFacts("TLSv1.3", "X", 256))
    return said(teller)


def certificate(path):
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_a_chain_is_told_and_what_is_wrong_with_it(tmp_path, teller):
    authority = Authority(tmp_path)
    chain = [certificate(authority.issue("mx.test")[0]), authority.certificate]
    told = handshake_with(teller, chain, "mx.test", authority.file)
    assert told[0] == ("tls", "ok", "TLSv1.3, X")
    assert told[1][2].splitlines()[0].startswith("mx.test, by Test Authority, until ")
    assert told[2] == ("certificate", "ok", "it is for mx.test, and vouched for by an authority that is trusted")


def test_a_wrong_name_and_an_unknown_authority_are_warnings(tmp_path, teller):
    authority, other = Authority(tmp_path), Authority(tmp_path, "Other")
    chain = [certificate(authority.issue("mx.test")[0])]
    told = handshake_with(teller, chain, "www.test", other.file)
    assert [mark for _, mark, _ in told] == ["ok", "note", "warning", "warning"]
    assert told[2][2] == "it is not for www.test, but for mx.test"
    assert told[3][2].startswith("it is not vouched for by an authority that is trusted here: ")


def test_without_certificates_there_is_nothing_to_tell(teller):
    handshake = Handshake(teller, "mx.test", NOW)
    handshake.failed("no answer")
    assert said(teller) == [("tls", "wrong", "no answer")]


# ------------------------------------------------------------------------------------------ DNS and policies


def test_the_dns_is_told_whatever_it_answers(teller):
    answers = {"a.test": succeed([MX(10, "mx.a.test")]), "null.test": succeed([NULL_MX])}
    failure = DnsFailure("gone.test", "does not exist", temporary=False)
    resolver = SimpleNamespace(
        mx=lambda domain: answers.get(domain) or fail(failure),
        addresses=lambda host: fail(failure) if host == "gone.test" else succeed(["192.0.2.1"]),
    )
    dns = WatchedDNS(resolver, teller)
    assert now(dns.mx("a.test")) == [MX(10, "mx.a.test")]
    assert now(dns.mx("null.test")) == [NULL_MX]
    for question in (dns.mx, dns.addresses):
        with pytest.raises(DnsFailure):
            now(question("gone.test"))
    assert now(dns.addresses("mx.a.test")) == ["192.0.2.1"]
    assert now(dns.addresses("192.0.2.1")) == ["192.0.2.1"]
    assert said(teller) == [
        ("dns", "ok", "MX of a.test: 10 mx.a.test"),
        ("dns", "wrong", "MX of null.test: a null MX, the domain takes no mail"),
        ("dns", "wrong", "MX of gone.test: does not exist"),
        ("dns", "wrong", "addresses of gone.test: does not exist"),
        ("dns", "ok", "addresses of mx.a.test: 192.0.2.1"),
    ]


def test_next_hops_are_told_or_why_there_are_none(teller):
    hops = {"a.test": succeed((NextHop("mx.a.test"),))}
    found = SimpleNamespace(find=lambda where: hops.get(where.name) or fail(Unroutable(DEFERRED)))
    watching = WatchedHops(found, teller)
    assert now(watching.find(Destination("relay", "a.test"))) == (NextHop("mx.a.test"),)
    with pytest.raises(Unroutable):
        now(watching.find(Destination("relay", "b.test")))
    assert said(teller) == [("next hops", "ok", "mx.a.test port 25"), ("next hops", "wrong", "no answer")]


def test_policies_are_told_with_their_records(teller):
    policies = {
        "dane.test": succeed(TLSPolicy("dane", PolicySource.DANE, (TLSA(3, 1, 1, b"\xab\xcd"),))),
        "sts.test": succeed(TLSPolicy("verified", PolicySource.MTA_STS, text=("version: STSv1",), testing=True)),
    }
    barred = Barred("its MX is not in the policy", TLSFailureKind.VALIDATION)
    inner = SimpleNamespace(policy=lambda domain, _hop: policies.get(domain) or fail(barred))
    watching = WatchedPolicies(inner, teller)
    hop = NextHop("mx.test")
    assert now(watching.policy("dane.test", hop)).mode == "dane"
    assert now(watching.policy("sts.test", hop)).testing
    with pytest.raises(Barred):
        now(watching.policy("other.test", hop))
    texts = [text for _, _, text in said(teller)]
    assert texts[0].splitlines()[1] == "TLSA 3 1 1 abcd"
    assert texts[1].endswith("by MTA-STS, only tested: nothing follows from a failure\nversion: STSv1")
    assert texts[2] == "no mail may go to mx.test: its MX is not in the policy (validation-failure)"
