"""Names: what the directory takes, what it refuses, and that look-ups find what was taken and never raise."""

import string

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mailsuite.accounts.errors import DirectoryError
from mailsuite.accounts.names import (
    account_address,
    account_address_or_catch_all,
    domain_name,
    fold,
    key_of,
    login_key,
    plain,
    target_address,
    written,
)
from mailsuite.mail.address import Address, parse_mailbox
from mailsuite.mail.session import Identity
from mailsuite.wire.sasl import prepare_query


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("alice@example.org", ("alice", "example.org")),
        ("Alice@EXAMPLE.Org", ("alice", "example.org")),
        ('"alice"@example.org', ("alice", "example.org")),
        ('"John Smith"@example.org', ("john smith", "example.org")),
        ('"a@b"@example.org', ("a@b", "example.org")),
        ("alice+lists@example.org", ("alice+lists", "example.org")),
        ("jürgen@bücher.example", ("jürgen", "xn--bcher-kva.example")),
        ("ju\u0308rgen@example.org", ("jürgen", "example.org")),  # decomposed
        ("a@localhost", ("a", "localhost")),
        ("a" * 64 + "@example.org", ("a" * 64, "example.org")),
    ],
)
def test_an_account_address_is_folded(text, key):
    assert account_address(text) == key


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("alice", "is not an address"),
        ("", "is not an address"),
        ("@example.org", "is not an address"),
        ('""@example.org', "is not an address"),
        ("a b@example.org", "is not an address"),
        ("alice@[192.0.2.1]", "is not an address"),
        ("a\0b@example.org", "is not an address"),
        ('"a\0b"@example.org', "is not an address"),
        ("alice@exa mple.org", "is not an address"),
        ("../../etc/passwd@example.org", "is not an address"),
        ('"../../etc/passwd"@example.org', "in the name of a directory"),
        ("a/b@example.org", "in the name of a directory"),
        ('".alice"@example.org', "begins with a dot"),
        ('".."@example.org', "begins with a dot"),
        ("a\u0085b@example.org", "is not an address"),
        ("a\u200bb@example.org", "cannot be seen"),
        ("a\u202eb@example.org", "cannot be seen"),
        ("a\udc80b@example.org", "is not an address"),  # an argument that was not UTF-8
        ("alice@exa\udc80mple.org", "is not an address"),
        ('" alice"@example.org', "cannot be seen"),
        ("\ufb01sh@example.org", "SASLprep"),  # the ligature fi
        ("a\ufe0fb@example.org", "SASLprep"),  # a variation selector, mapped to nothing
        ("a" * 65 + "@example.org", "longer than 64 octets"),
        ("ü" * 33 + "@example.org", "longer than 64 octets"),
        ("alice@192.0.2.1", "is an IP address"),
        ("alice@" + "a" * 64 + ".org", "is not a domain name"),
    ],
)
def test_an_address_that_cannot_be_an_account_is_refused_in_a_sentence(text, fault):
    with pytest.raises(DirectoryError, match=fault) as raised:
        account_address(text)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("example.org", "example.org"),
        ("EXAMPLE.org", "example.org"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("under_score.example", "under_score.example"),
    ],
)
def test_a_domain_becomes_its_key(text, key):
    assert domain_name(text) == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "example.org.",
        ".org",
        "-a.org",
        "a b",
        "[192.0.2.1]",
        "a@b.org",
        "a/b",
        "\udc80.org",
        "ü-.org",
        "10.0.0.1",
    ],
)
def test_what_is_no_domain_is_refused(text):
    with pytest.raises(DirectoryError, match="domain"):
        domain_name(text)


def test_a_catch_all_has_an_empty_local_part():
    assert account_address_or_catch_all("@Example.org") == ("", "example.org")
    assert account_address_or_catch_all("a@Example.org") == ("a", "example.org")
    assert (written(("", "example.org")), plain(("", "example.org"))) == ("@example.org", "@example.org")


def test_a_target_keeps_the_case_of_its_local_part():
    assert target_address("Bob.B@EXAMPLE.net") == Address("Bob.B", "example.net")
    assert target_address("bob@[192.0.2.1]") == Address("bob", "[192.0.2.1]")


@pytest.mark.parametrize(
    "text",
    ["bob", "@example.net", "bob@", "bob@\udc80.net", '""@example.net', "a\u0085b@example.net", "<bob@example.net>"],
)
def test_what_cannot_be_sent_to_is_no_target(text):
    with pytest.raises(DirectoryError, match="not an address"):
        target_address(text)


@pytest.mark.parametrize(
    ("login", "default", "key"),
    [
        ("alice@example.org", None, ("alice", "example.org")),
        ("ALICE@Example.ORG", "example.net", ("alice", "example.org")),
        ("Alice", "example.org", ("alice", "example.org")),
        ("Alice", None, None),
        ("", "example.org", None),
        ('""@example.org', "example.org", None),  # would be the catch-all's key
        ("a b", "example.org", None),
        ("a\udc80@example.org", "example.org", None),
        ("a@\udc80.org", "example.org", None),
        ("\udc80", "example.org", None),
    ],
)
def test_a_login_name_is_an_address_or_a_local_part_of_the_default_domain(login, default, key):
    assert login_key(login, default) == key


# ---------------------------------------------------------------------------------------------- properties

ODD_TEXT = st.text(st.characters(codec=None), max_size=30)  # with lone surrogates
# Letters, marks, digits, signs: mostly taken, and odd enough in how they fold and compose.
LOCAL_PARTS = st.text(
    st.one_of(
        st.sampled_from(string.ascii_letters + string.digits + '!#$+=_-."\\@ \u0308\u0301'),
        st.characters(categories=["L", "M", "N", "P", "S"], exclude_characters="/"),
    ),
    min_size=1,
    max_size=10,
)


@given(ODD_TEXT)
def test_reading_names_raises_nothing_but_directory_error(text):
    for read in (account_address, account_address_or_catch_all, domain_name, target_address):
        for whole in (text, f"{text}@example.org", f'"{text}"@example.org', f"a@{text}", f"@{text}"):
            try:
                value = read(whole)
            except DirectoryError as error:
                assert "\n" not in str(error)  # noqa: PT017 - either outcome is right, if it is a clean one
            else:
                assert value


@given(ODD_TEXT, st.one_of(st.none(), ODD_TEXT))
def test_looking_up_never_raises(text, domain):
    key = login_key(text, domain)
    assert key is None or (key[0] and "@" not in key[1])
    assert key_of(Address(text, domain or "")) == key_of(Address(text, domain or ""))


@settings(max_examples=500)
@given(LOCAL_PARTS)
def test_what_is_taken_is_found_again_and_safe_on_a_disk(local_part):
    try:
        key = account_address(str(Address(local_part, "Example.org")))
    except DirectoryError:
        assume(False)
    folded, domain = key
    assert folded == fold(folded)
    assert not folded.startswith(".")
    assert not set("/\0\n\r") & set(folded)
    assert 0 < len(folded.encode()) <= 64
    # By the address that was given, by the one that is listed, by the login name as SASL prepares it.
    assert key_of(Address(local_part, "EXAMPLE.ORG")) == key
    assert key_of(parse_mailbox(written(key))) == key
    assert login_key(written(key), None) == key
    assert Identity("name", frozenset({plain(key)})).may_send_as(Address(folded, domain))
    try:
        prepared = prepare_query(written(key))
    except ValueError:  # right-to-left and left-to-right in one name: SASLprep refuses that in every client
        return
    assert login_key(prepared, None) == key
