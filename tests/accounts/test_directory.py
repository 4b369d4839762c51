"""The directory, edited: what each function does, and that every mistake is a sentence that changes nothing."""

import re
import sqlite3

import pytest

from mailsuite.accounts.directory import DirectoryFile
from mailsuite.accounts.errors import DirectoryError
from mailsuite.accounts.names import key_of
from mailsuite.accounts.records import Alias, Domain, User
from mailsuite.mail.address import Address, parse_mailbox
from mailsuite.mail.session import SecretKind
from tests.accounts.conftest import CHEAP

BOTH = frozenset(SecretKind)


@pytest.fixture
def stored(path, reader):
    """The account that has an address, as the server reads it."""
    return lambda text: reader.account(key_of(parse_mailbox(text)))


def test_domains_are_added_listed_and_deleted(directory):
    assert directory.add_domain("Bücher.example") == "xn--bcher-kva.example"
    assert directory.domains() == [Domain("example.org", 0, 0), Domain("xn--bcher-kva.example", 0, 0)]
    assert directory.delete_domain("EXAMPLE.org") == "example.org"
    assert directory.domains() == [Domain("xn--bcher-kva.example", 0, 0)]


def test_a_user_has_a_main_address_and_further_ones(directory, stored):
    directory.add_domain("example.net")
    added = directory.add_user("Alice@Example.org", "secret", further=["Sales@example.org", "@example.net"])
    assert added == "alice@example.org"
    expected = User("alice@example.org", ("@example.net", "sales@example.org"), True, True, frozenset())
    assert directory.users() == [expected]
    assert directory.user("ALICE@example.org") == expected
    identity = stored("sales@example.org").identity
    assert identity.name == "alice@example.org"
    assert identity.addresses == {"alice@example.org", "sales@example.org", "@example.net"}
    assert identity.may_send_as(Address("anyone", "EXAMPLE.net"))
    assert directory.domains() == [Domain("example.net", 1, 0), Domain("example.org", 1, 0)]


def test_a_quoted_address_is_listed_as_it_is_written(directory, stored):
    assert directory.add_user('"John Smith"@example.org', None) == '"john smith"@example.org'
    assert directory.user('"john smith"@example.org').address == '"john smith"@example.org'
    assert stored('"JOHN SMITH"@example.org').identity.may_send_as(Address("John Smith", "example.org"))


@pytest.mark.parametrize(
    ("keep", "kinds"),
    [
        ((), frozenset()),
        ((SecretKind.SHARED,), {SecretKind.SHARED}),
        ((SecretKind.SCRAM_SHA_256,), {SecretKind.SCRAM_SHA_256}),
        (BOTH, BOTH),
    ],
)
def test_only_the_secrets_that_were_asked_for_are_stored(directory, stored, keep, kinds):
    directory.add_user("alice@example.org", "secret", keep=keep)
    secrets = stored("alice@example.org").secrets
    assert secrets.password_hash.startswith("$argon2id$")
    assert secrets.kinds == directory.user("alice@example.org").kinds == kinds
    assert secrets.shared == (b"secret" if SecretKind.SHARED in kinds else None)


def test_a_user_without_a_password_has_no_secrets(directory, stored):
    directory.add_user("alice@example.org", None, keep=BOTH)
    assert stored("alice@example.org").secrets.password_hash is None
    assert directory.user("alice@example.org") == User("alice@example.org", (), True, False, frozenset())


def test_a_new_password_keeps_the_kinds_of_secrets_there_were(directory, stored):
    directory.add_user("alice@example.org", "old", keep=[SecretKind.SHARED])
    before = stored("alice@example.org").secrets
    assert directory.set_password("alice@example.org", "new").kinds == {SecretKind.SHARED}
    after = stored("alice@example.org").secrets
    assert after.shared == b"new"
    assert after.password_hash != before.password_hash


def test_a_new_password_may_change_which_secrets_are_kept(directory, stored):
    directory.add_user("alice@example.org", "old", keep=[SecretKind.SHARED])
    directory.set_password("alice@example.org", "new", keep=[SecretKind.SCRAM_SHA_256])
    secrets = stored("alice@example.org").secrets
    assert (secrets.shared, secrets.kinds) == (None, {SecretKind.SCRAM_SHA_256})


def test_a_hash_is_renewed_only_while_it_is_the_one_that_was_verified(directory, stored):
    directory.add_user("alice@example.org", "secret")
    first = stored("alice@example.org").secrets.password_hash
    directory.renew_hash("alice@example.org", "another hash", "new hash")
    assert stored("alice@example.org").secrets.password_hash == first
    directory.renew_hash("alice@example.org", first, "new hash")
    assert stored("alice@example.org").secrets.password_hash == "new hash"


