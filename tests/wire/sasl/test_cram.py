"""CRAM-MD5 against its RFC, and against clients and servers that others wrote."""

import hmac
import smtplib
from dataclasses import replace

import pytest
from twisted.cred.credentials import CramMD5Credentials

from mailsuite.mail.session import ScramSecret, SecretKind
from mailsuite.wire.core import LocalProtocolError
from mailsuite.wire.sasl import (
    Challenge,
    ClientCredentials,
    NeedSecret,
    Refused,
    SaslError,
    ServerParameters,
    Verified,
)
from mailsuite.wire.sasl.cram import CramMd5Client, CramMd5Server

# RFC 2195 section 2.
CHALLENGE = b"<1896.697170952@postoffice.reston.mci.net>"
RESPONSE = b"tim b913a602c7eda7a495b4e6e7334d3890"
SECRET = b"tanstaaftanstaaf"
PARAMETERS = ServerParameters(
    hostname=b"postoffice.reston.mci.net", clock=lambda: 697170952.7, random_number=lambda: 1896
)


def challenged():
    server = CramMd5Server(PARAMETERS)
    assert server.begin(None) == Challenge(CHALLENGE)
    return server


def test_server_plays_the_example():
    server = challenged()
    assert server.respond(RESPONSE) == NeedSecret("tim", SecretKind.SHARED)
    assert server.supply(SECRET) == Verified("tim", "")


def test_client_plays_the_example():
    client = CramMd5Client(ClientCredentials("tim", SECRET.decode()))
    assert client.initial() is None
    with pytest.raises(SaslError):
        client.finish()
    client = CramMd5Client(ClientCredentials("tim", SECRET.decode()))
    assert client.respond(CHALLENGE) == RESPONSE
    client.finish()


@pytest.mark.parametrize("secret", [b"tanstaaf", b"", None, b"\0", SECRET + b"\n"])
def test_server_refuses_other_secrets(secret):
    server = challenged()
    server.respond(RESPONSE)
    assert server.supply(secret) == Refused(malformed=False)


def test_digest_made_with_the_decoy_key_is_no_way_in():
    server = CramMd5Server(replace(PARAMETERS, decoy_key=b"decoy"))
    guess = CramMd5Client(ClientCredentials("nobody", "decoy")).respond(server.begin(None).data)
    server.respond(guess)
    assert server.supply(None) == Refused(malformed=False)


def test_name_may_hold_spaces():
    server = challenged()
    client = CramMd5Client(ClientCredentials("tim of the hill", "secret"))
    assert server.respond(client.respond(CHALLENGE)) == NeedSecret("tim of the hill", SecretKind.SHARED)
    assert server.supply(b"secret") == Verified("tim of the hill")


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"tim",
        b"tim ",
        b" b913a602c7eda7a495b4e6e7334d3890",
        b"b913a602c7eda7a495b4e6e7334d3890",
        b"tim B913A602C7EDA7A495B4E6E7334D3890",
        b"tim b913a602c7eda7a495b4e6e7334d389",
        b"tim b913a602c7eda7a495b4e6e7334d38900",
        b"tim b913a602c7eda7a495b4e6e7334d389g",
        b"tim b913a602c7eda7a495b4e6e7334d3890\n",
        b"t\0m b913a602c7eda7a495b4e6e7334d3890",
        b"\xff b913a602c7eda7a495b4e6e7334d3890",
        b"x" * 256 + b" b913a602c7eda7a495b4e6e7334d3890",
        b" " * 100_000,
    ],
)
def test_server_refuses_bad_syntax(response):
    assert challenged().respond(response) == Refused(malformed=True)


def test_initial_response_is_refused():
    # RFC 4954 section 4; even an empty one.
    assert CramMd5Server.client_first is False
    assert CramMd5Server(PARAMETERS).begin(b"tim") == Refused(malformed=True)
    assert CramMd5Server(PARAMETERS).begin(b"") == Refused(malformed=True)
    # Least of all one that answers a challenge which was never made.
    replayed = b"tim " + hmac.new(SECRET, b"", "md5").hexdigest().encode()
    assert CramMd5Server(PARAMETERS).begin(replayed) == Refused(malformed=True)


def test_challenges_differ_by_default():
    challenges = {CramMd5Server(ServerParameters()).begin(None).data for _ in range(50)}
    assert len(challenges) == 50


def test_secret_of_another_kind_is_our_own_mistake():
    server = challenged()
    server.respond(RESPONSE)
    with pytest.raises(LocalProtocolError):
        server.supply(ScramSecret(b"s" * 16, 4096, b"k" * 32, b"k" * 32))


def test_client_signs_no_empty_challenge():
    client = CramMd5Client(ClientCredentials("tim", "secret"))
    with pytest.raises(SaslError):
        client.respond(b"")
    # Nor is it talked into a second attempt.
    with pytest.raises(SaslError):
        client.respond(CHALLENGE)


def test_server_takes_smtplib_as_client():
    peer = smtplib.SMTP()
    peer.user, peer.password = "tim", SECRET.decode()
    server = challenged()
    server.respond(peer.auth_cram_md5(CHALLENGE).encode())
    assert server.supply(SECRET) == Verified("tim")


def test_client_satisfies_twisted_as_server():
    peer = CramMD5Credentials(b"postoffice.example")
    user, digest = CramMd5Client(ClientCredentials("tim", SECRET.decode())).respond(peer.getChallenge()).split()
    peer.response = digest
    assert user == b"tim"
    assert peer.checkPassword(SECRET)
    assert not peer.checkPassword(b"tanstaaf")
