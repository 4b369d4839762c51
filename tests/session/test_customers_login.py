"""A customer at any door: from where it may log in, and for whom it may send."""

import hmac
from base64 import b64decode, b64encode
from dataclasses import replace
from ipaddress import ip_network

import pytest
from twisted.logger import globalLogPublisher
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailsuite.interfaces import DirectoryUnavailable, IAuthenticator, ICustomers
from mailsuite.mail.session import Identity, SecretKind, TLSFacts
from mailsuite.wire.sasl import derive_scram_secret
from mailsuite.wire.smtp.offer import Offer
from tests.net.support import Side
from tests.session.turning import SHIP, Accounts, FakeOnDemand, provider_door

HELLO = b"EHLO ship.example.org\r\n"
PLAIN = b"AUTH PLAIN AHNoaXAAc2VjcmV0\r\n"  # ship, secret
FRED = b"AUTH PLAIN AGZyZWQAc2VjcmV0\r\n"
WRONG = b"AUTH PLAIN AHNoaXAAd3Jvbmc=\r\n"
HOME, ELSEWHERE = "192.0.2.7", "198.51.100.1"
REFUSED = b"535 5.7.8 Authentication credentials invalid"
DONE = b"235 2.7.0 Authentication succeeded"


@implementer(ICustomers)
class OneCustomer:
    """Knows one customer, or nobody."""

    def __init__(self, customer=None, *, unread=False):
        self._customer = customer
        self._unread = unread

    def customer(self, name):
        if self._unread:
            raise DirectoryUnavailable("not read yet")
        one = self._customer
        return one if one is not None and name == one.name else None

    def customer_of(self, domain):
        one = self._customer
        return one if one is not None and domain in one.domains else None

    def customers(self):
        return () if self._customer is None else (self._customer,)

    def is_listed(self, customer, address):
        return True


@implementer(IAuthenticator)
class Proofs(Accounts):
    """Keeps a password for `ship`, and takes its certificate; notes what it was asked to authorize."""

    def __init__(self):
        self.authorized = []

    async def secret(self, authcid, kind):
        if kind is SecretKind.SHARED:
            return b"secret"
        return derive_scram_secret("secret", salt=b"sixteen octets..", iterations=4096)

    async def authorize(self, authcid, authzid, *, external):
        self.authorized.append((authcid, external))
        return Identity("ship", frozenset({"@ship.example.org"}), "ship")


DOORS = {
    "smtp": {"etrn": True},
    "submission": {"require_auth": True, "atrn": True},
    "odmr": {"odmr": True, "atrn": True},
}


def door(kind, customers, authenticator=None):
    offer = Offer("mx.example.net", mechanisms=(b"PLAIN", b"CRAM-MD5", b"EXTERNAL"), **DOORS[kind])
    return provider_door(
        FakeOnDemand(),
        offer=offer,
        secure_offer=offer,
        submission=kind == "submission",
        customers=customers,
        authenticator=authenticator or Accounts(),
    )


class Peer:
    """One connection; `say` gives the lines of its answer."""

    def __init__(self, door, host=HOME, certificate=None):
        core, session = door.open()
        self.side = Side(session, core)
        self.side.conversation.peer = replace(self.side.conversation.peer, host=host)
        if certificate is not None:
            self.side.conversation.tls = TLSFacts("TLSv1.3", "x", 128, certificate)
        self.heard = 0
        self.say(HELLO)

    def say(self, octets):
        self.side.receive(octets)
        sent = self.side.wire.sent[self.heard :]
        self.heard += len(sent)
        return sent.splitlines()


def bound(*networks):
    return OneCustomer(replace(SHIP, networks=tuple(map(ip_network, networks))))


def test_the_fakes_keep_the_interfaces():
    assert verifyObject(ICustomers, OneCustomer())
    assert verifyObject(IAuthenticator, Proofs())


@pytest.mark.parametrize("kind", DOORS)
@pytest.mark.parametrize(
    ("networks", "host", "answer"),
    [
        ((), ELSEWHERE, DONE),
        (("192.0.2.0/24",), HOME, DONE),
        (("192.0.2.0/24",), "::ffff:192.0.2.8", DONE),
        (("192.0.2.0/24",), ELSEWHERE, REFUSED),
        (("192.0.2.0/24", "2001:db8::/32"), "2001:db8::1", DONE),
        (("192.0.2.0/24",), "", REFUSED),
    ],
)
def test_a_customer_logs_in_from_its_networks_alone(kind, networks, host, answer):
    peer = Peer(door(kind, bound(*networks)), host)
    assert peer.say(PLAIN) == [answer]


