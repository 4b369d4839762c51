"""Addresses: what is written is what is read, what is no address is None, and domains compare."""

import time
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsuite.mail.address import (
    Address,
    domain_key,
    is_address_literal,
    is_domain,
    literal_of,
    parse_literal,
    parse_mailbox,
    parse_path,
)
from tests.mail.addresses import ADDRESSES, DOMAINS, LITERALS


@given(ADDRESSES)
def test_address_is_read_as_it_was_written(address: Address) -> None:
    assert parse_mailbox(str(address)) == address
    assert parse_path(f"<{address}>") == (address, "")


@given(ADDRESSES, st.text(max_size=10))
def test_path_leaves_what_follows(address: Address, rest: str) -> None:
    assert parse_path(f"<{address}>{rest}") == (address, rest)


@given(st.lists(DOMAINS, min_size=1, max_size=3), ADDRESSES)
def test_source_route_is_ignored(hosts: list[str], address: Address) -> None:
    route = ",".join(f"@{host}" for host in hosts)
    assert parse_path(f"<{route}:{address}>") == (address, "")


@given(st.text(max_size=30))
def test_no_text_raises(text: str) -> None:
    found = parse_path(text)
    assert found is None or text.startswith("<")
    mailbox = parse_mailbox(text)
    assert mailbox is None or parse_mailbox(str(mailbox)) == mailbox
    assert isinstance(domain_key(text), str)


@given(st.text(' "\\@<>.a:,[]', max_size=12))
def test_whatever_is_read_is_written_the_same(text: str) -> None:
    mailbox = parse_mailbox(text)
    assert mailbox is None or parse_mailbox(str(mailbox)) == mailbox
    assert mailbox is None or parse_path(f"<{text}>") == (mailbox, "")


@pytest.mark.parametrize(
    ("text", "local_part", "domain"),
    [
        ("fred@example.org", "fred", "example.org"),
        ("fred.flint+x=y@sub.example.org", "fred.flint+x=y", "sub.example.org"),
        ('"fred"@example.org', "fred", "example.org"),
        (r'"fr\ed"@example.org', "fred", "example.org"),
        (r'"a \"b\" \\c"@example.org', r'a "b" \c', "example.org"),
        ('"a@b>c"@example.org', "a@b>c", "example.org"),
        ('""@example.org', "", "example.org"),
        ("fred@localhost", "fred", "localhost"),
        ("fred@1.2.3.4", "fred", "1.2.3.4"),
        ("fred@[192.0.2.1]", "fred", "[192.0.2.1]"),
        ("fred@[ipv6:::1]", "fred", "[ipv6:::1]"),
        ("größe@bücher.example", "größe", "bücher.example"),
        ("fred@a_b.example", "fred", "a_b.example"),
    ],
)
def test_mailbox(text: str, local_part: str, domain: str) -> None:
    assert parse_mailbox(text) == Address(local_part, domain)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "fred",
            "@",
            "@example.org",
            "fred@",
            "fred@.org",
            "fred@org.",
            "fred@a..b",
            "fred@-a",
            "fred@a-",
            "a b@c",
        ),
        *(
            "fred@[1.2.3]",
            "fred@[]",
            "fred@[IPv6:1]",
            "fred@[IPv6:fe80::1%eth0]",
            "fred@[x:1]",
            "fred@[1.2.3.4",
            "a@b]",
        ),
        *(".a@b", "a.@b", "a..b@c", '"a@b', 'a"b"@c', '"a"b@c', '"a\\"@b', '"a\tb"@c', "a@b c", "a@b\n", "a@b\x00"),
        *("a\x85b@c", "a\u2028b@c", "a@\x80", "a@b\u2029c", '"\x90"@c', "a@" + "b." * 127 + "bb", "a@" + "é" * 128),
    ],
)
def test_what_is_no_mailbox(text: str) -> None:
    assert parse_mailbox(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<>", (None, "")),
        ("<> SIZE=1", (None, " SIZE=1")),
        ("<postmaster>", (Address("postmaster", ""), "")),
        ("<POSTmaster> x", (Address("POSTmaster", ""), " x")),
        ("<@a:b@c>", (Address("b", "c"), "")),
        ("<a@b>>", (Address("a", "b"), ">")),
        ("", None),
        ("<", None),
        ("a@b", None),
        ("<a@b", None),
        ("<a>", None),
        ("< >", None),
        ("< a@b>", None),
        ("<a@b >", None),
        ("<@a,b:c@d>", None),
        ("<@a:>", None),
        ("<@a:postmaster>", (Address("postmaster", ""), "")),
        ('<"postmaster">', None),
    ],
)
def test_path(text: str, expected: tuple[Address | None, str] | None) -> None:
    assert parse_path(text) == expected


@pytest.mark.parametrize(
    ("domain", "key"),
    [
        ("Example.ORG", "example.org"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("xn--BCHER-kva.example", "xn--bcher-kva.example"),
        ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
        ("a_b.Example", "a_b.example"),
        ("☃_.example", "☃_.example"),
        ("", ""),
        ("[IPv6:::1]", "[ipv6:::1]"),
    ],
)
def test_domain_key(domain: str, key: str) -> None:
    assert domain_key(domain) == key
    assert Address("fred", domain).domain_key == key


def test_ascii_addresses_need_no_smtputf8() -> None:
    assert Address("fred", "example.org").is_ascii
    assert not Address("größe", "example.org").is_ascii
    assert not Address("fred", "bücher.example").is_ascii


@pytest.mark.parametrize("literal", ["[192.0.2.1]", "[IPv6:2001:db8::1]"])
def test_a_literal_is_written_as_it_is_read(literal: str) -> None:
    address = parse_literal(literal)
    assert address is not None
    assert literal_of(address) == literal


def test_a_literal_has_no_zone() -> None:
    assert literal_of(ip_address("fe80::1%eth0")) == "[IPv6:fe80::1]"


def test_postmaster_without_domain_is_written_bare() -> None:
    assert str(Address("postmaster", "")) == "postmaster"


@given(LITERALS)
def test_literals(literal: str) -> None:
    assert is_address_literal(literal)
    assert not is_domain(literal)
    assert literal.strip("[]").removeprefix("IPv6:") == str(parse_literal(literal))


@given(DOMAINS)
def test_domains(domain: str) -> None:
    assert is_domain(domain) == (len(domain.encode()) <= 255)
    assert not is_address_literal(domain)


@pytest.mark.parametrize("text", ["[IPv6:fe80::1%1]", "[1.2.3.4%1]", "[::1]", "[]", "[IPv6:]", "[٣.2.3.4]"])
def test_what_is_no_literal(text: str) -> None:
    assert parse_literal(text) is None
    assert not is_address_literal(text)


@pytest.mark.parametrize("label", ["a" * 254, "-" * 2000, "a-" * 1000, "é" * 1000, '"' + "\\a" * 1000, "a." * 1000])
def test_hostile_text_takes_no_time(label: str) -> None:
    """All these patterns are linear. These take some milliseconds; one that backtracks would take minutes."""
    begun = time.process_time()
    for _ in range(20):
        assert parse_path(f"<{label}@{label}>") is None or len(label) < 255
        assert parse_path(f"<@{label}:{label}") is None
    assert time.process_time() - begun < 5
