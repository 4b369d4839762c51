"""The directory as the server asks it: look-ups from memory, kept up to date by the clock."""

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher
from zope.interface.verify import verifyObject

from mailsuite.accounts.customers import CustomersFile
from mailsuite.accounts.snapshot import Directory
from mailsuite.interfaces import DirectoryUnavailable, IDirectory
from mailsuite.mail.address import Address, parse_mailbox
from mailsuite.mail.customer import Customer
from mailsuite.mail.session import SecretKind
from tests.accounts.conftest import HeldThreads, at_once, in_real_thread, result_of

ALICE = Address("alice", "example.org")
BOB = Address("bob", "example.net")


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
def furnished(directory):
    directory.add_user("alice@example.org", None, further=["sales@example.org", "a+b@example.org"])
    directory.add_alias("info@example.org", ["bob@example.net", "alice@example.org"])
    directory.add_alias("alice+list@example.org", ["list@example.net"])
    return directory


def loaded(reader, **options):
    made = Directory(reader, Clock(), in_real_thread, **options)
    result_of(made.refresh())
    return made


def address(text):
    return parse_mailbox(text) or Address(text, "")


def what_is(made, text):
    """What an address is: its mailbox or the targets of its alias, never both."""
    mailbox, alias = made.mailbox(address(text)), made.alias(address(text))
    assert mailbox is None or alias is None
    return mailbox if alias is None else [str(target) for target in alias]


def test_it_provides_its_interface(reader):
    assert verifyObject(IDirectory, Directory(reader, Clock(), at_once))


def test_it_knows_which_secrets_are_kept(directory, reader):
    made = Directory(reader, Clock(), in_real_thread)
    assert made.kinds == set(SecretKind)
    directory.add_user("alice@example.org", "secret")
    result_of(made.refresh())
    assert made.kinds == set()
    directory.add_user("carol@example.org", "secret", keep=[SecretKind.SCRAM_SHA_256])
    result_of(made.refresh())
    assert made.kinds == {SecretKind.SCRAM_SHA_256}
    directory.set_enabled("carol@example.org", enabled=False)
    with CustomersFile(reader.path) as customers:
        customers.add_customer(Customer("ship", ("ship.example",)), "secret", keep=[SecretKind.SHARED])
    result_of(made.refresh())
    assert made.kinds == {SecretKind.SHARED}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("alice@example.org", ALICE),
        ("ALICE@Example.ORG", ALICE),
        ('"alice"@example.org', ALICE),
        ("sales@example.org", ALICE),
        ("alice+anything@example.org", ALICE),
        ("Alice+One+Two@example.org", ALICE),
        ("sales+x@example.org", ALICE),
        ("a+b@example.org", ALICE),
        ("info@example.org", ["alice@example.org", "bob@example.net"]),
        ("info+x@example.org", ["alice@example.org", "bob@example.net"]),
        ("alice+list@example.org", ["list@example.net"]),
        ("a@example.org", None),
        ("+alice@example.org", None),
        ('""@example.org', None),
        ("bob@example.org", None),
        ("alice@example.net", None),
        ("postmaster@example.org", None),
        ("postmaster", None),
    ],
)
def test_an_address_is_a_mailbox_or_an_alias_or_nothing(furnished, reader, text, expected):
    assert what_is(loaded(reader), text) == expected


def test_the_delimiter_is_a_setting(furnished, reader):
    dashes = loaded(reader, delimiter="-")
    assert what_is(dashes, "alice-x@example.org") == ALICE
    assert what_is(dashes, "alice+x@example.org") is None
    none = loaded(reader, delimiter="")
    assert what_is(none, "alice+x@example.org") is None
    assert what_is(none, "alice@example.org") == ALICE


def test_a_catch_all_takes_what_nobody_else_has(furnished, reader):
    furnished.add_domain("example.net")
    furnished.add_alias("@example.org", ["rest@example.com"])
    furnished.change_addresses("alice@example.org", add=["@example.net"])
    made = loaded(reader, postmaster=ALICE)
    assert what_is(made, "nobody@example.org") == ["rest@example.com"]
    assert what_is(made, "nobody+x@example.org") == ["rest@example.com"]
    assert what_is(made, '""@example.org') == ["rest@example.com"]
    assert what_is(made, "postmaster@example.org") == ["rest@example.com"]
    assert what_is(made, "alice+x@example.org") == ALICE
    assert what_is(made, "anybody@example.net") == ALICE


def test_domains_are_local_as_they_are_listed(furnished, reader):
    furnished.add_domain("bücher.example")
    made = loaded(reader)
    assert made.is_local_domain("example.org")
    assert made.is_local_domain("xn--bcher-kva.example")
    assert not made.is_local_domain("example.net")
    assert made.is_local_domain("")  # <postmaster>
    furnished.add_user("jürgen@bücher.example", None)
    result_of(made.refresh())
    assert what_is(made, "JÜRGEN@BÜCHER.example") == Address("jürgen", "xn--bcher-kva.example")
    assert what_is(made, "ju\u0308rgen@xn--bcher-kva.example") == Address("jürgen", "xn--bcher-kva.example")


@pytest.mark.parametrize(
    "text", ["postmaster@example.org", "POSTMASTER@Example.org", "Postmaster", "postmaster+x@example.org"]
)
def test_the_postmaster_is_always_there(furnished, reader, text):
    # RFC 5321 section 4.5.1
    assert what_is(loaded(reader, postmaster=ALICE), text) == ["alice@example.org"]


