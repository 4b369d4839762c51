"""Every mechanism: client and server as a pair, the order of steps, unknown users, garbage, secrets."""

import ast
import inspect
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import mailsuite.wire.sasl
from mailsuite.wire.core import LocalProtocolError
from mailsuite.wire.sasl import (
    PLAINTEXT_MECHANISMS,
    SERVER_MECHANISMS,
    Challenge,
    Check,
    ClientCredentials,
    ExternalCredential,
    NeedSecret,
    PasswordCredential,
    Refused,
    SaslError,
    ServerParameters,
    choose,
    prepare_query,
    prepare_stored,
)
from mailsuite.wire.sasl.cram import CramMd5Client, CramMd5Server
from mailsuite.wire.sasl.external import ExternalClient
from mailsuite.wire.sasl.login import LoginClient
from mailsuite.wire.sasl.plain import PlainClient
from mailsuite.wire.sasl.scram import ScramSha256Client, ScramSha256Server
from tests.wire.sasl.exchange import Accounts, accepted, converse, names, passwords

CLIENTS = {kind.name: kind for kind in (PlainClient, LoginClient, CramMd5Client, ScramSha256Client, ExternalClient)}
WITH_PASSWORD = [name for name in CLIENTS if name != b"EXTERNAL"]
WITH_AUTHZID = [b"PLAIN", b"SCRAM-SHA-256"]
PARAMETERS = ServerParameters(decoy_iterations=4096)


def pair(name, credentials):
    return CLIENTS[name](credentials), SERVER_MECHANISMS[name](PARAMETERS)


# ---------------------------------------------------------------------------------------- as a pair


@pytest.mark.parametrize("name", WITH_PASSWORD)
@pytest.mark.parametrize("withhold", [False, True])
@settings(max_examples=40)
@given(user=names(), password=passwords(), other=passwords())
def test_pair_lets_the_right_password_in_and_no_other(name, withhold, user, password, other):
    assume(prepare_stored(other) != prepare_stored(password))
    accounts = Accounts({prepare_query(user): password})
    client, server = pair(name, ClientCredentials(user, password))
    last, _ = converse(client, server, accounts, withhold=withhold)
    assert accepted(last, accounts)
    client.finish()
    authcid = last.credential.authcid if isinstance(last, Check) else last.authcid
    assert authcid == prepare_query(user)

    client, server = pair(name, ClientCredentials(user, other))
    last, _ = converse(client, server, accounts, withhold=withhold)
    assert not accepted(last, accounts)


@pytest.mark.parametrize("name", WITH_AUTHZID)
@settings(max_examples=40)
@given(user=names(), password=passwords(), authzid=names())
def test_pair_carries_the_authorization_identity(name, user, password, authzid):
    accounts = Accounts({prepare_query(user): password})
    client, server = pair(name, ClientCredentials(user, password, authzid=authzid))
    last, _ = converse(client, server, accounts)
    assert accepted(last, accounts)
    said = last.credential if isinstance(last, Check) else last
    assert said.authzid == prepare_query(authzid)


@pytest.mark.parametrize("withhold", [False, True])
@given(authzid=st.just("") | names())
def test_pair_of_external_carries_the_authorization_identity(withhold, authzid):
    client, server = pair(b"EXTERNAL", ClientCredentials("tim", authzid=authzid, external=True))
    last, _ = converse(client, server, Accounts({}), withhold=withhold)
    assert last == Check(ExternalCredential(prepare_query(authzid) if authzid else ""))
    client.finish()


@pytest.mark.parametrize("name", [b"CRAM-MD5", b"LOGIN"])
def test_mechanisms_without_authorization_identity_say_so(name):
    with pytest.raises(SaslError):
        CLIENTS[name](ClientCredentials("tim", "secret", authzid="kurt"))


# -------------------------------------------------------------------------------------- unknown users


def shape(step):
    """Return what a peer can see of a step, and how long that is."""
    return type(step).__name__, len(step.data) if isinstance(step, Challenge) else None


@pytest.mark.parametrize("name", [b"CRAM-MD5", b"SCRAM-SHA-256"])
@settings(max_examples=25)
@given(user=names(), password=passwords(), other=passwords())
def test_unknown_user_and_wrong_password_look_the_same(name, user, password, other):
    assume(prepare_stored(other) != prepare_stored(password))
    known, unknown = Accounts({prepare_query(user): other}), Accounts({})
    fixed = ServerParameters(random_number=lambda: 1, clock=lambda: 0, decoy_iterations=4096)
    seen = []
    for accounts in (known, unknown):
        client, server = CLIENTS[name](ClientCredentials(user, password)), SERVER_MECHANISMS[name](fixed)
        last, steps = converse(client, server, accounts)
        assert last == Refused(malformed=False)
        assert len(accounts.asked) == 1
        seen.append([shape(step) for step in steps])
    assert seen[0] == seen[1]


