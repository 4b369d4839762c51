"""Customers as the server asks for them: both sources in one, kept up to date, clashes told in one sentence."""

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher
from zope.interface.verify import verifyObject

from mailsuite.accounts.configured import ConfiguredCustomer
from mailsuite.accounts.customer_snapshot import Customers
from mailsuite.accounts.customers import CustomersFile
from mailsuite.accounts.errors import DirectoryError
from mailsuite.interfaces import DirectoryUnavailable, ICustomers
from mailsuite.mail.address import parse_mailbox
from mailsuite.mail.customer import Customer, RecipientRule
from tests.accounts.conftest import CHEAP, HeldThreads, at_once, in_real_thread, result_of

SHIP = Customer("Ship", ("ship.example", "boat.example"), recipients=RecipientRule.LIST)
HOME = Customer("home", ("home.example",), recipients=RecipientRule.LIST, certificate="home.cert")


@pytest.fixture
def logged():
    events = []
    globalLogPublisher.addObserver(events.append)
    yield lambda level: [
        event["log_format"].format(**event)
        for event in events
        if event["log_level"] is level and event["log_namespace"].startswith("mailsuite.accounts")
    ]
    globalLogPublisher.removeObserver(events.append)


@pytest.fixture
def kept(path, directory):
    with CustomersFile(path, cost=CHEAP) as opened:
        opened.add_customer(SHIP, "s3cr3t")
        opened.add_recipients("ship", ["Captain@ship.example", "@boat.example"])
        yield opened


@pytest.fixture
def home_list(tmp_path):
    path = tmp_path / "home.list"
    path.write_text("# of the house\n\nalice@home.example\nb#b@home.example  # his\n")
    return path


@pytest.fixture
def home(home_list):
    return ConfiguredCustomer(HOME, "h0me-p4ss", home_list)


def loaded(reader, *configured, **options):
    made = Customers(reader, Clock(), in_real_thread, configured, **options)
    result_of(made.refresh())
    return made


def is_listed(made, text):
    address = parse_mailbox(text)
    customer = made.customer_of(address.domain_key)
    return customer is not None and made.is_listed(customer, address)


def test_it_provides_its_interface(reader):
    assert verifyObject(ICustomers, Customers(reader, Clock(), at_once))


def test_customers_of_both_sources_are_found(kept, reader, home):
    made = loaded(reader, home)
    assert made.customers() == (HOME, kept.customer("ship").customer)
    assert made.customer("SHIP").name == "Ship"
    assert made.customer("Home") is HOME
    assert made.customer_of("boat.example").name == "Ship"
    assert made.customer_of("home.example") is HOME
    assert [made.customer("nobody"), made.customer(""), made.customer("\udc80"), made.customer("x" * 999)] == [None] * 4
    assert [made.customer_of("x.ship.example"), made.customer_of("")] == [None, None]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("captain@ship.example", True),
        ("CAPTAIN+log@Ship.Example", True),
        ("cook@ship.example", False),
        ("+captain@ship.example", False),
        ('""@boat.example', False),
        ("anybody@boat.example", True),
        ("Postmaster@ship.example", True),  # RFC 5321 section 4.5.1
        ("postmaster@home.example", True),
        ("ALICE@home.example", True),
        ("b#b@home.example", True),
        ("bob@home.example", False),
        ("captain@else.example", False),
    ],
)
def test_lists_are_asked(kept, reader, home, text, expected):
    assert is_listed(loaded(reader, home), text) is expected


def test_a_recipient_is_on_no_other_customers_list(kept, reader, home):
    made = loaded(reader, home)
    assert not made.is_listed(HOME, parse_mailbox("captain@ship.example"))
    assert not made.is_listed(made.customer("ship"), parse_mailbox("postmaster@home.example"))


def test_the_delimiter_is_a_setting(kept, reader):
    assert is_listed(loaded(reader, delimiter="-"), "captain-x@ship.example")
    assert not is_listed(loaded(reader, delimiter="-"), "captain+x@ship.example")
    assert not is_listed(loaded(reader, delimiter=""), "captain+x@ship.example")


def test_before_the_first_reading_nothing_is_denied(kept, reader):
    made = Customers(reader, Clock(), at_once)
    for ask in (lambda: made.customer("ship"), lambda: made.customer_of("ship.example"), made.customers):
        with pytest.raises(DirectoryUnavailable, match="not been read"):
            ask()


def test_changes_are_seen_at_the_next_poll(kept, reader, clock, home, home_list):
    made = Customers(reader, clock, in_real_thread, [home])
    made.startService()
    kept.add_customer(Customer("late", ("late.example",)), None)
    kept.delete_recipients("ship", ["captain@ship.example"])
    home_list.write_text("carol@home.example\n")
    assert made.customer("late") is None
    clock.advance(1)
    assert made.customer("late").domains == ("late.example",)
    assert not is_listed(made, "captain@ship.example")
    assert is_listed(made, "carol@home.example")
    assert not is_listed(made, "alice@home.example")
    kept.delete_customer("late")
    clock.advance(1)
    assert made.customer_of("late.example") is None
    result_of(made.stopService())
    assert clock.getDelayedCalls() == []


def test_nothing_is_read_anew_while_nothing_changes(kept, reader, clock, home):
    made = Customers(reader, clock, in_real_thread, [home])
    made.startService()
    before = made.customers()
    clock.advance(5)
    assert made.customers() is before
    result_of(made.stopService())


