"""Customers logging in: by every mechanism, from both sources, and what strangers can tell apart (nothing)."""

import pytest
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs, globalLogPublisher

from mailsuite.accounts.configured import ConfiguredCustomer
from mailsuite.accounts.customers import CustomersFile
from mailsuite.accounts.guesses import GuessLimit, TooManyGuesses
from mailsuite.accounts.passwords import PasswordCost
from mailsuite.accounts.portal import make_authenticator
from mailsuite.accounts.reader import DirectoryReader
from mailsuite.mail.address import parse_mailbox
from mailsuite.mail.customer import Customer
from mailsuite.mail.scram import DEFAULT_ITERATIONS, SALT_LENGTH
from mailsuite.mail.session import Identity, SecretKind
from mailsuite.wire import sasl
from tests.accounts.conftest import CHEAP, HeldThreads, in_real_thread, result_of

NOBODY = ("", "")
SHIP = Identity("Ship", frozenset({"@ship.example", "@boat.example"}), "Ship")
HOME = Identity("home", frozenset({"@home.example"}), "home")
PASSWORDS = {"Ship": "ship's", "home": "h0me-p4ss"}
FEW = GuessLimit(burst=3, per_hour=60)


@pytest.fixture
def kept(path, directory):
    directory.add_user("alice@example.org", "secret", keep=list(SecretKind))
    with CustomersFile(path, cost=CHEAP) as opened:
        ship = Customer("Ship", ("ship.example", "boat.example"), certificate="ship.cert.example")
        opened.add_customer(ship, PASSWORDS["Ship"], keep=list(SecretKind))
        opened.add_customer(Customer("mute", ("mute.example",)), None)
        opened.add_customer(Customer("plain", ("plain.example",)), "only hashed")
        yield opened


@pytest.fixture
def make(kept, reader, clock):
    configured = [
        ConfiguredCustomer(Customer("home", ("home.example",), certificate="home.cert"), PASSWORDS["home"]),
        ConfiguredCustomer(Customer("card", ("card.example",), certificate="card.cert")),
    ]

    def make(in_thread=in_real_thread, cost=CHEAP, **options):
        return make_authenticator(reader, clock, in_thread, cost=cost, customers=configured, **options)

    return make


def log_in(authenticator, authcid, password, authzid=""):
    return result_of(authenticator.check_password(authcid, authzid, password))


def converse(authenticator, mechanism, user, password):
    """Run a SASL exchange of a real client; what the session would get."""
    server = sasl.SERVER_MECHANISMS[mechanism](sasl.ServerParameters(hostname=b"mx.example.org"))
    client = sasl.choose([mechanism], sasl.ClientCredentials(user=user, password=password), secure=True)
    step = server.begin(client.initial())
    while True:
        match step:
            case sasl.Challenge(data):
                step = server.respond(client.respond(data))
            case sasl.NeedSecret(name, kind):
                step = server.supply(result_of(authenticator.secret(name, kind)))
            case sasl.Check(sasl.PasswordCredential(authcid, authzid, octets)):
                return log_in(authenticator, authcid, octets, authzid)
            case sasl.Verified(authcid, authzid):
                return result_of(authenticator.authorize(authcid, authzid, external=False))
            case sasl.Refused():
                raise UnauthorizedLogin


@pytest.mark.parametrize("mechanism", [b"PLAIN", b"LOGIN", b"CRAM-MD5", b"SCRAM-SHA-256"])
@pytest.mark.parametrize(("login", "identity"), [("Ship", SHIP), ("SHIP", SHIP), ("home", HOME), ("HOME", HOME)])
def test_each_mechanism_logs_a_customer_in(authenticator, mechanism, login, identity):
    assert converse(authenticator, mechanism, login, PASSWORDS[identity.name]) == identity
    with pytest.raises(UnauthorizedLogin):
        converse(authenticator, mechanism, login, "wrong")


def test_a_customer_may_send_as_any_address_of_its_domains():
    assert SHIP.may_send_as(parse_mailbox("anybody@Ship.Example"))
    assert not SHIP.may_send_as(parse_mailbox("alice@example.org"))


def test_an_account_is_no_customer(authenticator):
    assert log_in(authenticator, "alice@example.org", b"secret").customer is None


@pytest.mark.parametrize(
    ("certificate", "name"), [("ship.cert.example", "Ship"), ("SHIP.Cert.example", "Ship"), ("card.cert", "card")]
)
def test_a_certificate_logs_its_customer_in(authenticator, certificate, name):
    assert result_of(authenticator.authorize(certificate, "", external=True)).customer == name
    assert result_of(authenticator.authorize(certificate, name.upper(), external=True)).customer == name