# ------------------------------------------------------------------------------------- order of steps


@pytest.mark.parametrize("name", SERVER_MECHANISMS)
def test_steps_out_of_order_are_our_own_mistake(name):
    fresh = SERVER_MECHANISMS[name](PARAMETERS)
    with pytest.raises(LocalProtocolError):
        fresh.respond(b"x")
    with pytest.raises(LocalProtocolError):
        fresh.supply(None)
    assert isinstance(fresh.begin(None), Challenge)
    with pytest.raises(LocalProtocolError):
        fresh.begin(None)
    with pytest.raises(LocalProtocolError):
        fresh.supply(None)
    assert fresh.respond(b"\0" * 4) == Refused(malformed=True)
    for again in (lambda: fresh.begin(None), lambda: fresh.respond(b""), lambda: fresh.supply(None)):
        with pytest.raises(LocalProtocolError):
            again()


@pytest.mark.parametrize("name", [b"CRAM-MD5", b"SCRAM-SHA-256"])
def test_nothing_is_read_while_a_secret_is_looked_up(name):
    client, server = pair(name, ClientCredentials("tim", "secret"))
    challenge = server.begin(client.initial())
    need = challenge if isinstance(challenge, NeedSecret) else server.respond(client.respond(challenge.data))
    assert isinstance(need, NeedSecret)
    with pytest.raises(LocalProtocolError):
        server.respond(b"x")
    assert isinstance(server.supply(None), (Challenge, Refused))


@pytest.mark.parametrize("name", SERVER_MECHANISMS)
def test_table_knows_mechanisms_by_their_names(name):
    assert SERVER_MECHANISMS[name](PARAMETERS).name == name == CLIENTS[name].name
    assert name == name.upper()


# -------------------------------------------------------------------------------------------- garbage

_LIKELY = [
    b"",
    b"tim",
    b"\0tim\0secret",
    b"n,,n=tim,r=abc",
    b"n,a=x,n=tim,r=abc",
    b"c=biws,r=abc,p=" + b"A" * 43 + b"=",
    b"tim b913a602c7eda7a495b4e6e7334d3890",
]
# Fragments of real messages, glued and cut, find more than noise does.
GARBAGE = (
    st.binary(max_size=300)
    | st.sampled_from(_LIKELY)
    | st.lists(st.sampled_from([*_LIKELY, b",", b"=", b"\0", b"\xff", b"x=1"]), max_size=6).map(b"".join)
    | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass"))
)


@pytest.mark.parametrize("name", SERVER_MECHANISMS)
@settings(max_examples=200)
@given(initial=st.none() | GARBAGE, responses=st.lists(GARBAGE, min_size=4, max_size=4), known=st.booleans())
def test_garbage_never_raises_out_of_a_server(name, initial, responses, known):
    accounts = Accounts({"tim": "secret"} if known else {})
    server = SERVER_MECHANISMS[name](PARAMETERS)
    step = server.begin(initial)
    for response in responses:
        if isinstance(step, NeedSecret):
            step = server.supply(accounts.secret(step))
        if not isinstance(step, Challenge):
            break
        step = server.respond(response)
    # Garbage proves nothing: what a digest would have to vouch for never comes out verified.
    assert isinstance(step, (Challenge, NeedSecret, Check, Refused))


def rejection(client, challenges):
    """Return the error that a client answers these challenges and a success with, None if it has none."""
    try:
        for challenge in challenges:
            client.respond(challenge)
        client.finish()
    except SaslError as error:
        return error
    return None


@pytest.mark.parametrize("name", CLIENTS)
@settings(max_examples=100)
@given(challenges=st.lists(GARBAGE, min_size=1, max_size=4))
def test_garbage_raises_only_sasl_errors_out_of_a_client(name, challenges):
    client = CLIENTS[name](ClientCredentials("tim", "secret"))
    client.initial()
    # SCRAM's server has to prove itself, PLAIN and EXTERNAL take no challenge, the others so many.
    if rejection(client, challenges) is None:
        assert len(challenges) == {b"LOGIN": 2, b"CRAM-MD5": 1}[name]


# -------------------------------------------------------------------------------------------- choosing

ALL = list(SERVER_MECHANISMS)
TIM = ClientCredentials("tim", "secret")


