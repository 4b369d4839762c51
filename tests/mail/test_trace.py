"""Trace lines: their form, and that nothing a peer says can break out of them."""

import re
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsuite.mail.address import Address
from mailsuite.mail.session import Peer, TLSFacts
from mailsuite.mail.trace import date_time, received_line, return_path_line, with_protocol

FACTS = {
    "helo": "client.example.net",
    "peer": Peer("192.0.2.7", 4711),
    "hostname": "mx.example.org",
    "protocol": "ESMTP",
    "queue_id": "1Zq9",
    "now": 1_700_000_000.75,
}
ALICE = Address("alice", "example.org")


def test_received_line_has_the_clauses_in_the_order_of_the_grammar() -> None:
    line = received_line(**FACTS, recipient=ALICE)
    assert line == (
        b"Received: from client.example.net ([192.0.2.7])\r\n"
        b"\tby mx.example.org with ESMTP\r\n"
        b"\tid 1Zq9\r\n"
        b"\tfor <alice@example.org>;\r\n"
        b"\t" + date_time(1_700_000_000).encode() + b"\r\n"
    )


def test_received_line_says_the_date_with_a_numeric_offset() -> None:
    line = received_line(**FACTS)
    date = line.rpartition(b";")[2].strip().decode()
    assert re.fullmatch(r"\w{3}, \d{1,2} \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4}", date)
    assert parsedate_to_datetime(date).timestamp() == 1_700_000_000


def test_received_line_leaves_the_recipient_out_where_there_are_several() -> None:
    assert b"\tfor" not in received_line(**FACTS)


def test_received_line_names_the_tls_session() -> None:
    line = received_line(**FACTS, tls=TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256))
    assert b"with ESMTP (TLSv1.3 TLS_AES_256_GCM_SHA384)\r\n" in line


@pytest.mark.parametrize(
    ("host", "info"),
    [
        ("192.0.2.7", b" ([192.0.2.7])"),
        ("2001:db8::7", b" ([IPv6:2001:db8::7])"),
        ("fe80::7%eth0", b" ([IPv6:fe80::7])"),
        ("", b""),
    ],
)
def test_received_line_tells_the_address_as_a_literal(host, info) -> None:
    line = received_line(**FACTS | {"peer": Peer(host)})
    assert line.startswith(b"Received: from client.example.net" + info + b"\r\n")


def test_received_line_names_a_peer_that_is_known() -> None:
    line = received_line(**FACTS, peer_name="odmr.example.net")
    assert line.startswith(b"Received: from client.example.net (odmr.example.net [192.0.2.7])\r\n")
    line = received_line(**FACTS | {"peer": Peer("")}, peer_name="odmr.example.net")
    assert line.startswith(b"Received: from client.example.net\r\n")


@pytest.mark.parametrize(
    "helo",
    [
        "evil\r\nX-Injected: yes",
        "evil\nX-Injected: yes",
        "evil\rX",
        "a (b)",
        "a; Thu, 1 Jan 1970",
        "x" * 5000,
        "",
        "\x00\x7f\x85\u2028",
    ],
)
def test_a_hostile_name_stays_within_its_line(helo) -> None:
    line = received_line(**FACTS | {"helo": helo}, recipient=ALICE, smtputf8=True)
    first, *rest = line.removesuffix(b"\r\n").split(b"\r\n")
    assert re.fullmatch(rb"Received: from [^ ;()\r\n]+ \(\[192\.0\.2\.7\]\)", first)
    assert len(first) < 998
    assert len(rest) == 4
    assert all(one.startswith(b"\t") for one in rest)


@given(helo=st.text(), queue_id=st.text(), local=st.text(), utf8=st.booleans())
def test_no_text_whatever_makes_a_line_of_its_own(helo, queue_id, local, utf8) -> None:
    recipient = Address(local, "example.org")
    line = received_line(**FACTS | {"helo": helo, "queue_id": queue_id}, recipient=recipient, smtputf8=utf8)
    lines = line.removesuffix(b"\r\n").split(b"\r\n")
    assert all(one.startswith(b"\t") for one in lines[1:])
    assert b"\n" not in b"".join(lines)
    assert b"\r" not in b"".join(lines)
    assert utf8 or line.isascii()


def test_an_internationalized_recipient_is_named_only_in_a_message_of_its_kind() -> None:
    recipient = Address("jörg", "bücher.example")
    assert b"\tfor" not in received_line(**FACTS, recipient=recipient)
    line = received_line(**FACTS, recipient=recipient, smtputf8=True)
    assert "\tfor <jörg@bücher.example>;".encode() in line


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        ({"extended": False}, "SMTP"),
        ({}, "ESMTP"),
        ({"tls": True}, "ESMTPS"),
        ({"authenticated": True}, "ESMTPA"),
        ({"tls": True, "authenticated": True}, "ESMTPSA"),
        ({"smtputf8": True}, "UTF8SMTP"),
        ({"smtputf8": True, "tls": True, "authenticated": True}, "UTF8SMTPSA"),
        ({"lmtp": True}, "LMTP"),
        ({"lmtp": True, "tls": True}, "LMTPS"),
        ({"lmtp": True, "smtputf8": True, "authenticated": True}, "UTF8LMTPA"),
    ],
)
def test_the_protocol_is_one_of_the_registered_names(facts, name) -> None:
    assert with_protocol(**facts) == name


def test_return_path_line() -> None:
    assert return_path_line(ALICE) == b"Return-Path: <alice@example.org>\r\n"
    assert return_path_line(None) == b"Return-Path: <>\r\n"
    assert return_path_line(Address("a b", "example.org")) == b'Return-Path: <"a b"@example.org>\r\n'
    assert return_path_line(Address("a\r\nX: y", "example.org")).count(b"\n") == 1


def test_dates_of_one_second_are_the_same_object() -> None:
    assert date_time(1_700_000_000.1) is date_time(1_700_000_000.9)