@pytest.mark.parametrize("name", ["Ship", "ship", "home", "card"])
def test_a_certificate_in_a_customers_name_is_not_the_customers(authenticator, name):
    """Whoever gets a certificate for that name is somebody else, unless the customer says that it has it."""
    with pytest.raises(UnauthorizedLogin):
        result_of(authenticator.authorize(name, "", external=True))
    assert result_of(authenticator.authorize(name, "", external=False)).customer.lower() == name.lower()


@pytest.mark.parametrize("certificate", ["ship.cert.example", "home.cert", "card.cert"])
def test_the_name_in_a_certificate_is_no_login_name(authenticator, certificate):
    with pytest.raises(UnauthorizedLogin):
        result_of(authenticator.authorize(certificate, "", external=False))


@pytest.mark.parametrize("certificate", ["ship.cert.example", "home.cert", "card.cert"])
def test_the_name_in_a_certificate_is_no_name_to_give_a_password_for(authenticator, certificate):
    for password in PASSWORDS.values():
        with pytest.raises(UnauthorizedLogin):
            log_in(authenticator, certificate, password.encode())
    for kind in SecretKind:
        assert result_of(authenticator.secret(certificate, kind)) is None


@pytest.mark.parametrize("authzid", ["home", "alice@example.org", "anybody@ship.example", "@ship.example", "\udc80"])
def test_a_customer_acts_for_nobody_else(authenticator, authzid):
    with pytest.raises(UnauthorizedLogin):
        log_in(authenticator, "ship", b"ship's", authzid)
    with pytest.raises(UnauthorizedLogin):
        result_of(authenticator.authorize("ship", authzid, external=False))
    assert log_in(authenticator, "ship", b"ship's", "SHIP") == SHIP


def test_an_account_does_not_act_for_a_customer(authenticator):
    with pytest.raises(UnauthorizedLogin):
        log_in(authenticator, "alice@example.org", b"secret", "ship")


