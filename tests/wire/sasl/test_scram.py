"""SCRAM-SHA-256 against its RFCs, and against scramp's client and server, which share no code with ours."""

import base64
import hashlib
from dataclasses import replace

import pytest
from hypothesis import given, reject, settings
from scramp import ScramClient, ScramException, ScramMechanism

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
    derive_scram_secret,
    prepare_query,
)
from mailsuite.wire.sasl.scram import ScramSha256Client, ScramSha256Server
from mailsuite.wire.sasl.scram_messages import CLIENT_FINAL, CLIENT_FIRST, SERVER_FINAL, SERVER_FIRST
from tests.wire.sasl.exchange import ITERATIONS, SALT, names, passwords

# RFC 7677 section 3.
CLIENT_NONCE = b"rOprNGfwEbeRWgbNEkqO"
SERVER_NONCE = b"%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
NONCES = (CLIENT_NONCE + SERVER_NONCE).decode()
C1 = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
S1 = f"r={NONCES},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".encode()
C2 = f"c=biws,r={NONCES},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=".encode()
S2 = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
SECRET = derive_scram_secret("pencil", salt=base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), iterations=4096)
PARAMETERS = ServerParameters(nonce=lambda: SERVER_NONCE, decoy_key=b"decoy", decoy_iterations=4096)


def begun(first=C1, secret=SECRET):
    server = ScramSha256Server(PARAMETERS)
    assert isinstance(server.begin(first), NeedSecret)
    return server, server.supply(secret)


def client(password="pencil", **options):
    return ScramSha256Client(ClientCredentials("user", password), nonce=lambda: CLIENT_NONCE, **options)


def proof(first, password, server_first, binding=b"n,,", extension="", nonce=None):
    """Compute a client-final message for any first message, from RFC 5802 section 3 itself."""
    fields = dict(part.split("=", 1) for part in server_first.decode().split(","))
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(fields["s"]), int(fields["i"]))
    without = f"c={base64.b64encode(binding).decode()},r={nonce or fields['r']}{extension}"
    message = b",".join((first.split(b",", 2)[2], server_first, without.encode()))
    key = _hmac(salted, b"Client Key")
    signed = _hmac(hashlib.sha256(key).digest(), message)
    mixed = bytes(a ^ b for a, b in zip(key, signed, strict=True))
    return f"{without},p={base64.b64encode(mixed).decode()}".encode()


def _hmac(key, message):
    """HMAC from RFC 2104's definition."""
    padded = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in padded) + message).digest()
    return hashlib.sha256(bytes(b ^ 0x5C for b in padded) + inner).digest()


# ------------------------------------------------------------------------------------- the example


def test_server_plays_the_example():
    server = ScramSha256Server(PARAMETERS)
    assert server.begin(C1) == NeedSecret("user", SecretKind.SCRAM_SHA_256)
    assert server.supply(SECRET) == Challenge(S1)
    assert server.respond(C2) == Challenge(S2)
    assert server.respond(b"") == Verified("user", "")


def test_client_plays_the_example():
    ours = client()
    assert ours.initial() == C1
    assert ours.respond(S1) == C2
    assert ours.respond(S2) == b""
    ours.finish()


def test_without_an_initial_response_the_first_challenge_is_empty():
    server = ScramSha256Server(PARAMETERS)
    assert server.begin(None) == Challenge(b"")
    assert server.respond(C1) == NeedSecret("user", SecretKind.SCRAM_SHA_256)


# ---------------------------------------------------------------------------------- the gs2 header


@pytest.mark.parametrize("binding", [b"n,,", b"y,,"])
def test_clients_without_channel_binding_are_let_in(binding):
    first = binding + b"n=user,r=abc"
    server, challenge = begun(first)
    assert isinstance(server.respond(proof(first, "pencil", challenge.data, binding)), Challenge)
    assert server.respond(b"") == Verified("user", "")


def test_header_of_the_first_message_must_come_back_in_the_second():
    first = b"y,,n=user,r=abc"
    server, challenge = begun(first)
    assert server.respond(proof(first, "pencil", challenge.data, b"n,,")) == Refused(malformed=False)


