"""What the settings of on-demand mail relay become: customers, and what each listener offers."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from twisted.internet.testing import MemoryReactorClock

from mailsuite.accounts.customer_rows import Version
from mailsuite.accounts.customers import CustomersFile
from mailsuite.accounts.reader import Snapshot
from mailsuite.config import Settings
from mailsuite.mail.customer import Customer, RecipientRule
from mailsuite.service import StartError, preflight
from mailsuite.service.doors import make_door, offers
from mailsuite.service.on_demand import configured_customers, on_demand_settings
from mailsuite.service.parts import Parts

SHIP = {"name": "ship", "domains": ["ship.example"], "password": "open sesame"}


def settings_of(directory: Path, *customers, on_demand=None, **listen) -> Settings:
    table = {
        "hostname": "mail.example",
        "listen": [{"endpoint": "tcp:0", **listen}],
        "customer": list(customers),
        "on_demand": on_demand or {},
    }
    return Settings.parse(table, "m.toml", directory)


def offered(directory: Path, on_demand=None, **listen):
    settings = settings_of(directory, on_demand=on_demand, **listen)
    return offers(settings, settings.listen[0])


def test_on_demand_mail_relay_takes_logins_before_tls_that_show_no_password(tmp_path) -> None:
    plain, secure = offered(tmp_path, service="odmr")
    assert (plain.odmr, plain.atrn, plain.turn, plain.etrn, plain.starttls) == (True, True, False, False, True)
    assert plain.mechanisms == (b"SCRAM-SHA-256", b"CRAM-MD5")
    assert (secure.odmr, secure.atrn, secure.starttls) == (True, True, False)
    assert b"PLAIN" in secure.mechanisms


def test_login_is_there_whatever_else_is(tmp_path) -> None:
    plain, _ = offered(tmp_path, service="odmr", tls="none", auth=False)
    assert b"CRAM-MD5" in plain.mechanisms


@pytest.mark.parametrize(("atrn", "offer"), [(False, (False, False)), (True, (False, True))])
def test_submission_offers_it_under_tls_where_that_is_wanted(tmp_path, atrn, offer) -> None:
    plain, secure = offered(tmp_path, service="submission", atrn=atrn)
    assert (plain.atrn, secure.atrn) == offer
    assert (plain.odmr, secure.odmr, secure.etrn) == (False, False, False)


@pytest.mark.parametrize(("service", "turn"), [("odmr", True), ("submission", True), ("smtp", False)])
def test_turn_is_there_where_it_is_wanted(tmp_path, service, turn) -> None:
    _, secure = offered(tmp_path, {"turn": True}, service=service, atrn=True)
    assert secure.turn is turn


@pytest.mark.parametrize(
    ("service", "etrn", "there"),
    [("smtp", "customers", True), ("smtp", "none", False), ("lmtp", "any", False), ("submission", "any", False)],
)
def test_where_etrn_is(tmp_path, service, etrn, there) -> None:
    plain, secure = offered(tmp_path, {"etrn": etrn}, service=service)
    assert (plain.etrn, secure.etrn) == (there, there)


def test_who_may_ask_by_etrn_and_how_long_a_turn_is(tmp_path) -> None:
    table = {"etrn": "any", "etrn_networks": ["192.0.2.0/24"], "etrn_interval": "5m", "turn_messages": 7}
    made = on_demand_settings(settings_of(tmp_path, on_demand=table))
    assert (made.etrn.who, str(made.etrn.networks[0]), made.etrn.interval) == ("any", "192.0.2.0/24", 300.0)
    assert made.turn_messages == 7


@pytest.mark.parametrize("service", ["smtp", "submission", "odmr"])
def test_every_door_knows_the_customers_and_their_quotas(tmp_path, service) -> None:
    settings = settings_of(tmp_path, SHIP, service=service)
    parts = Parts(settings, MemoryReactorClock(), [].append)
    door = make_door(settings.listen[0], parts, SimpleNamespace(decoy_key=b"decoy", tls=None))
    assert door.customers is parts.customers
    assert door.quota is parts.quota


@pytest.mark.parametrize(("customers", "told"), [((), "AUTH PLAIN LOGIN"), ((SHIP,), "AUTH SCRAM-SHA-256 CRAM-MD5 ")])
def test_mechanisms_are_offered_that_somebody_can_use(tmp_path, customers, told) -> None:
    settings = settings_of(tmp_path, *customers, service="submission")
    parts = Parts(settings, MemoryReactorClock(), [].append)
    parts.directory._take(Snapshot(Version(1, 1), frozenset(), {}))  # noqa: SLF001 - as if it had read its file
    door = make_door(settings.listen[0], parts, SimpleNamespace(decoy_key=b"decoy", tls=None))
    (line,) = [line for line in door.secure_offer.ehlo_reply("a").lines if line.startswith("AUTH")]
    assert line.startswith(told)
    assert b"CRAM-MD5" in door.secure_offer.mechanisms


def test_customers_with_their_passwords_and_lists(tmp_path) -> None:
    data = tmp_path / "mailsuite-data"
    data.mkdir()
    (data / "secret").write_text("from a file\nand more\n")
    farm = {"name": "farm", "domains": ["farm.example"], "password_file": "secret"}
    listed = {"recipients": "list", "recipients_file": "users"}
    ship, other = configured_customers(settings_of(tmp_path, {**SHIP, **listed}, farm))
    assert (ship.password, ship.recipients_file) == ("open sesame", data / "users")
    assert ship.customer.recipients is RecipientRule.LIST
    assert other.password == "from a file"


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ({"name": "farm", "domains": ["farm.example"], "password_file": "nowhere"}, "customer farm: password_file"),
        ({**SHIP, "recipients": "list"}, "recipients_file"),
        (
            {**SHIP, "recipients": "list", "recipients_file": "/nowhere/users"},
            "the recipients in /nowhere/users cannot be read: no such file or directory",
        ),
        (
            {**SHIP, "recipients": "command", "recipients_command": ["/nowhere/it"]},
            "customer ship: recipients_command: there is no program '/nowhere/it'; put it there",
        ),
        (
            {**SHIP, "recipients": "command", "recipients_command": ["no-such-program"]},
            "no program 'no-such-program' on the PATH",
        ),
        ({**SHIP, "recipients": "command", "recipients_command": [__file__]}, "may not be run by this user"),
        ({**SHIP, "recipients": "command", "recipients_command": ["/tmp"]}, "'/tmp' is a directory"),
        ({"name": "two words", "domains": ["a.example"]}, "letters, digits and any of . _ - @"),
    ],
)
def test_what_is_wrong_with_a_customer_is_told_before_the_start(tmp_path, table, reason) -> None:
    with pytest.raises(StartError, match=reason):
        preflight(settings_of(tmp_path, table))


def test_a_password_file_without_a_password_is_told_before_the_start(tmp_path) -> None:
    secret = tmp_path / "secret"
    farm = {"name": "farm", "domains": ["farm.example"], "password_file": str(secret)}
    secret.write_text("\nbelow\n")
    with pytest.raises(StartError, match=r"customer farm: the first line of password_file .*secret is empty"):
        preflight(settings_of(tmp_path, farm))
    secret.unlink()
    with pytest.raises(StartError) as raised:
        preflight(settings_of(tmp_path, farm))
    assert str(raised.value).count(str(secret)) == 1
    assert "cannot be read: no such file or directory; write the password into" in str(raised.value)


@pytest.fixture
def directory(tmp_path):
    """The directory of accounts of these settings, with the customer SHIP's name and domain given by command."""
    (tmp_path / "mailsuite-data").mkdir()
    with CustomersFile(tmp_path / "mailsuite-data" / "accounts.db", create=True) as customers:
        customers.add_customer(Customer("kept", ("kept.example",)), None)
    return tmp_path


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ({"name": "Kept", "domains": ["new.example"]}, "'Kept' logs in the customer 'Kept' of the configuration and"),
        ({"name": "new", "domains": ["kept.example"]}, "kept.example is held for 'new' in the configuration and for"),
    ],
)
def test_what_is_kept_by_command_too_is_told_before_the_start(directory, table, reason) -> None:
    preflight(settings_of(directory, SHIP))
    with pytest.raises(StartError, match=reason) as raised:
        preflight(settings_of(directory, SHIP, table))
    assert "; " in str(raised.value)
    assert "run this as" not in str(raised.value)


def test_two_customers_of_the_configuration_with_one_login_are_told_before_the_start(tmp_path) -> None:
    farm = {"name": "farm", "domains": ["farm.example"], "certificate": "ship"}
    with pytest.raises(StartError, match="'ship' logs in both 'ship' and 'farm'"):
        preflight(settings_of(tmp_path, SHIP, farm))


def test_accounts_that_cannot_be_read_are_told_before_the_start(directory) -> None:
    accounts = directory / "mailsuite-data" / "accounts.db"
    accounts.write_bytes(b"SQLite format 3\0" + b"junk" * 1000)
    with pytest.raises(StartError, match=r"accounts\.db cannot be read: .*; run this as the user who serves"):
        preflight(settings_of(directory))
    accounts.write_bytes(b"")  # which a server fills when it starts
    preflight(settings_of(directory))
    assert accounts.read_bytes() == b""
