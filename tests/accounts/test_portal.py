"""Logging in: who gets in and as whom, what strangers can tell apart (nothing), how often they may try."""

from collections import Counter

import pytest
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import Anonymous, UsernamePassword
from twisted.cred.error import UnauthorizedLogin, UnhandledCredentials
from twisted.cred.portal import IRealm
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import LogLevel, globalLogPublisher
from zope.interface.verify import verifyObject

from mailsuite.accounts.guesses import GuessLimit, TooManyGuesses
from mailsuite.accounts.passwords import PasswordCost
from mailsuite.accounts.portal import IAccount, IProvenName, ProvenName, make_authenticator
from mailsuite.accounts.reader import DirectoryReader
from mailsuite.interfaces import DirectoryUnavailable, IAuthenticator
from mailsuite.mail.session import Identity, ScramSecret, SecretKind
from mailsuite.wire import sasl
from tests.accounts.conftest import CHEAP, HeldThreads, at_once, in_real_thread, result_of

ALICE = Identity("alice@example.org", frozenset({"alice@example.org", "sales@example.org"}))


@pytest.fixture
def furnished(directory):
    directory.add_user("alice@example.org", "secret", further=["sales@example.org"], keep=list(SecretKind))
    directory.add_user("bob@example.org", "bobs")
    directory.add_user("eve@example.org", "eves", keep=list(SecretKind))
    directory.set_enabled("eve@example.org", enabled=False)
    directory.add_user("box@example.org", None)
    return directory


@pytest.fixture
def make(furnished, reader, clock):
    def make(in_thread=in_real_thread, cost=CHEAP, **options):
        return make_authenticator(reader, clock, in_thread, cost=cost, **options)

    return make


def log_in(authenticator, authcid="alice@example.org", password=b"secret", authzid=""):
    return result_of(authenticator.check_password(authcid, authzid, password))


def test_each_part_provides_its_interface(authenticator):
    assert verifyObject(IAuthenticator, authenticator)
    assert verifyObject(IRealm, authenticator.portal.realm)
    assert all(verifyObject(ICredentialsChecker, one) for one in authenticator.portal.checkers.values())
    assert verifyObject(IAccount, ALICE)
    assert verifyObject(IProvenName, ProvenName(b"alice@example.org"))


# ------------------------------------------------------------------------------------------------ passwords


@pytest.mark.parametrize(
    "login", ["alice@example.org", "ALICE@Example.org", "sales@example.org", '"alice"@example.org']
)
def test_the_right_password_logs_in_by_any_address(authenticator, login):
    assert log_in(authenticator, login) == ALICE


def test_a_bare_name_logs_in_where_there_is_a_default_domain(make):
    assert log_in(make(default_domain="example.org"), "Alice") == ALICE
    with pytest.raises(UnauthorizedLogin):
        log_in(make(default_domain="example.net"), "alice")
    with pytest.raises(UnauthorizedLogin):
        log_in(make(), "alice")