def test_client_that_requires_channel_binding_is_refused():
    server = ScramSha256Server(PARAMETERS)
    assert server.begin(b"p=tls-exporter,,n=user,r=abc") == Refused(malformed=False)


def test_authorization_identity_is_passed_on():
    first = b"n,a=t=2Co=3DIX,n=user,r=abc"
    server, challenge = begun(first)
    assert isinstance(server.respond(proof(first, "pencil", challenge.data, b"n,a=t=2Co=3DIX,")), Challenge)
    assert server.respond(b"") == Verified("user", "t,o=IX")


# ------------------------------------------------------------------------------------------ syntax


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"n",
        b"n,,",
        b"x,,n=user,r=abc",
        b"p=,,n=user,r=abc",
        b"n,,n=,r=abc",
        b"n,,n=user,r=",
        b"n,,n=user",
        b"n,,r=abc,n=user",
        b"n,,n=us=er,r=abc",
        b"n,,n=us=2cer,r=abc",
        b"n,a=,n=user,r=abc",
        b"n,b=x,n=user,r=abc",
        b"n,,n=user,r=a\x7fc",
        b"n,,n=user,r=a c",
        b"n,,m=x,n=user,r=abc",
        b"n,,n=user,r=abc,m=x",
        b"n,,n=user,r=abc,",
        b"n,,n=user,r=abc,x",
        b"n,,n=user,r=abc,x=",
        b"n,,n=us\0er,r=abc",
        b"n,,n=\xff,r=abc",
        b"n,,n=user,r=abc\n,",
        b"n,,n=" + b"u" * 256 + b",r=abc",
        b"n,,n=user,r=" + b"a" * 5000,
        b"n,," * 100_000,
    ],
)
def test_server_refuses_a_malformed_first_message(first):
    assert ScramSha256Server(PARAMETERS).begin(first) == Refused(malformed=True)


@pytest.mark.parametrize(
    "final",
    [
        b"",
        b"c=biws",
        C2.replace(b"c=biws", b"c=bi!s"),
        C2.rpartition(b",")[0],
        C2[:-1],
        C2 + b"=",
        C2 + b",x=y",
        C2.replace(b",p=", b",m=x,p="),
        C2.rpartition(b",")[0] + b",p=",
        C2.rpartition(b",")[0] + b",p=AAAA",
        C2.rpartition(b",")[0] + b",p=" + b"A" * 5000,
        # Octets beyond the digest's 32, hidden in the pad bits.
        C2.replace(b"VQ=", b"VR="),
        C2 + b"\n",
        b"\xff",
    ],
)
def test_server_refuses_a_malformed_final_message_for_known_and_unknown_alike(final):
    for secret in (SECRET, None):
        server, _ = begun(secret=secret)
        assert server.respond(final) == Refused(malformed=True)


def test_server_refuses_another_nonce():
    for nonce in (NONCES[:-1], NONCES + "x", CLIENT_NONCE.decode()):
        server, challenge = begun()
        tampered = proof(C1, "pencil", challenge.data, nonce=nonce)
        assert server.respond(tampered) == Refused(malformed=False)


def test_server_refuses_the_wrong_password():
    server, challenge = begun()
    assert server.respond(proof(C1, "pencils", challenge.data)) == Refused(malformed=False)


@pytest.mark.parametrize("extension", ["", ",z=1", ",z=\u00e9,Q=="])
def test_extensions_are_passed_over_and_signed(extension):
    first = b"n,,n=user,r=abc,x=1,Y=a=b"
    server, challenge = begun(first)
    assert isinstance(server.respond(proof(first, "pencil", challenge.data, extension=extension)), Challenge)


@pytest.mark.parametrize("name", ["a,b", "a=b", "=2C", "=3D", "=,=3D2C,", "=3D2C"])
def test_commas_and_equals_signs_in_names_survive(name):
    server = ScramSha256Server(PARAMETERS)
    first = ScramSha256Client(ClientCredentials(name, "pencil", authzid=name)).initial()
    assert first.count(b",") == 3
    assert server.begin(first) == NeedSecret(name, SecretKind.SCRAM_SHA_256)


