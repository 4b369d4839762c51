"""The mechanisms that show a password or nothing at all, message by message."""

import pytest

from mailsuite.wire.core import LocalProtocolError
from mailsuite.wire.sasl import (
    SERVER_MECHANISMS,
    Challenge,
    Check,
    ClientCredentials,
    ExternalCredential,
    PasswordCredential,
    Refused,
    SaslError,
    ServerParameters,
)
from mailsuite.wire.sasl.external import ExternalClient
from mailsuite.wire.sasl.login import LoginClient
from mailsuite.wire.sasl.plain import PlainClient

MALFORMED = Refused(malformed=True)


def server(name):
    return SERVER_MECHANISMS[name](ServerParameters())


# RFC 4616 section 4, and the example of RFC 4954 section 4.1.
@pytest.mark.parametrize(
    ("message", "authzid", "authcid", "password"),
    [
        (b"\0tim\0tanstaaftanstaaf", "", "tim", b"tanstaaftanstaaf"),
        (b"Ursel\0Kurt\0xipj3plmq", "Ursel", "Kurt", b"xipj3plmq"),
        (b"test\0test\x001234", "test", "test", b"1234"),
    ],
)
def test_plain_reads_the_examples_with_and_without_initial_response(message, authzid, authcid, password):
    expected = Check(PasswordCredential(authcid, authzid, password))
    assert server(b"PLAIN").begin(message) == expected
    asked = server(b"PLAIN")
    assert asked.begin(None) == Challenge(b"")
    assert asked.respond(message) == expected


def test_plain_client_writes_the_examples():
    tim = ClientCredentials("tim", "tanstaaftanstaaf")
    assert PlainClient(tim).initial() == b"\0tim\0tanstaaftanstaaf"
    kurt = ClientCredentials("Kurt", "xipj3plmq", authzid="Ursel")
    assert PlainClient(kurt).initial() == b"Ursel\0Kurt\0xipj3plmq"


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\0",
        b"tim",
        b"tim\0secret",
        b"\0\0secret",
        b"\0tim\0",
        b"\0tim\0sec\0ret",
        b"\0tim\0secret\0",
        b"\0\xff\0secret",
        b"\xc0\x80\0tim\0secret",
        b"\0tim\0\xed\xa0\x80",
        b"\0" + b"a" * 256 + b"\0secret",
        b"a" * 256 + b"\0tim\0secret",
        b"\0tim\0" + b"s" * 1025,
        b"\0" * 100_000,
    ],
)
def test_plain_refuses_bad_syntax(message):
    assert server(b"PLAIN").begin(message) == MALFORMED


def test_plain_accepts_255_octets_of_each():
    long = b"\xc3\xa9" * 127 + b"e"
    credential = server(b"PLAIN").begin(long + b"\0" + long + b"\0" + long).credential
    assert credential == PasswordCredential(long.decode(), long.decode(), long)


@pytest.mark.parametrize("name", ["tim\u0007", "\u0627" + "1", "\u00ad", "\ufdfa" * 85])
def test_names_that_saslprep_refuses_are_bad_credentials_not_bad_syntax(name):
    raw = name.encode()
    assert len(raw) <= 255
    assert server(b"PLAIN").begin(b"\0" + raw + b"\0secret") == Refused(malformed=False)
    assert server(b"PLAIN").begin(raw + b"\0tim\0secret") == Refused(malformed=False)
    assert server(b"LOGIN").begin(raw) == Refused(malformed=False)
    assert server(b"EXTERNAL").begin(raw) == Refused(malformed=False)


def test_names_are_prepared_and_passwords_left_alone():
    message = "\u2168\0t\u00adim\0p\u00bd".encode()
    assert server(b"PLAIN").begin(message) == Check(PasswordCredential("tim", "IX", "p\u00bd".encode()))


def test_login_asks_both_questions_in_the_customary_words():
    asked = server(b"LOGIN")
    assert asked.begin(None) == Challenge(b"Username:")
    assert asked.respond(b"tim") == Challenge(b"Password:")
    assert asked.respond(b"secret") == Check(PasswordCredential("tim", "", b"secret"))


def test_login_takes_the_name_as_initial_response():
    asked = server(b"LOGIN")
    assert asked.begin(b"tim") == Challenge(b"Password:")
    assert asked.respond(b"secret") == Check(PasswordCredential("tim", "", b"secret"))


@pytest.mark.parametrize("bad", [b"", b"a\0b", b"\xff", b"x" * 1025])
def test_login_refuses_bad_syntax_in_either_answer(bad):
    assert server(b"LOGIN").begin(bad) == MALFORMED
    asked = server(b"LOGIN")
    asked.begin(b"tim")
    assert asked.respond(bad) == MALFORMED


def test_login_client_goes_by_order_not_by_words():
    client = LoginClient(ClientCredentials("tim", "secret"))
    assert client.initial() is None
    assert client.respond(b"User Name\0") == b"tim"
    assert client.respond(b"Kennwort?") == b"secret"
    client.finish()
    with pytest.raises(SaslError):
        client.respond(b"Username:")
    with pytest.raises(SaslError):
        client.finish()


def test_login_client_notices_an_early_end():
    client = LoginClient(ClientCredentials("tim", "secret"))
    client.respond(b"Username:")
    with pytest.raises(SaslError):
        client.finish()


# RFC 4422 appendix A.2.
def test_external_reads_the_examples():
    derived = server(b"EXTERNAL")
    assert derived.begin(None) == Challenge(b"")
    assert derived.respond(b"") == Check(ExternalCredential(""))
    assert server(b"EXTERNAL").begin(b"") == Check(ExternalCredential(""))
    assert server(b"EXTERNAL").begin(b"fred@example.com") == Check(ExternalCredential("fred@example.com"))


@pytest.mark.parametrize("bad", [b"\0", b"fred\0", b"\xff", b"f" * 256])
def test_external_refuses_bad_syntax(bad):
    assert server(b"EXTERNAL").begin(bad) == MALFORMED


def test_external_client_sends_the_authorization_identity_only():
    assert ExternalClient(ClientCredentials("tim", external=True)).initial() == b""
    fred = ClientCredentials("tim", authzid="fred@example.com", external=True)
    assert ExternalClient(fred).initial() == b"fred@example.com"


@pytest.mark.parametrize("kind", [PlainClient, ExternalClient])
def test_mechanisms_of_one_message_take_no_challenge(kind):
    client = kind(ClientCredentials("tim", "secret"))
    client.finish()
    with pytest.raises(SaslError):
        client.respond(b"")
    with pytest.raises(SaslError):
        client.finish()


@pytest.mark.parametrize("kind", [PlainClient, LoginClient])
@pytest.mark.parametrize(
    ("user", "password"),
    [("", "s"), ("tim", ""), ("tim", None), ("t\0m", "s"), ("tim", "\0"), ("\ud800", "s")],
)
def test_clients_refuse_credentials_that_cannot_be_sent(kind, user, password):
    with pytest.raises(SaslError):
        kind(ClientCredentials(user, password))


@pytest.mark.parametrize("name", [b"PLAIN", b"LOGIN", b"EXTERNAL"])
def test_mechanisms_without_secrets_ask_for_none(name):
    fresh = server(name)
    with pytest.raises(LocalProtocolError):
        fresh.supply(None)
