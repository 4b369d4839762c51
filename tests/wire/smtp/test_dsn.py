"""What RFC 3461's parameters say comes out as it went in, and nothing comes in that could end a line of a report."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsuite.mail.address import Address
from mailsuite.mail.options import Notify
from mailsuite.wire.smtp.dsn import (
    decode_envid,
    decode_notify,
    decode_orcpt,
    decode_xtext,
    encode_notify,
    encode_orcpt,
    orcpt_of,
    xtext,
)

PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=30)
ANYTHING = st.text(st.characters(exclude_categories=["Cs"]).filter(str.isprintable), min_size=1, max_size=30)


@given(st.text(max_size=50))
def test_xtext_comes_out_as_it_was(text: str) -> None:
    assert decode_xtext(xtext(text)) == text


@pytest.mark.parametrize("text", ["a=b", "a b", "+", "+4", "+4g", "+4a", "é", "a\x7f", "+FF", "+C3", "a\n"])
def test_what_is_no_xtext(text: str) -> None:
    assert decode_xtext(text) is None


@given(st.lists(st.sampled_from(list(Notify)), unique=True))
def test_notify_comes_out_as_it_was(events: list[Notify]) -> None:
    notify = Notify(0)
    for event in events:
        notify |= event
    assert decode_notify(encode_notify(notify)) == notify
    assert decode_notify(encode_notify(notify).lower()) == notify


@pytest.mark.parametrize(
    "text", ["", "SUCCESS,", ",", "NEVER,NEVER", "NEVER,DELAY", "ALWAYS", "\u017fUCCESS", "SUCCESS FAILURE"]
)
def test_what_is_no_notify(text: str) -> None:
    assert decode_notify(text) is None


@given(PRINTABLE)
def test_envid_comes_out_as_it_was(text: str) -> None:
    written = xtext(text)
    assert decode_envid(written) == (text if len(written) <= 100 else None)


@pytest.mark.parametrize("text", ["", "+0D+0A", "+09", "+7F", "+C3+B6", "a" * 101])
def test_what_is_no_envid(text: str) -> None:
    assert decode_envid(text) is None


@given(st.sampled_from(["rfc822", "RFC822", "x400", "x-any/thing"]), PRINTABLE)
def test_original_recipient_comes_out_as_it_was(kind: str, address: str) -> None:
    written = encode_orcpt(f"{kind};{address}", utf8=True)
    assert written is not None
    assert written.isascii()
    assert decode_orcpt(written) == f"{kind};{address}"


@given(ANYTHING, st.booleans())
def test_internationalized_recipient_comes_out_as_it_was(address: str, utf8: bool) -> None:
    written = encode_orcpt(f"utf-8;{address}", utf8=utf8)
    assert written is not None
    assert utf8 or written.isascii()
    assert not {*" =+"} & {*written}
    assert decode_orcpt(written) == f"utf-8;{address}"


@given(st.text(max_size=40))
def test_whatever_comes_is_printable_or_refused(text: str) -> None:
    for kind in ("rfc822", "utf-8"):
        decoded = decode_orcpt(f"{kind};{text}")
        assert decoded is None or decoded.isprintable()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        # RFC 6533 section 3: all of the forms
        (r"utf-8;gr\x{F6}\x{df}e@\x{4F8B}.example", "utf-8;größe@例.example"),
        ("utf-8;größe@例.example", "utf-8;größe@例.example"),
        (r"utf-8;a\x{20}b\x{2B}\x{3D}\x{5C}\x{1F600}", "utf-8;a b+=\\\U0001f600"),
        # "does not conform to utf-8 syntax": unaltered
        ("utf-8;a+40b", "utf-8;a+40b"),
        (r"utf-8;a\b", r"utf-8;a\b"),
        (r"utf-8;\x{41}", r"utf-8;\x{41}"),  # a letter of ASCII is none of HEXPOINT
        (r"utf-8;\x{D800}", r"utf-8;\x{D800}"),
        (r"utf-8;\x{110000}", r"utf-8;\x{110000}"),
        # and so is what is no text
        (r"utf-8;\x{85}\x{2028}", r"utf-8;\x{85}\x{2028}"),
        (r"utf-8;\x{01}", r"utf-8;\x{01}"),
        ("rfc822;", "rfc822;"),
        ("RFC822;Bob+2BX@Example.Net", "RFC822;Bob+X@Example.Net"),
        ("rfc822;größe@example.net", None),
        ("rfc822;+C3+B6", None),
        ("rfc822", None),
        (";a", None),
        ("a b;c", None),
        ("utf-8;a\u2028b", None),
        ("rfc822;" + "a" * 494, None),
    ],
)
def test_original_recipients(written: str, meant: str | None) -> None:
    assert decode_orcpt(written) == meant


def test_original_recipient_that_would_be_too_long_is_left_out() -> None:
    assert encode_orcpt("utf-8;" + "例" * 100, utf8=True) is not None
    assert encode_orcpt("utf-8;" + "例" * 100, utf8=False) is None


def test_original_recipient_of_an_address() -> None:
    assert orcpt_of(Address("bob", "example.net")) == "rfc822;bob@example.net"
    assert orcpt_of(Address("größe", "example.net")) == "utf-8;größe@example.net"