def test_disabling_and_enabling(directory, stored):
    directory.add_user("alice@example.org", "secret")
    assert directory.set_enabled("Alice@example.org", enabled=False) == "alice@example.org"
    assert not stored("alice@example.org").enabled
    directory.set_enabled("alice@example.org", enabled=True)
    assert directory.user("alice@example.org").enabled


def test_further_addresses_come_and_go(directory):
    directory.add_user("alice@example.org", None, further=["a1@example.org"])
    changed = directory.change_addresses(
        "alice@example.org", add=["a2@example.org", "@example.org"], delete=["A1@example.org"]
    )
    assert changed.further == ("@example.org", "a2@example.org")


def test_a_change_of_addresses_is_whole_or_not_at_all(directory):
    directory.add_user("alice@example.org", None, further=["a1@example.org"])
    with pytest.raises(DirectoryError, match="not a local domain"):
        directory.change_addresses("alice@example.org", add=["a2@elsewhere.example"], delete=["a1@example.org"])
    assert directory.user("alice@example.org").further == ("a1@example.org",)


def test_a_deleted_user_is_gone_with_addresses_and_secrets(directory, stored):
    directory.add_user("alice@example.org", "secret", keep=BOTH, further=["sales@example.org"])
    directory.add_alias("info@example.org", ["Sales@example.org", "bob@example.net"])
    directory.add_alias("other@example.org", ["bob@example.net"])
    assert directory.delete_user("alice@example.org") == ["info@example.org"]
    assert directory.users() == []
    assert stored("sales@example.org") is None
    assert directory.add_user("sales@example.org", None) == "sales@example.org"


def test_deleted_secrets_are_not_left_on_the_disk_while_a_server_has_the_file_open(directory, path, reader):
    directory.add_user("alice@example.org", "plain-as-day", keep=BOTH)
    assert reader.snapshot().domains
    assert b"plain-as-day" in contents_of(path)
    directory.delete_user("alice@example.org")
    directory.close()
    assert b"plain-as-day" not in contents_of(path)


def contents_of(path):
    """The file with its log."""
    return b"".join(one.read_bytes() for one in sorted(path.parent.glob(f"{path.name}*")))


def test_users_are_listed_by_domain_then_name(directory):
    directory.add_domain("example.net")
    for address in ("zoe@example.net", "bob@example.org", "amy@example.org"):
        directory.add_user(address, None)
    directory.change_addresses("amy@example.org", add=["amy@example.net"])
    assert [user.address for user in directory.users()] == ["zoe@example.net", "amy@example.org", "bob@example.org"]
    assert [user.address for user in directory.users("Example.NET")] == ["zoe@example.net", "amy@example.org"]


def test_aliases_are_added_to_listed_and_deleted(directory):
    directory.add_domain("example.net")
    directory.add_alias("Info@example.org", ["Bob@EXAMPLE.com", "amy@example.org"])
    directory.add_alias("info@example.org", ["amy@example.org", "eve@example.com"])
    directory.add_alias("@example.net", ["catch@example.com"])
    targets = (Address("Bob", "example.com"), Address("amy", "example.org"), Address("eve", "example.com"))
    assert directory.aliases() == [
        Alias("@example.net", (Address("catch", "example.com"),)),
        Alias("info@example.org", targets),
    ]
    assert directory.delete_alias("info@example.org", ["amy@example.org"]) == "info@example.org"
    assert directory.aliases("example.org") == [Alias("info@example.org", (targets[0], targets[2]))]
    directory.delete_alias("info@example.org")
    directory.delete_alias("@example.net", ["catch@example.com"])
    assert directory.aliases() == []
    assert directory.delete_domain("example.net") == "example.net"


# -------------------------------------------------------------------------------------------------- mistakes


@pytest.fixture
def furnished(directory):
    directory.add_user("alice@example.org", "secret", further=["sales@example.org"])
    directory.add_alias("info@example.org", ["bob@example.net"])
    return directory