def test_nothing_is_read_on_the_reactors_thread(kept, reader, clock, home):
    threads = HeldThreads()
    made = Customers(reader, clock, threads, [home])
    made.startService()
    clock.advance(10)
    assert len(threads.waiting) == 1
    with pytest.raises(DirectoryUnavailable):
        made.customers()
    threads.end_one()
    assert made.customer("home") is HOME
    stopped = made.stopService()
    threads.end_one()
    assert stopped.called


# ------------------------------------------------------------------------------------------------- clashes


CLASHES = {
    "name": (Customer("SHIP", ("new.example",)), r"'SHIP' logs in the customer 'SHIP' of the configuration and 'Ship'"),
    "certificate": (
        Customer("x", ("new.example",), certificate="ship"),
        r"'ship' logs in the customer 'x' of the conf",
    ),
    "account": (Customer("alice@example.org", ("new.example",)), r"the account alice@example.org as well"),
    "bare account": (Customer("Alice", ("new.example",)), r"the account alice@example.org as well"),
    "domain": (Customer("x", ("boat.example",)), r"boat.example is held for 'x' .* and for 'Ship' .*--del-domain boat"),
    "local": (Customer("x", ("example.org",)), r"example.org is held for 'x' .*mailsuite domain del example.org"),
}


@pytest.mark.parametrize("case", CLASHES)
def test_what_two_have_is_told_at_the_start(kept, directory, reader, case):
    directory.add_user("alice@example.org", None)
    customer, reason = CLASHES[case]
    made = Customers(reader, Clock(), in_real_thread, [ConfiguredCustomer(customer)], default_domain="example.org")
    with pytest.raises(DirectoryUnavailable, match=reason) as raised:
        result_of(made.refresh())
    assert "\n" not in str(raised.value)


def test_two_of_the_configuration_cannot_share_a_certificate(kept, reader, home):
    other = ConfiguredCustomer(Customer("x", ("new.example",), certificate="HOME"))
    with pytest.raises(DirectoryUnavailable, match="'HOME' logs in both 'home' and 'x'"):
        loaded(reader, home, other)


def test_a_clash_that_comes_later_leaves_in_force_what_was_there(kept, reader, clock, home, logged):
    made = Customers(reader, clock, in_real_thread, [home])
    made.startService()
    kept.add_customer(Customer("HOME", ("other.example",)), None)
    for _ in range(3):
        clock.advance(1)
    assert made.customer("home") is HOME
    assert made.customer_of("other.example") is None
    [line] = logged(LogLevel.error)
    assert line.endswith("what was read last stays in force")
    kept.delete_customer("HOME")
    clock.advance(1)
    assert len(made.customers()) == 2
    assert logged(LogLevel.info)
    result_of(made.stopService())


# --------------------------------------------------------------------------------------------- files of lists


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"alice\n", r"home.list, line 1: 'alice' is not an address"),
        (b"alice@home.example\nbob@else.example\n", r"has recipients in else.example, which is no domain of the"),
        (b"\xff\xfe", r"home.list cannot be read"),
        (None, r"home.list cannot be read"),
    ],
)
def test_a_list_with_a_fault_is_told_and_the_last_good_one_stays(
    kept, reader, clock, home, home_list, logged, content, reason
):
    made = Customers(reader, clock, in_real_thread, [home])
    made.startService()
    if content is None:
        home_list.unlink()
    else:
        home_list.write_bytes(content)
    kept.add_customer(Customer("late", ("late.example",)), None)
    with pytest.raises(DirectoryUnavailable, match=reason):
        result_of(made.refresh())
    for _ in range(3):
        clock.advance(1)
    assert len(logged(LogLevel.error)) == 1
    assert is_listed(made, "alice@home.example")
    assert made.customer("late") is None
    home_list.write_text("@home.example\n")
    clock.advance(1)
    assert is_listed(made, "anybody@home.example")
    assert made.customer("late") is not None  # what came meanwhile is not forgotten
    result_of(made.stopService())


def test_an_empty_list_has_nobody_but_the_postmaster(kept, reader, home, home_list):
    home_list.write_text("")
    assert not is_listed(loaded(reader, home), "alice@home.example")
    assert is_listed(loaded(reader, home), "postmaster@home.example")


@pytest.mark.parametrize(
    ("customer", "options", "reason"),
    [
        (Customer("\u2168", ("x.example",)), {}, "SASLprep"),
        (Customer("x", ("x.example",), certificate=" "), {}, "not a name in a certificate"),
        (Customer("x", ("x.example",)), {"password": ""}, r"^customer 'x': the password is empty; choose another"),
        (Customer("x", ("x.example",)), {"password": "tab\there"}, "cannot be sent by every client"),
        (HOME, {}, r"customer 'home': recipients = \"list\" needs recipients_file; name the file"),
    ],
)
def test_a_configured_customer_that_cannot_be_is_refused_in_a_sentence(customer, options, reason):
    with pytest.raises(DirectoryError, match=reason) as raised:
        ConfiguredCustomer(customer, **options)
    assert "tab" not in str(raised.value)


def test_a_configured_password_is_in_no_repr(home, kept, reader, logged):
    made = loaded(reader, home)
    assert "h0me-p4ss" not in f"{home!r} {made!r} {vars(made)!r}"
    assert not any("h0me-p4ss" in line for line in logged(LogLevel.error))