def test_a_postmaster_of_the_domain_comes_first(furnished, reader):
    furnished.add_alias("postmaster@example.org", ["bob@example.net"])
    made = loaded(reader, postmaster=ALICE)
    assert what_is(made, "Postmaster@example.org") == ["bob@example.net"]
    assert what_is(made, "postmaster") == ["alice@example.org"]
    assert what_is(made, "postmaster@example.com") is None


def test_a_postmaster_that_leads_to_itself_is_none(furnished, reader):
    made = loaded(reader, postmaster=Address("postmaster", "example.org"))
    assert what_is(made, "postmaster@example.org") is None
    assert what_is(made, "postmaster") == ["postmaster@example.org"]


def test_a_local_postmaster_without_a_mailbox_is_told_once(furnished, reader, logged):
    made = loaded(reader, postmaster=Address("admin", "example.org"))
    furnished.add_domain("example.net")
    result_of(made.refresh())
    [line] = logged(LogLevel.warn)
    assert "mailsuite user add admin@example.org" in line


# --------------------------------------------------------------------------------------- keeping up to date


def test_before_the_first_reading_nothing_is_denied(furnished, reader):
    made = Directory(reader, Clock(), at_once)
    for ask in (made.mailbox, made.alias):
        with pytest.raises(DirectoryUnavailable, match="not been read"):
            ask(ALICE)
    with pytest.raises(DirectoryUnavailable):
        made.is_local_domain("example.org")


def test_changes_are_seen_at_the_next_poll(furnished, reader, clock):
    made = Directory(reader, clock, in_real_thread)
    made.startService()
    assert what_is(made, "alice@example.org") == ALICE
    furnished.add_user("carol@example.org", None)
    furnished.delete_alias("info@example.org")
    assert what_is(made, "carol@example.org") is None
    clock.advance(1)
    assert what_is(made, "carol@example.org") == Address("carol", "example.org")
    assert what_is(made, "info@example.org") is None
    result_of(made.stopService())
    assert clock.getDelayedCalls() == []


def test_a_refresh_need_not_wait_for_the_poll(furnished, reader, clock):
    made = Directory(reader, clock, in_real_thread)
    made.startService()
    furnished.add_domain("example.net")
    result_of(made.refresh())
    assert made.is_local_domain("example.net")
    result_of(made.stopService())


def test_a_directory_that_is_not_there_at_first_is_made(path, reader, clock):
    made = Directory(reader, clock, in_real_thread)
    made.startService()
    assert path.stat().st_mode & 0o777 == 0o600
    assert not made.is_local_domain("example.org")
    result_of(made.stopService())


def test_nothing_is_read_on_the_reactors_thread(furnished, reader, clock):
    threads = HeldThreads()
    made = Directory(reader, clock, threads)
    made.startService()
    with pytest.raises(DirectoryUnavailable):
        made.mailbox(ALICE)
    clock.advance(10)  # a slow disk: one poll at a time
    assert len(threads.waiting) == 1
    threads.end_one()
    assert what_is(made, "alice@example.org") == ALICE
    clock.advance(1)
    stopped: Deferred[None] = made.stopService()
    assert not stopped.called  # a poll is under way
    while threads.waiting:
        threads.end_one()
    assert stopped.called
    assert clock.getDelayedCalls() == []


def test_while_the_file_is_gone_the_last_state_stays_in_force(furnished, path, reader, clock, logged):
    made = Directory(reader, clock, in_real_thread)
    made.startService()
    furnished.close()
    hidden = path.with_name("hidden")
    path.rename(hidden)
    for _ in range(5):
        clock.advance(1)
    assert what_is(made, "alice@example.org") == ALICE
    [line] = logged(LogLevel.error)
    assert "cannot be read" in line
    assert "stays in force" in line
    hidden.rename(path)
    clock.advance(1)
    assert len(logged(LogLevel.error)) == 1
    assert [line for line in logged(LogLevel.info) if "can be read again" in line]
    result_of(made.stopService())


def test_a_refresh_tells_that_the_file_cannot_be_read(path, reader, clock, logged):
    path.write_text("no database" * 100)
    made = Directory(reader, clock, in_real_thread)
    with pytest.raises(DirectoryUnavailable, match="not a database"):
        result_of(made.refresh())
    made.startService()
    clock.advance(1)
    [line] = logged(LogLevel.error)
    assert line.endswith("no address is known")
    path.unlink()
    clock.advance(1)
    assert not made.is_local_domain("example.org")
    result_of(made.stopService())


def test_a_defect_does_not_end_the_polling(furnished, reader, clock, logged):
    broken = [True]

    def in_thread(function, *arguments):
        return at_once(divmod, 1, 0) if broken else at_once(function, *arguments)

    made = Directory(reader, clock, in_thread)
    made.startService()
    assert logged(LogLevel.critical) == ["the directory of accounts could not be read"]
    broken.clear()
    clock.advance(1)
    assert what_is(made, "alice@example.org") == ALICE
    result_of(made.stopService())


def test_a_service_that_was_never_started_can_be_stopped(reader, clock):
    made = Directory(reader, clock, at_once)
    assert result_of(made.stopService()) is None


def test_a_service_that_was_stopped_starts_again(furnished, reader, clock):
    made = Directory(reader, clock, in_real_thread)
    for _ in range(2):
        made.startService()
        assert what_is(made, "alice@example.org") == ALICE
        result_of(made.stopService())