@pytest.mark.parametrize("kind", DOORS)
def test_from_elsewhere_a_right_password_is_answered_as_a_wrong_one(kind):
    lines = []
    globalLogPublisher.addObserver(lines.append)
    try:
        answers = [Peer(door(kind, bound("192.0.2.0/24")), ELSEWHERE).say(said) for said in (PLAIN, WRONG)]
    finally:
        globalLogPublisher.removeObserver(lines.append)
    assert answers == [[REFUSED]] * 2
    assert [event["code"] for event in lines if "authentication failed" in str(event.get("log_format"))] == [535] * 2


def test_a_client_that_tries_one_mechanism_after_the_other_is_refused_once():
    told = []
    peer = Peer(replace(door("smtp", bound()), refused_login=told.append))
    for _ in range(2):
        peer.say(WRONG)
        peer.say(b"AUTH CRAM-MD5\r\n")
        peer.say(b64encode(b"ship 0123456789abcdef0123456789abcdef") + b"\r\n")
    assert [(one.login, one.mechanism, one.code, one.host) for one in told] == [("ship", "PLAIN", 535, HOME)] * 2
    assert "ship" not in repr(told)  # it may be a password


def test_who_logs_in_from_elsewhere_is_told_with_the_reason():
    told = []
    Peer(replace(door("smtp", bound("192.0.2.0/24")), refused_login=told.append), ELSEWHERE).say(PLAIN)
    assert [(one.login, one.reason, one.external) for one in told] == [("ship", "not from one of its networks", False)]


def test_a_certificate_is_told_by_the_name_in_it():
    told = []
    knows = replace(door("smtp", bound("192.0.2.0/24"), Proofs()), refused_login=told.append)
    Peer(knows, ELSEWHERE, "ship.cert").say(b"AUTH EXTERNAL =\r\n")
    assert [(one.login, one.external) for one in told] == [("ship.cert", True)]


def test_who_was_refused_is_nobody():
    peer = Peer(door("smtp", bound("192.0.2.0/24")), ELSEWHERE)
    peer.say(PLAIN)
    peer.say(b"MAIL FROM:<captain@ship.example.org>\r\n")
    assert peer.say(b"RCPT TO:<x@far.example>\r\n") == [b"550 5.7.1 Relaying denied"]


def test_an_account_is_bound_to_no_network():
    assert Peer(door("smtp", bound("192.0.2.0/24")), ELSEWHERE).say(FRED) == [DONE]


def test_a_customer_that_is_gone_does_not_log_in():
    assert Peer(door("smtp", OneCustomer())).say(PLAIN) == [REFUSED]


def test_customers_that_cannot_be_read_are_a_passing_trouble():
    [answer] = Peer(door("smtp", OneCustomer(unread=True))).say(PLAIN)
    assert answer.startswith(b"454 4.7.0")


@pytest.mark.parametrize(("host", "answer"), [(HOME, DONE), (ELSEWHERE, REFUSED)])
def test_proofs_and_certificates_are_bound_too_and_told_apart(host, answer):
    accounts = Proofs()
    peer = Peer(door("smtp", bound("192.0.2.0/24"), accounts), host, certificate="ship.cert")
    assert peer.say(b"AUTH EXTERNAL =\r\n") == [answer]
    assert accounts.authorized == [("ship.cert", True)]

    peer = Peer(door("smtp", bound("192.0.2.0/24"), accounts), host)
    [challenge] = peer.say(b"AUTH CRAM-MD5\r\n")
    digest = hmac.new(b"secret", b64decode(challenge[4:]), "md5").hexdigest()
    assert peer.say(b64encode(f"ship {digest}".encode()) + b"\r\n") == [answer]
    assert accounts.authorized[1:] == [("ship", False)]


@pytest.mark.parametrize("kind", ["smtp", "submission"])
@pytest.mark.parametrize(
    ("sender", "answer"),
    [
        (b"captain@ship.example.org", b"250 2.1.0"),
        (b"cook@CREW.example.org", b"250 2.1.0"),
        (b"", b"250 2.1.0"),
        (b"president@bank.example", b"550 5.7.1"),
        (b"captain@sub.ship.example.org", b"550 5.7.1"),
    ],
)
def test_a_customer_sends_for_its_domains_at_every_door(kind, sender, answer):
    peer = Peer(door(kind, bound()))
    peer.say(PLAIN)
    [heard] = peer.say(b"MAIL FROM:<" + sender + b">\r\n")
    assert heard[:9] == answer


@pytest.mark.parametrize(("kind", "answer"), [("smtp", b"250 2.1.0"), ("submission", b"550 5.7.1")])
def test_an_account_relays_any_sender_where_servers_log_in(kind, answer):
    peer = Peer(door(kind, bound()))
    peer.say(FRED)
    [heard] = peer.say(b"MAIL FROM:<president@bank.example>\r\n")
    assert heard[:9] == answer