def test_acknowledgement_must_be_empty():
    server, _ = begun()
    assert server.respond(C2) == Challenge(S2)
    assert server.respond(b"x") == Refused(malformed=True)


def test_secret_of_another_kind_is_our_own_mistake():
    server = ScramSha256Server(PARAMETERS)
    server.begin(C1)
    with pytest.raises(LocalProtocolError):
        server.supply(b"pencil")


# ------------------------------------------------------------------------------------- no such user


def test_unknown_user_gets_the_same_salt_each_time_and_never_gets_in():
    challenges = set()
    for _ in range(3):
        _, challenge = begun(secret=None)
        challenges.add(challenge.data)
        for password in ("pencil", "", "decoy"):
            other, again = begun(secret=None)
            assert other.respond(proof(C1, password, again.data)) == Refused(malformed=False)
    assert len(challenges) == 1
    _, upper = begun(C1.replace(b"n=user", b"n=USER"), secret=None)
    assert upper.data in challenges
    _, other = begun(C1.replace(b"n=user", b"n=other"), secret=None)
    assert other.data not in challenges


def test_decoys_take_spellings_for_one_as_the_directory_does():
    whole = replace(PARAMETERS, canonical=lambda name: name if "@" in name else f"{name}@example.org")
    salts = set()
    for name in (b"tim", b"tim@example.org", b"tom"):
        server = ScramSha256Server(whole)
        server.begin(b"n,,n=" + name + b",r=abc")
        salts.add(server.supply(None).data)
    assert len(salts) == 2


def test_unknown_user_is_challenged_in_the_same_shape():
    match = SERVER_FIRST.fullmatch(begun(secret=None)[1].data.decode())
    known = SERVER_FIRST.fullmatch(begun()[1].data.decode())
    assert len(match["salt"]) == len(known["salt"])
    assert match["iterations"] == known["iterations"]


# ----------------------------------------------------------------------------------------- the client


@pytest.mark.parametrize(
    "challenge",
    [
        b"",
        b"\xff",
        S1.replace(b"i=4096", b"i=0"),
        S1.replace(b"i=4096", b"i=4095"),
        S1.replace(b"i=4096", b"i=1000001"),
        S1.replace(b"i=4096", b"i=" + b"9" * 3000),
        S1.replace(b"i=4096", b"i=-1"),
        S1.replace(b"s=W22", b"s=W2"),
        S1.replace(b"s=W22ZaJ0SNY7soEsUEjb6gQ==", b"s="),
        S1.replace(b"r=rOpr", b"r=xOpr"),
        S1.replace(SERVER_NONCE, b""),
        b"m=x," + S1,
        S1 + b",m=x",
        S1 + b"," + b"x=" + b"y" * 5000,
        b"e=unknown-user",
        S2,
    ],
)
def test_client_refuses_a_first_challenge_that_cannot_be(challenge):
    ours = client()
    ours.initial()
    with pytest.raises(SaslError):
        ours.respond(challenge)
    # It is over: neither a better message nor the one that would come next is answered.
    for later in (S1, S2, b"v=A"):
        with pytest.raises(SaslError, match="too many"):
            ours.respond(later)
    with pytest.raises(SaslError):
        ours.finish()


@pytest.mark.parametrize(
    "challenge",
    [
        b"",
        b"v=",
        b"v=AAAA",
        S2.replace(b"v=6", b"v=7"),
        S2 + b"\n",
        b"e=other-error",
        b"e=\x1b[2J",
        b"x=1",
        b"\xff",
    ],
)
def test_client_refuses_a_server_that_does_not_prove_itself(challenge):
    ours = client()
    ours.respond(S1)
    with pytest.raises(SaslError) as caught:
        ours.respond(challenge)
    assert str(caught.value).isprintable()
    with pytest.raises(SaslError):
        ours.finish()