REFUSED = {
    "wrong password": ("Ship", b"wrong"),
    "wrong password of a configured one": ("home", b"wrong"),
    "another's password": ("home", b"ship's"),
    "no password set": ("mute", b""),
    "a certificate only": ("card", b""),
    "no such customer": ("nobody", b"ship's"),
    "a domain": ("ship.example", b"ship's"),
    "not UTF-8": ("home", b"\xff"),
    "too long a password": ("home", b"x" * 100_000),
    "too long a name": ("x" * 100_000, b"x"),
    "a lone surrogate": ("\udc80", b"x"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_whoever_is_refused_learns_nothing_from_it(authenticator, work, case):
    with pytest.raises(UnauthorizedLogin) as raised:
        log_in(authenticator, *REFUSED[case])
    assert raised.value.args == ()
    assert work == {"argon2": 1, "accounts": 1}


@pytest.mark.parametrize("authcid", ["mute", "plain", "card", "nobody"])
@pytest.mark.parametrize("kind", SecretKind)
def test_there_is_no_secret_where_none_is_kept(authenticator, work, authcid, kind):
    assert result_of(authenticator.secret(authcid, kind)) is None
    assert work == {"accounts": 1}


def test_a_configured_customers_salt_is_like_a_decoys_and_stays(make, path):
    secrets = [result_of(make().secret(name, SecretKind.SCRAM_SHA_256)) for name in ("home", "HOME")]
    again = DirectoryReader(path)  # as after a restart
    assert secrets[0] == secrets[1]
    assert (len(secrets[0].salt), secrets[0].iterations) == (SALT_LENGTH, DEFAULT_ITERATIONS)
    assert again.salt_key() not in secrets[0].salt
    again.close()


@pytest.mark.parametrize("login", ["Ship", "home", "mute", "card", "nobody"])
@pytest.mark.parametrize("default_domain", [None, "example.org"])
def test_guessing_comes_to_an_end_for_any_spelling_of_any_name(make, work, login, default_domain):
    authenticator = make(guess_limit=FEW, default_domain=default_domain)
    for spelling in (login, login.upper(), login.lower()):
        with pytest.raises(UnauthorizedLogin):
            log_in(authenticator, spelling, b"guess")
    spellings = [login, login.title()] + ([f"{login}@example.org"] if default_domain else [])
    for spelling in spellings:
        with pytest.raises(TooManyGuesses):
            log_in(authenticator, spelling, b"guess")
        with pytest.raises(TooManyGuesses):
            result_of(authenticator.secret(spelling, SecretKind.SHARED))
    assert work["argon2"] == 3


@pytest.mark.parametrize("login", ["SHIP", "Home"])
@pytest.mark.parametrize("default_domain", [None, "example.org"])
def test_right_passwords_and_proofs_are_never_too_many(make, clock, login, default_domain):
    authenticator = make(guess_limit=FEW, default_domain=default_domain)
    password = next(password for name, password in PASSWORDS.items() if name.lower() == login.lower())
    for _ in range(10):
        clock.advance(301)
        assert log_in(authenticator, login, password.encode()).customer
        converse(authenticator, b"CRAM-MD5", login, password)


def test_a_password_file_that_changes_is_in_force_at_the_next_login(reader, clock, directory, tmp_path):
    file = tmp_path / "password"
    file.write_text("first\n")
    card = Customer("file", ("file.example",), certificate="file.cert")
    one = ConfiguredCustomer(card, "first", password_file=file)
    authenticator = make_authenticator(reader, clock, in_real_thread, cost=CHEAP, customers=[one])
    assert log_in(authenticator, "file", b"first").customer == "file"
    file.write_text("the second\n")
    assert log_in(authenticator, "File", b"the second").customer == "file"
    with pytest.raises(UnauthorizedLogin):
        log_in(authenticator, "file", b"first")
    converse(authenticator, b"SCRAM-SHA-256", "file", "the second")
    converse(authenticator, b"CRAM-MD5", "file", "the second")
    assert result_of(authenticator.authorize("file.cert", "", external=True)).customer == "file"


@pytest.mark.parametrize("spoil", ["remove", "empty"])
def test_a_password_file_that_cannot_be_read_leaves_the_password_in_force(reader, clock, directory, tmp_path, spoil):
    file = tmp_path / "password"
    file.write_text("first\n")
    one = ConfiguredCustomer(Customer("file", ("file.example",)), "first", password_file=file)
    authenticator = make_authenticator(reader, clock, in_real_thread, cost=CHEAP, customers=[one])
    log_in(authenticator, "file", b"first")
    if spoil == "remove":
        file.unlink()
    else:
        file.write_text("\n")
    with capturedLogs() as events:
        for _ in range(2):
            assert log_in(authenticator, "file", b"first").customer == "file"
    lines = [event["log_format"].format(**event) for event in events]
    assert len(lines) == 1
    assert lines[0].startswith("customer file: ")
    assert lines[0].endswith("the password from before stays in force")
    file.write_text("mended\n")
    assert log_in(authenticator, "file", b"mended").customer == "file"


def test_a_changed_password_and_a_deleted_customer_are_in_force_at_once(authenticator, kept):
    log_in(authenticator, "ship", b"ship's")
    kept.set_password("ship", "changed")
    with pytest.raises(UnauthorizedLogin):
        log_in(authenticator, "ship", b"ship's")
    assert log_in(authenticator, "ship", b"changed") == SHIP
    kept.delete_customer("ship")
    for attempt in (
        authenticator.check_password("ship", "", b"changed"),
        authenticator.authorize("ship", "", external=False),
        authenticator.authorize("ship.cert.example", "", external=True),
    ):
        with pytest.raises(UnauthorizedLogin):
            result_of(attempt)


def test_a_customers_hash_of_another_cost_is_renewed(make, reader):
    before = reader.account(NOBODY, "ship").secrets
    assert log_in(make(cost=PasswordCost(time_cost=2, memory_kib=16)), "ship", b"ship's") == SHIP
    after = reader.account(NOBODY, "ship").secrets
    assert "m=16,t=2" in after.password_hash
    assert (after.shared, after.scram) == (before.shared, before.scram)


def test_nothing_is_derived_on_the_reactors_thread(make):
    held = HeldThreads()
    answers = []
    asked = Deferred.fromCoroutine(make(held).secret("home", SecretKind.SHARED))
    asked.addCallback(answers.append)
    assert answers == []
    held.end_one()
    assert answers == [b"h0me-p4ss"]


def test_no_secret_is_logged_or_shown(authenticator):
    events = []
    globalLogPublisher.addObserver(events.append)
    for login, password in (("Ship", b"ship's"), ("home", b"h0me-p4ss")):
        log_in(authenticator, login, password)
        with pytest.raises(UnauthorizedLogin):
            log_in(authenticator, login, b"wr0ng-p4ss")
    globalLogPublisher.removeObserver(events.append)
    shown = f"{events} {authenticator!r} {vars(authenticator)!r} {vars(authenticator.portal)!r}"
    assert not any(secret in shown for secret in ("ship's", "h0me-p4ss", "wr0ng-p4ss", "argon2id"))
