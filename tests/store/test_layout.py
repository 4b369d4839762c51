"""Where mailboxes lie: no address leads out of its place, and no two share one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsuite.mail.address import Address
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.queue import Message, Recipient
from mailsuite.store.layout import DEFAULT_TEMPLATE, check_template, host_part, mailbox_path, name_stem, quote


@pytest.mark.parametrize(
    ("address", "path"),
    [
        (Address("alice", "example.org"), "example.org/alice"),
        (Address("alice.b+c", "EXAMPLE.org"), "example.org/alice.b+c"),
        (Address("..", "example.org"), "example.org/%2E."),
        (Address(".hidden", "example.org"), "example.org/%2Ehidden"),
        (Address("../../etc/passwd", "example.org"), "example.org/%2E.%2F..%2Fetc%2Fpasswd"),
        (Address("a\0b", "example.org"), "example.org/a%00b"),
        (Address("a%2Fb", "example.org"), "example.org/a%252Fb"),
        (Address("jörg", "bücher.example"), "xn--bcher-kva.example/j%C3%B6rg"),
        (Address("a", "[IPv6:::1]"), "%5Bipv6%3A%3A%3A1%5D/a"),
    ],
)
def test_odd_characters_are_quoted(address, path) -> None:
    assert mailbox_path(DEFAULT_TEMPLATE, address) == path


def test_a_template_may_leave_out_the_domain() -> None:
    assert mailbox_path("users/{local}/Maildir", Address("alice", "example.org")) == "users/alice/Maildir"


@given(text=st.text())
def test_a_component_is_one_plain_name(text) -> None:
    name = quote(text)
    assert name.isascii()
    assert "/" not in name
    assert not name.startswith(".")
    assert "\0" not in name
    assert 0 < len(name) <= 200


@given(one=st.text(max_size=300), other=st.text(max_size=300))
def test_different_texts_have_different_names(one, other) -> None:
    assert (quote(one) == quote(other)) == (one == other)


def test_long_names_differ_in_their_digest() -> None:
    assert quote("x" * 300 + "a") != quote("x" * 300 + "b")


@pytest.mark.parametrize(
    "template",
    [
        "{domain}-{local}",
        "{local}{domain}",
        *("", "/{local}", "{domain}", "../{local}", "{local}/..", "a//{local}", "{local}\0"),
        *("{local!r}", "{local:>9}", "{0}/{local}", "{user}/{local}", "{local", "{}", "{domain.x}/{local}"),
    ],
)
def test_a_template_that_would_lead_astray_is_refused(template) -> None:
    with pytest.raises(ValueError, match="layout"):
        check_template(template)


def test_a_name_is_the_same_in_each_attempt() -> None:
    message = Message("1Zq/9.x", Envelope(None), 10, 1_700_000_000.9)
    first = name_stem(message, Recipient(42, Address("alice", "example.org")))
    assert first == "1700000000.Q1Zq_9_xR42."
    assert first == name_stem(message, Recipient(42, Address("alice", "example.org"), attempts=3))
    assert host_part("mx/1:2,3.example.org") == r"mx\0571\0722\0543.example.org"