@pytest.mark.parametrize("challenges", [[], [S1]])
def test_client_does_not_take_success_from_a_server_that_never_proved_itself(challenges):
    ours = client()
    for challenge in challenges:
        ours.respond(challenge)
    with pytest.raises(SaslError):
        ours.finish()


def test_client_limits_the_work_it_is_told_to_do():
    ours = client(max_iterations=5000)
    with pytest.raises(SaslError, match="5001 iterations"):
        ours.respond(S1.replace(b"i=4096", b"i=5001"))


@pytest.mark.parametrize("password", [None, "", "a\u0007", "\U0001f600"])
def test_client_refuses_passwords_that_cannot_be_prepared(password):
    with pytest.raises(SaslError):
        client(password)


def test_nonces_differ_by_default():
    firsts = {ScramSha256Client(ClientCredentials("user", "pencil")).initial() for _ in range(50)}
    assert len(firsts) == 50


# --------------------------------------------------------------------------------------- the secret


def test_derived_secret_hides_its_keys():
    assert SECRET.stored_key.hex() not in repr(SECRET)
    assert repr(SECRET.server_key) not in repr(SECRET)


@pytest.mark.parametrize(
    ("password", "salt", "iterations"),
    [("", SALT, 4096), ("a\u0007", SALT, 4096), ("pencil", b"short", 4096), ("pencil", SALT, 4095)],
)
def test_secrets_that_would_be_weak_are_not_derived(password, salt, iterations):
    with pytest.raises(ValueError, match=r"SASLprep|SCRAM secret"):
        derive_scram_secret(password, salt=salt, iterations=iterations)


def test_equivalent_passwords_derive_the_same_secret():
    # RFC 5802 section 3 advises to test with U+00BD.
    whole = derive_scram_secret("\u00bd", salt=SALT, iterations=4096)
    assert whole == derive_scram_secret("1\u20442", salt=SALT, iterations=4096)
    assert isinstance(whole, ScramSecret)


# ------------------------------------------------------------------------------------------- scramp


@settings(max_examples=60)
@given(names(), passwords())
def test_scramp_as_client(user, password):
    try:
        peer = ScramClient(["SCRAM-SHA-256"], user, password)
    except ScramException:
        reject()  # it takes names for stored strings
    server = ScramSha256Server(ServerParameters())
    need = server.begin(peer.get_client_first().encode())
    assert need == NeedSecret(prepare_query(user), SecretKind.SCRAM_SHA_256)
    peer.set_server_first(server.supply(derive_scram_secret(password, salt=SALT, iterations=ITERATIONS)).data.decode())
    peer.set_server_final(server.respond(peer.get_client_final().encode()).data.decode())
    assert server.respond(b"") == Verified(prepare_query(user))


@settings(max_examples=60)
@given(names(), passwords())
def test_scramp_as_server(user, password):
    ours = ScramSha256Client(ClientCredentials(user, password))
    mechanism = ScramMechanism("SCRAM-SHA-256")
    kept = mechanism.make_auth_info(password, iteration_count=ITERATIONS, salt=SALT)
    peer = mechanism.make_server(lambda _: kept)
    try:
        peer.set_client_first(ours.initial().decode())
    except ScramException:
        reject()  # it takes names for stored strings
    peer.set_client_final(ours.respond(peer.get_server_first().encode()).decode())
    assert ours.respond(peer.get_server_final().encode()) == b""
    ours.finish()


@pytest.mark.parametrize("grammar", [CLIENT_FIRST, CLIENT_FINAL, SERVER_FIRST, SERVER_FINAL])
@pytest.mark.parametrize("shape", ["n,,n={},r=a", "n,,n=u,r=a{}", "r=a,s=AAAA,i=1{}", "c=AAAA,r=a{},p="])
@pytest.mark.parametrize("filler", ["=2C", ",x=y", "=", "a=", ",x=,"])
def test_grammars_take_linear_time(grammar, shape, filler):
    # An expression that backtracks would not return from this in a lifetime.
    assert grammar.fullmatch(shape.format(filler * 20_000) + "\0") is None
