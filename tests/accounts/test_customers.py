"""Customers, edited: what is kept, what is refused and why, nothing half done, nothing told."""

from dataclasses import replace
from ipaddress import ip_network

import pytest

from mailsuite.accounts.configured import Configured
from mailsuite.accounts.customers import CustomersFile
from mailsuite.accounts.directory import DirectoryFile
from mailsuite.accounts.errors import DirectoryError
from mailsuite.accounts.schema import MIGRATIONS, connect_for_editing
from mailsuite.mail.address import Address
from mailsuite.mail.customer import Customer, RecipientRule
from mailsuite.mail.session import SecretKind
from tests.accounts.conftest import CHEAP

SHIP = Customer("ship", ("ship.example",))
WHOLE = Customer(
    "Café-2",
    ("a.example", "b.example"),
    certificate="cafe.example.net",
    networks=(ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")),
    contact=Address("admin", "example.net"),
    hold_time=3600.0,
    warning_time=60.5,
    max_messages=10,
    max_octets=2**40,
    pipelining=False,
    turn_interval=5.0,
    shared_turns=True,
    next_hop="[2001:db8::1]:2525",
    recipients=RecipientRule.COMMAND,
    recipients_command=("/bin/exists", "--quiet, please"),
)
CONFIGURED = Configured((Customer("Home", ("home.example",), certificate="home.cert"),), "example.org")


@pytest.fixture
def customers(path, directory):
    """The same file, open for editing customers; the directory has the local domain example.org."""
    with CustomersFile(path, cost=CHEAP, configured=CONFIGURED) as opened:
        opened.add_customer(SHIP, "s3cr3t", keep=list(SecretKind))
        yield opened


def test_every_term_is_kept(customers):
    assert customers.add_customer(WHOLE, None) == WHOLE
    kept = customers.customer("CAFÉ-2")
    assert (kept.customer, kept.has_password, kept.kinds, kept.recipients) == (WHOLE, False, frozenset(), 0)
    assert [one.customer.name for one in customers.customers()] == ["Café-2", "ship"]


def test_defaults_are_those_of_the_value(customers):
    assert customers.customer("ship").customer == SHIP
    assert customers.customer("ship").kinds == frozenset(SecretKind)


def test_domains_are_kept_as_they_are_looked_up(customers):
    assert customers.add_customer(Customer("x", ("Z.EXAMPLE", "bücher.example")), None).domains == (
        "xn--bcher-kva.example",
        "z.example",
    )


@pytest.mark.parametrize(
    ("customer", "reason"),
    [
        (replace(SHIP, domains=("new.example",)), r"there is a customer 'ship' already; change it"),
        (Customer("SHIP", ("new.example",)), r"there is a customer 'ship' already"),
        (Customer("home", ("new.example",)), r"'home' logs in the customer 'Home' of the configuration"),
        (Customer("HOME.cert", ("new.example",)), r"logs in the customer 'Home' of the configuration"),
        (Customer("alice@EXAMPLE.org", ("new.example",)), r"logs in the account alice@example.org already"),
        (Customer("Alice", ("new.example",)), r"logs in the account alice@example.org already"),
        (Customer("x", ("new.example",), certificate="alice@example.org"), r"logs in the account alice@example.org"),
        (Customer("x", ("new.example",), certificate="SHIP"), r"logs in the customer 'ship' already"),
        (Customer("x", ("SHIP.example",)), r"held for the customer 'ship'; take it away .*--del-domain ship.example"),
        (Customer("x", ("home.example",)), r"held for the customer 'Home' of the configuration"),
        (Customer("x", ("example.org",)), r"a local domain; delete it with `mailsuite domain del example.org`"),
        (Customer("x", ("new.example", "NEW.example")), r"given twice"),
        (Customer("x", ()), r"has no domain"),
        (Customer("x", ("no domain",)), r"not a domain name"),
        (Customer("", ("new.example",)), r"1 to 64 letters, digits"),
        (Customer("x" * 65, ("new.example",)), r"1 to 64 letters, digits"),
        (Customer("x\udc80", ("new.example",)), r"cannot name a customer"),
        (Customer("x y", ("new.example",)), r"letters, digits and any of"),
        (Customer("x\n", ("new.example",)), r"cannot name a customer"),
        (Customer("-x", ("new.example",)), r"cannot name a customer"),
        (Customer("\u2168", ("new.example",)), r"SASLprep"),
        (Customer("x", ("new.example",), certificate=""), r"not a name in a certificate"),
        (Customer("x", ("new.example",), recipients=RecipientRule.COMMAND), r"give one with --recipients-command"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(customers, directory, customer, reason):
    directory.add_user("alice@example.org", None)
    before = customers.customers()
    with pytest.raises(DirectoryError, match=reason) as raised:
        customers.add_customer(customer, "secret")
    assert "\n" not in str(raised.value)
    assert customers.customers() == before


def test_a_certificate_may_have_the_name_of_its_customer(customers):
    assert customers.change_customer("ship", {"certificate": "Ship"}).certificate == "Ship"


def test_two_customers_cannot_share_a_certificate(customers):
    customers.add_customer(WHOLE, None)
    with pytest.raises(DirectoryError, match="logs in the customer 'Café-2' already"):
        customers.change_customer("ship", {"certificate": "CAFE.example.net"})


def test_an_account_cannot_have_what_logs_in_a_customer(customers, path):
    customers.add_customer(Customer("bob@example.org", ("bob.example",), certificate="Carol@example.org"), None)
    with DirectoryFile(path, cost=CHEAP, configured=CONFIGURED) as directory:
        for address in ("bob@example.org", "CAROL@example.org", "ship@example.org", "home@example.org"):
            with pytest.raises(DirectoryError, match="logs in the customer"):
                directory.add_user(address, "secret")
        directory.add_user("dave@example.org", None)
        with pytest.raises(DirectoryError, match="logs in the customer"):
            directory.change_addresses("dave@example.org", add=["bob@example.org"])


def test_a_held_domain_cannot_become_local(customers, path):
    with DirectoryFile(path, configured=CONFIGURED) as directory:
        with pytest.raises(DirectoryError, match=r"held for the customer 'ship'.*mailsuite customer set"):
            directory.add_domain("Ship.Example")
        with pytest.raises(DirectoryError, match=r"held for the customer 'Home' of the configuration"):
            directory.add_domain("home.example")
        customers.change_customer("ship", {}, add_domains=["other.example"], delete_domains=["ship.example"])
        assert directory.add_domain("ship.example") == "ship.example"


def test_only_what_is_named_changes(customers):
    changed = customers.change_customer("SHIP", {"hold_time": 5.0, "networks": WHOLE.networks})
    assert changed == replace(SHIP, hold_time=5.0, networks=WHOLE.networks)
    assert customers.change_customer("ship", {"networks": ()}) == replace(SHIP, hold_time=5.0)
    assert customers.customer("ship").kinds == frozenset(SecretKind)


def test_a_change_that_is_refused_changes_nothing(customers):
    for add, delete in ((["example.org"], ()), (["new.example"], ["none.example"]), ((), ["ship.example"])):
        with pytest.raises(DirectoryError):
            customers.change_customer("ship", {"hold_time": 1.0}, add_domains=add, delete_domains=delete)
    assert customers.customer("ship").customer == SHIP


@pytest.mark.parametrize("name", ["nobody", "", "\udc80", "x" * 1000])
def test_a_customer_that_is_not_there_is_named(customers, name):
    for do in (
        lambda: customers.customer(name),
        lambda: customers.change_customer(name, {"hold_time": 1.0}),
        lambda: customers.delete_customer(name),
        lambda: customers.set_password(name, "x"),
        lambda: customers.add_recipients(name, []),
    ):
        with pytest.raises(DirectoryError, match="there is no customer"):
            do()


def test_a_customer_of_the_configuration_is_changed_there(customers):
    with pytest.raises(DirectoryError, match=r"'Home' stands in the configuration; change its \[\[customer\]\] table"):
        customers.delete_customer("home")


def test_a_password_is_changed_and_the_kinds_are_kept(customers, reader):
    before = reader.account(("", ""), "ship").secrets
    assert customers.set_password("Ship", "another").kinds == frozenset(SecretKind)
    after = reader.account(("", ""), "ship").secrets
    assert (before.shared, after.shared) == (b"s3cr3t", b"another")
    assert before.password_hash != after.password_hash
    assert customers.set_password("ship", "third", keep=()).kinds == frozenset()


def test_a_deleted_customer_leaves_nothing_in_the_file(customers, directory, path):
    customers.add_recipients("ship", ["captain@ship.example"])
    assert customers.delete_customer("SHIP") == "ship"
    assert customers.customers() == []
    directory.close()
    customers.close()
    octets = b"".join(one.read_bytes() for one in path.parent.glob("accounts.db*"))
    assert b"s3cr3t" not in octets
    assert b"captain" not in octets
    with CustomersFile(path) as again:
        again.add_customer(SHIP, None)
        assert again.recipients("ship") == []


def test_no_secret_is_in_a_repr(customers, reader):
    text = f"{customers.customer('ship')!r} {reader.account(('', ''), 'ship')!r}"
    assert "s3cr3t" not in text
    assert "argon2" not in text


# ----------------------------------------------------------------------------------------------- recipients


def test_recipients_are_added_listed_and_deleted(customers):
    assert customers.add_recipients("ship", ["Captain@SHIP.example", "cook@ship.example", "cook@ship.example"]) == 2
    assert customers.add_recipients("ship", ["captain@ship.example", "@ship.example"]) == 1
    assert customers.recipients("ship") == ["@ship.example", "captain@ship.example", "cook@ship.example"]
    customers.delete_recipients("ship", ["CAPTAIN@ship.example", "@ship.example"])
    assert customers.recipients("ship") == ["cook@ship.example"]
    assert customers.customer("ship").recipients == 1


def test_a_list_is_replaced_whole(customers):
    customers.add_recipients("ship", ["captain@ship.example", "cook@ship.example"])
    assert customers.add_recipients("ship", ["cook@ship.example", "mate@ship.example"], only=True) == 1
    assert customers.recipients("ship") == ["cook@ship.example", "mate@ship.example"]


def test_recipients_are_all_taken_or_none(customers):
    customers.add_customer(WHOLE, None)
    customers.add_recipients("Café-2", ["one@a.example"])
    for strange, reason in (("x@else.example", "in no domain of 'ship'"), ("not an address", "not an address")):
        with pytest.raises(DirectoryError, match=reason):
            customers.add_recipients("ship", ["cook@ship.example", strange], only=True)
    with pytest.raises(DirectoryError, match=r"one@a.example is not on the list of 'ship'"):
        customers.delete_recipients("ship", ["one@a.example"])
    assert customers.recipients("ship") == []
    assert customers.recipients("Café-2") == ["one@a.example"]


def test_recipients_go_with_their_domain_and_stay_with_those_that_are_kept(customers):
    customers.change_customer("ship", {}, add_domains=["second.example"])
    customers.add_recipients("ship", ["one@ship.example", "two@second.example"])
    customers.change_customer("ship", {"hold_time": 1.0}, delete_domains=["second.example"])
    assert customers.recipients("ship") == ["one@ship.example"]
    customers.add_customer(Customer("other", ("second.example",)), None)
    assert customers.recipients("other") == []


# ------------------------------------------------------------------------------------------------ migration


def test_a_file_of_before_customers_is_brought_up_to_date(path, monkeypatch):
    monkeypatch.setattr("mailsuite.accounts.schema.MIGRATIONS", MIGRATIONS[:1])
    old = connect_for_editing(path, create=True)
    old.execute("INSERT INTO domains VALUES ('example.org')")
    old.close()
    monkeypatch.undo()
    with CustomersFile(path, cost=CHEAP) as customers:
        assert customers.add_customer(SHIP, "x") == SHIP
    with DirectoryFile(path) as directory:
        assert [one.name for one in directory.domains()] == ["example.org"]


def test_each_directory_has_its_own_key_for_salts(tmp_path):
    keys = set()
    for name in ("one.db", "two.db"):
        db = connect_for_editing(tmp_path / name, create=True)
        [(key,)] = db.execute("SELECT key FROM salt_key")
        db.close()
        keys.add(key)
    assert len(keys) == 2
    assert {len(key) for key in keys} == {32}