MISTAKES = {
    "a domain twice": (lambda d: d.add_domain("example.org"), "already"),
    "no domain": (lambda d: d.add_domain("example"[:0]), "not a domain name"),
    "a domain that is not ours": (lambda d: d.delete_domain("example.com"), "mailsuite domain add example.com"),
    "a domain in use": (lambda d: d.delete_domain("example.org"), "mailsuite user list example.org"),
    "a user of another domain": (lambda d: d.add_user("a@example.com", None), "mailsuite domain add example.com"),
    "a further address elsewhere": (
        lambda d: d.add_user("a@example.org", None, further=["a@example.com"]),
        "mailsuite domain add example.com",
    ),
    "a user twice": (lambda d: d.add_user("Alice@example.org", None), "account already"),
    "a user in another's place": (lambda d: d.add_user("sales@example.org", None), "account already"),
    "a user in an alias's place": (
        lambda d: d.add_user("info@example.org", None),
        "mailsuite alias del info@example.org",
    ),
    "an address twice": (lambda d: d.add_user("b@example.org", None, further=["B@example.org"]), "given twice"),
    "a catch-all as the main address": (lambda d: d.add_user("@example.org", None), "not an address"),
    "an empty password": (lambda d: d.add_user("b@example.org", ""), "password is empty"),
    "a new password for nobody": (lambda d: d.set_password("b@example.org", "x"), "mailsuite user list"),
    "a new password for an address": (
        lambda d: d.set_password("sales@example.org", "x"),
        "address of alice@example.org",
    ),
    "a new password that is none": (lambda d: d.set_password("alice@example.org", "\0"), "cannot be sent"),
    "enabling nobody": (lambda d: d.set_enabled("b@example.org", enabled=True), "no account b@example.org"),
    "deleting nobody": (lambda d: d.delete_user("b@example.org"), "no account b@example.org"),
    "deleting by another address": (lambda d: d.delete_user("sales@example.org"), "address of alice@example.org"),
    "deleting elsewhere": (lambda d: d.delete_user("b@example.com"), "mailsuite domain add example.com"),
    "deleting an alias as a user": (lambda d: d.delete_user("info@example.org"), "no account info@example.org"),
    "adding an address that is taken": (
        lambda d: d.change_addresses("alice@example.org", add=["info@example.org"]),
        "is an alias",
    ),
    "taking the main address": (
        lambda d: d.change_addresses("alice@example.org", delete=["alice@example.org"]),
        "main address",
    ),
    "taking what is not there": (
        lambda d: d.change_addresses("alice@example.org", delete=["b@example.org"]),
        "has no address b@example.org",
    ),
    "listing another domain": (lambda d: d.users("example.com"), "mailsuite domain add example.com"),
    "an alias in a user's place": (
        lambda d: d.add_alias("sales@example.org", ["b@example.net"]),
        "address of an account",
    ),
    "an alias elsewhere": (
        lambda d: d.add_alias("a@example.com", ["b@example.net"]),
        "mailsuite domain add example.com",
    ),
    "an alias to itself": (
        lambda d: d.add_alias("a@example.org", ["b@example.net", "A@example.org"]),
        "lead to itself",
    ),
    "an alias to nowhere": (lambda d: d.add_alias("a@example.org", []), "name a target"),
    "an alias to nonsense": (lambda d: d.add_alias("a@example.org", ["nonsense"]), "not an address"),
    "no such alias": (lambda d: d.delete_alias("a@example.org"), "mailsuite alias list"),
    "no such target": (
        lambda d: d.delete_alias("info@example.org", ["c@example.net"]),
        "does not lead to c@example.net",
    ),
    "aliases of another domain": (lambda d: d.aliases("example.com"), "mailsuite domain add example.com"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence_and_changes_nothing(furnished, path, mistake):
    make, sentence = MISTAKES[mistake]
    before = dump(path)
    with pytest.raises(DirectoryError, match=re.escape(sentence)) as raised:
        make(furnished)
    assert "\n" not in str(raised.value)
    assert "secret" not in str(raised.value)
    assert dump(path) == before


def dump(path):
    db = sqlite3.connect(path)
    text = "\n".join(db.iterdump())
    db.close()
    return text


def test_a_domain_with_aliases_only_is_in_use_too(directory):
    directory.add_alias("info@example.org", ["bob@example.net"])
    with pytest.raises(DirectoryError, match=r"mailsuite alias list example\.org"):
        directory.delete_domain("example.org")


def test_a_file_that_another_program_holds_is_a_sentence(directory, path):
    directory._db.execute("PRAGMA busy_timeout = 10")  # noqa: SLF001 - not to wait ten seconds
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DirectoryError, match=r"cannot be used: database is locked"):
        directory.add_domain("example.net")
    other.execute("ROLLBACK")
    other.close()
    assert directory.add_domain("example.net") == "example.net"


def test_two_editors_of_one_file_do_not_disturb_each_other(directory, path):
    with DirectoryFile(path, cost=CHEAP) as other:
        other.add_user("alice@example.org", None)
        directory.add_user("bob@example.org", None)
        with pytest.raises(DirectoryError, match="account already"):
            other.add_user("bob@example.org", None)
        assert directory.users() == other.users()