@pytest.mark.parametrize(
    ("offered", "credentials", "secure", "chosen"),
    [
        (ALL, TIM, True, b"SCRAM-SHA-256"),
        (ALL, TIM, False, b"SCRAM-SHA-256"),
        (reversed(ALL), TIM, True, b"SCRAM-SHA-256"),
        ([b"login", b"plain", b"cram-md5"], TIM, True, b"CRAM-MD5"),
        ([b"LOGIN", b"PLAIN"], TIM, True, b"PLAIN"),
        ([b"LOGIN"], TIM, True, b"LOGIN"),
        ([b"LOGIN", b"PLAIN"], TIM, False, None),
        ([b"LOGIN", b"PLAIN", b"CRAM-MD5"], TIM, False, b"CRAM-MD5"),
        ([b"EXTERNAL"], TIM, True, None),
        ([b"GSSAPI", b"SCRAM-SHA-256-PLUS"], TIM, True, None),
        ([], TIM, True, None),
        (ALL, ClientCredentials("tim", external=True), True, b"EXTERNAL"),
        (ALL, ClientCredentials("tim", "secret", external=True), True, b"EXTERNAL"),
        ([b"PLAIN"], ClientCredentials("tim", "secret", external=True), True, b"PLAIN"),
        (ALL, ClientCredentials("tim"), True, None),
        # What cannot carry an identity, or cannot prepare the password, gives way to what can.
        ([b"CRAM-MD5", b"LOGIN", b"PLAIN"], ClientCredentials("tim", "s", authzid="k"), True, b"PLAIN"),
        ([b"CRAM-MD5", b"LOGIN"], ClientCredentials("tim", "s", authzid="k"), True, None),
        ([b"SCRAM-SHA-256", b"PLAIN"], ClientCredentials("tim", "\U0001f600"), True, b"PLAIN"),
    ],
)
def test_choose_takes_the_strongest_that_fits(offered, credentials, secure, chosen):
    mechanism = choose(offered, credentials, secure=secure)
    assert (mechanism.name if mechanism else None) == chosen


def test_plaintext_mechanisms_are_those_that_show_the_password():
    shown = {
        name
        for name in WITH_PASSWORD
        for last, _ in [converse(*pair(name, TIM), Accounts({"tim": "secret"}))]
        if isinstance(last, Check) and last.credential.password == b"secret"
    }
    assert shown == PLAINTEXT_MECHANISMS


# ----------------------------------------------------------------------------------- secrets stay secret


def test_reprs_hold_no_secrets():
    credentials = ClientCredentials("tim", "tops3cret")
    everything = [credentials, PasswordCredential("tim", "", b"tops3cret"), PARAMETERS]
    for name in WITH_PASSWORD:
        client, server = pair(name, credentials)
        last, steps = converse(client, server, Accounts({"tim": "tops3cret"}))
        everything += [client, server, last, *steps]
    text = repr(everything)
    assert "tim" in text
    assert "tops3cret" not in text
    assert repr(PARAMETERS.decoy_key) not in text


SECRETS = {"digest", "proof", "verifier", "signature", "stored_key", "server_key", "client_key", "expected"}
SECRETS |= {"secret", "password", "decoy"}


def names_in(node):
    """Return the words of all names below a node, those inside len(...) and isinstance(...) left out."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) in {"len", "isinstance"}:
        return set()
    own = {getattr(node, "id", ""), getattr(node, "attr", ""), str(getattr(node, "value", ""))}
    return own.union(*(names_in(child) for child in ast.iter_child_nodes(node)))


def test_no_secret_is_compared_with_an_operator():
    found = []
    for path in sorted(Path(mailsuite.wire.sasl.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare) and any(isinstance(op, (ast.Eq, ast.NotEq)) for op in node.ops):
                words = {name.strip("_'") for name in names_in(node)}
                found += [f"{path.name}:{node.lineno}"] if words & SECRETS else []
    assert found == []


@pytest.mark.parametrize(
    ("mechanism", "verdict"),
    [
        (CramMd5Server, "_supplied"),
        (ScramSha256Server, "_client_final"),
        (ScramSha256Client, "_verify"),
    ],
)
def test_verdicts_compare_in_constant_time(mechanism, verdict):
    source = inspect.getsource(getattr(mechanism, verdict))
    assert source.count("hmac.compare_digest(") == 1


@pytest.mark.parametrize("name", WITH_PASSWORD)
def test_errors_hold_no_secrets(name):
    client = CLIENTS[name](ClientCredentials("tim", "tops3cret"))
    error = rejection(client, [b"a", b"b", b"c"])
    assert error is not None
    assert "tops3cret" not in f"{error} {error!r} {error.__cause__!r}"