REFUSED = {
    "wrong password": ("alice@example.org", b"Secret"),
    "empty password": ("alice@example.org", b""),
    "a password that is not UTF-8": ("alice@example.org", b"\xff"),
    "a password that is too long": ("alice@example.org", b"x" * 100_000),
    "another's password": ("alice@example.org", b"bobs"),
    "no such account": ("nobody@example.org", b"secret"),
    "no such domain": ("alice@example.net", b"secret"),
    "disabled": ("eve@example.org", b"eves"),
    "no password set": ("box@example.org", b""),
    "no name": ("", b"secret"),
    "a name that is no address": ("a b c", b"secret"),
    "a subaddress": ("alice+x@example.org", b"secret"),
    "odd octets": ("\0alice@example.org", b"secret"),
    "a lone surrogate": ("\udc80@example.org", b"secret"),
    "a long name": ("x" * 100_000 + "@example.org", b"secret"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_whoever_is_refused_learns_nothing_from_it(authenticator, work, case):
    with pytest.raises(UnauthorizedLogin) as raised:
        log_in(authenticator, *REFUSED[case])
    assert raised.value.args == ()
    # As for a wrong password of an account that exists: one look into the directory, one computation.
    assert work == {"argon2": 1, "accounts": 1}


def test_a_disabled_account_logs_in_again_when_it_is_enabled(authenticator, furnished):
    furnished.set_enabled("eve@example.org", enabled=True)
    assert log_in(authenticator, "eve@example.org", b"eves").name == "eve@example.org"


@pytest.mark.parametrize("authzid", ["", "alice@example.org", "SALES@example.org"])
def test_acting_as_oneself_is_fine(authenticator, authzid):
    assert log_in(authenticator, authzid=authzid) == ALICE
    assert result_of(authenticator.authorize("alice@example.org", authzid, external=False)) == ALICE


@pytest.mark.parametrize(
    "authzid", ["bob@example.org", "nobody@example.org", "alice", "root", "@example.org", "\udc80"]
)
def test_acting_as_another_is_refused(authenticator, authzid):
    with pytest.raises(UnauthorizedLogin):
        log_in(authenticator, authzid=authzid)
    with pytest.raises(UnauthorizedLogin):
        result_of(authenticator.authorize("alice@example.org", authzid, external=False))


def test_a_catch_all_does_not_make_everybody_of_a_domain_the_account(authenticator, furnished):
    furnished.change_addresses("alice@example.org", add=["@example.org"])
    assert "@example.org" in log_in(authenticator).addresses
    for authcid, authzid in (
        ("anybody@example.org", ""),
        ('""@example.org', ""),
        ("alice@example.org", "x@example.org"),
    ):
        with pytest.raises(UnauthorizedLogin):
            log_in(authenticator, authcid, authzid=authzid)


# ---------------------------------------------------------------------------------- recently verified passwords


def test_a_client_with_many_connections_is_verified_once_in_a_while(authenticator, clock, work):
    for _ in range(20):
        assert log_in(authenticator) == ALICE
        assert log_in(authenticator, "sales@example.org") == ALICE
    assert work["argon2"] == 1
    clock.advance(301)
    assert log_in(authenticator) == ALICE
    assert work["argon2"] == 2


def test_a_changed_password_is_in_force_at_once(authenticator, furnished):
    log_in(authenticator)
    furnished.set_password("alice@example.org", "changed")
    with pytest.raises(UnauthorizedLogin):
        log_in(authenticator)
    assert log_in(authenticator, password=b"changed") == ALICE


@pytest.mark.parametrize("how", ["disable", "delete"])
def test_an_account_that_goes_away_is_refused_at_once(authenticator, furnished, how):
    log_in(authenticator)
    if how == "disable":
        furnished.set_enabled("alice@example.org", enabled=False)
    else:
        furnished.delete_user("alice@example.org")
    with pytest.raises(UnauthorizedLogin):
        log_in(authenticator)


def test_an_account_that_goes_away_while_its_password_is_checked_is_refused(make, furnished):
    held = HeldThreads()
    outcome = []
    attempt = Deferred.fromCoroutine(make(held).check_password("alice@example.org", "", b"secret"))
    attempt.addErrback(outcome.append)
    held.end_one()  # the account
    held.end_one()  # the password
    furnished.set_enabled("alice@example.org", enabled=False)
    held.end_one()  # the avatar
    assert outcome[0].check(UnauthorizedLogin)


# ------------------------------------------------------------------------------------------ renewing of hashes


DEARER = PasswordCost(time_cost=2, memory_kib=16)


def test_a_hash_of_another_cost_is_renewed_at_the_next_login(make, reader):
    authenticator = make(cost=DEARER)
    before = reader.account(("alice", "example.org")).secrets
    with pytest.raises(UnauthorizedLogin):
        log_in(authenticator, password=b"wrong")
    assert reader.account(("alice", "example.org")).secrets == before
    assert log_in(authenticator) == ALICE
    after = reader.account(("alice", "example.org")).secrets
    assert "m=16,t=2" in after.password_hash
    assert (after.shared, after.scram) == (before.shared, before.scram)
    assert log_in(authenticator) == ALICE


def test_a_login_does_not_fail_because_its_hash_cannot_be_renewed(make, path, furnished, reader):
    logged = []
    globalLogPublisher.addObserver(logged.append)
    furnished._db.execute("CREATE TRIGGER no BEFORE UPDATE ON accounts BEGIN SELECT raise(FAIL, 'no'); END")  # noqa: SLF001
    assert log_in(make(cost=DEARER)) == ALICE
    globalLogPublisher.removeObserver(logged.append)
    [warning] = [event for event in logged if event["log_level"] is LogLevel.warn]
    text = warning["log_format"].format(**warning)
    assert text.startswith("the password hash of alice@example.org stays as it was")
    assert "$argon2id" not in str(warning)
    assert "secret" not in text


# --------------------------------------------------------------------------------------------------- proofs


def test_stored_secrets_are_told_of_accounts_that_have_them(authenticator):
    assert result_of(authenticator.secret("Sales@example.org", SecretKind.SHARED)) == b"secret"
    assert isinstance(result_of(authenticator.secret("alice@example.org", SecretKind.SCRAM_SHA_256)), ScramSecret)


@pytest.mark.parametrize(
    "authcid", ["bob@example.org", "eve@example.org", "box@example.org", "nobody@example.org", "", "a b"]
)
@pytest.mark.parametrize("kind", SecretKind)
def test_there_is_no_secret_of_others(authenticator, work, authcid, kind):
    assert result_of(authenticator.secret(authcid, kind)) is None
    assert work == {"accounts": 1}


@pytest.mark.parametrize("authcid", ["eve@example.org", "nobody@example.org", "", "\udc80@example.org"])
def test_a_proof_is_no_good_without_an_enabled_account(authenticator, authcid):
    with pytest.raises(UnauthorizedLogin):
        result_of(authenticator.authorize(authcid, "", external=False))


def converse(authenticator, mechanism, client_class, password):
    """Run a SASL exchange of a real client against the accounts; what the session would get."""
    server = sasl.SERVER_MECHANISMS[mechanism](sasl.ServerParameters(hostname=b"mx.example.org"))
    client = client_class(sasl.ClientCredentials(user="alice@example.org", password=password))
    step = server.begin(client.initial())
    while True:
        match step:
            case sasl.Challenge(data):
                step = server.respond(client.respond(data))
            case sasl.NeedSecret(user, kind):
                step = server.supply(result_of(authenticator.secret(user, kind)))
            case sasl.Check(sasl.PasswordCredential(authcid, authzid, octets)):
                return log_in(authenticator, authcid, octets, authzid)
            case sasl.Verified(authcid, authzid):
                return result_of(authenticator.authorize(authcid, authzid, external=False))
            case sasl.Refused():
                raise UnauthorizedLogin


@pytest.mark.parametrize("mechanism", [b"PLAIN", b"LOGIN", b"CRAM-MD5", b"SCRAM-SHA-256"])
def test_each_mechanism_logs_in_with_what_is_kept(authenticator, mechanism):
    def client(credentials):
        return sasl.choose([mechanism], credentials, secure=True)

    assert converse(authenticator, mechanism, client, "secret") == ALICE
    with pytest.raises(UnauthorizedLogin):
        converse(authenticator, mechanism, client, "wrong")


# ------------------------------------------------------------------------------------------------ guessing


FEW = GuessLimit(burst=3, per_hour=60)


@pytest.mark.parametrize(
    "login", ["bob@example.org", "eve@example.org", "box@example.org", "nobody@example.org", "no address"]
)
def test_guessing_comes_to_an_end_for_any_name(make, work, clock, login):
    authenticator = make(guess_limit=FEW)
    for _ in range(3):
        with pytest.raises(UnauthorizedLogin):
            log_in(authenticator, login, b"guess")
    for _ in range(3):
        with pytest.raises(TooManyGuesses):
            log_in(authenticator, login, b"guess")
    assert work["argon2"] == 3
    clock.advance(60)
    with pytest.raises(UnauthorizedLogin):
        log_in(authenticator, login, b"guess")


@pytest.mark.parametrize(
    ("login", "again"),
    [
        ("alice@example.org", "Sales@EXAMPLE.org"),
        ("nobody@example.org", "NOBODY@Example.org"),
        ("nobody", "nobody@example.org"),
    ],
)
def test_another_spelling_of_a_name_gives_no_more_guesses(make, login, again):
    authenticator = make(guess_limit=FEW, default_domain="example.org")
    for _ in range(3):
        with pytest.raises(UnauthorizedLogin):
            log_in(authenticator, login, b"guess")
    with pytest.raises(TooManyGuesses):
        log_in(authenticator, again, b"guess")


def test_guesses_under_way_count_already(make):
    held = HeldThreads()
    authenticator = make(held, guess_limit=FEW, hashing_threads=100)
    outcomes = []
    for _ in range(10):
        attempt = Deferred.fromCoroutine(authenticator.check_password("alice@example.org", "", b"guess"))
        attempt.addErrback(lambda failure: outcomes.append(failure.type))
    while held.waiting:
        held.end_one()
    assert Counter(outcomes) == {TooManyGuesses: 7, UnauthorizedLogin: 3}


def test_right_passwords_and_proofs_are_never_too_many(make, clock):
    authenticator = make(guess_limit=FEW)
    for _ in range(10):
        clock.advance(301)  # each is verified in earnest
        assert log_in(authenticator) == ALICE
        assert result_of(authenticator.secret("alice@example.org", SecretKind.SCRAM_SHA_256)) is not None
        assert result_of(authenticator.authorize("alice@example.org", "", external=False)) == ALICE


def test_an_owner_who_logged_in_lately_is_not_kept_out_by_guessing(make):
    authenticator = make(guess_limit=FEW)
    log_in(authenticator)
    for _ in range(10):
        with pytest.raises((UnauthorizedLogin, TooManyGuesses)):
            log_in(authenticator, password=b"guess")
    assert log_in(authenticator) == ALICE


@pytest.mark.parametrize("login", ["alice@example.org", "nobody@example.org"])
def test_proofs_that_fail_are_guesses_too(make, login):
    authenticator = make(guess_limit=FEW)
    for _ in range(3):
        result_of(authenticator.secret(login, SecretKind.SHARED))
    for kind in SecretKind:
        with pytest.raises(TooManyGuesses):
            result_of(authenticator.secret(login, kind))


# ------------------------------------------------------------------------------------------ what goes wrong


def test_a_directory_that_cannot_be_read_is_unavailable(tmp_path, clock):
    authenticator = make_authenticator(DirectoryReader(tmp_path / "none.db"), clock, at_once, cost=CHEAP)
    for ask in (
        authenticator.check_password("alice@example.org", "", b"secret"),
        authenticator.secret("alice@example.org", SecretKind.SHARED),
        authenticator.authorize("alice@example.org", "", external=False),
    ):
        with pytest.raises(DirectoryUnavailable, match="cannot be read") as raised:
            result_of(ask)
        assert not isinstance(raised.value, TooManyGuesses)


def test_hashing_takes_no_more_threads_than_it_may(make):
    held = HeldThreads()
    authenticator = make(held, hashing_threads=2)
    attempts = [
        Deferred.fromCoroutine(authenticator.check_password("alice@example.org", "", b"secret")) for _ in range(6)
    ]
    for _ in range(6):
        held.end_one()  # the accounts are looked up
    assert len(held.waiting) == 2
    while held.waiting:
        held.end_one()
    assert [result_of(one) for one in attempts] == [ALICE] * 6


def test_a_login_whose_connection_is_lost_is_cancelled(make):
    held = HeldThreads()
    authenticator = make(held)
    attempt = Deferred.fromCoroutine(authenticator.check_password("alice@example.org", "", b"secret"))
    held.end_one()
    attempt.cancel()
    with pytest.raises(CancelledError):
        result_of(attempt)
    held.end_one()  # the computation ends, for nobody
    assert held.waiting == []


def test_no_secret_is_logged(authenticator):
    events = []
    globalLogPublisher.addObserver(events.append)
    log_in(authenticator)
    with pytest.raises(UnauthorizedLogin):
        log_in(authenticator, password=b"wr0ng-p4ssword")
    result_of(authenticator.secret("alice@example.org", SecretKind.SHARED))
    globalLogPublisher.removeObserver(events.append)
    assert "wr0ng-p4ssword" not in str(events)
    assert "argon2id" not in str(events)


# --------------------------------------------------------------------------------------- cred, used by others


def test_a_portal_takes_the_passwords_of_any_protocol_of_twisted(authenticator):
    interface, avatar, log_out = result_of(
        authenticator.portal.login(UsernamePassword(b"sales@example.org", b"secret"), None, IAccount)
    )
    assert (interface, avatar, log_out()) == (IAccount, ALICE, None)


def test_a_name_that_is_not_utf_8_is_nobodys(authenticator):
    with pytest.raises(UnauthorizedLogin):
        result_of(authenticator.portal.login(UsernamePassword(b"\xff@example.org", b"secret"), None, IAccount))


def test_there_is_no_anonymous_account(authenticator):
    with pytest.raises(UnhandledCredentials):
        result_of(authenticator.portal.login(Anonymous(), None, IAccount))
    with pytest.raises(UnauthorizedLogin):
        result_of(authenticator.portal.realm.requestAvatar((), None, IAccount))


def test_an_avatar_of_another_kind_is_not_to_be_had(authenticator):
    with pytest.raises(LookupError, match="gives IAccount"):
        result_of(authenticator.portal.login(ProvenName(b"alice@example.org"), None, IRealm))
