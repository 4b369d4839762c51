"""ATRN, ETRN, TURN and TRANSID: what their arguments may be, and what becomes of those that may not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsuite.mail import replies
from mailsuite.mail.address import Address
from mailsuite.mail.reply import Reply
from mailsuite.wire.smtp.checkpoint import is_transid, offset_of, resuming
from mailsuite.wire.smtp.commands import Atrn, Etrn, Mail, Turn
from mailsuite.wire.smtp.grammar import Parsed, parse_command
from mailsuite.wire.smtp.nodes import parse_domains, parse_node

LONG_LABEL = "a" * 63
LONG_NAME = ".".join([LONG_LABEL] * 3 + ["b" * 63])  # 255 octets


def parsed(text: str) -> Parsed:
    return parse_command(text.encode(), frozenset({"SIZE", "TRANSID"}))


def code(text: str) -> int:
    command = parsed(text)
    assert isinstance(command, Reply), command
    return command.code


@pytest.mark.parametrize(
    ("line", "domains"),
    [
        ("ATRN", ()),
        ("ATRN ", ()),
        ("atrn example.org", ("example.org",)),
        # RFC 2645 section 6
        ("ATRN example.org,example.com", ("example.org", "example.com")),
        ("ATRN Example.ORG, example.com ,\ta-b.c0", ("example.org", "example.com", "a-b.c0")),
        ("ATRN 1.2", ("1.2",)),
        ("ATRN a.b,c.d,A.B", ("a.b", "c.d")),
        ("ATRN xn--bcher-kva.example", ("xn--bcher-kva.example",)),
        ("ATRN bücher.example,BÜCHER.example", ("xn--bcher-kva.example",)),
        (f"ATRN {LONG_NAME}", (LONG_NAME,)),
    ],
)
def test_atrn(line: str, domains: tuple[str, ...]) -> None:
    # RFC 2645 section 5.2.1
    assert parsed(line) == Atrn(domains)


@pytest.mark.parametrize(
    "argument",
    [
        *(",", "a.b,", ",a.b", "a.b,,c.d", "a.b c.d", "a.b;c.d", "local", "a.b,local", "a..b", ".a.b", "a.b."),
        *("-a.b", "a-.b", "a.-b", "a.b-", "a_b.c", "[192.0.2.1]", "fred@example.org", "@a.b", "#a.b", "<a.b>", "*.a.b"),
        *(LONG_NAME + "c", "a" * 64 + ".b", "a.b\u3002", "bü cher.example", "\u00ad.example", "-ü.example", "ü"),
        *("a.b\u2028", "xn--\u00fc.example"),
    ],
)
def test_what_atrn_does_not_take(argument: str) -> None:
    assert code(f"ATRN {argument}") == 501


@pytest.mark.parametrize(
    ("line", "node"),
    [
        # RFC 1985 sections 5.3 and 7
        ("ETRN sigurd.innosoft.com", "sigurd.innosoft.com"),
        ("etrn @FOO.com", "@foo.com"),
        ("ETRN #uucp", "#uucp"),
        ("ETRN #UUCP@here", "#UUCP@here"),
        ("ETRN bücher.example", "xn--bcher-kva.example"),
        ("ETRN @bücher.example", "@xn--bcher-kva.example"),
        ("ETRN #" + "q" * 255, "#" + "q" * 255),
    ],
)
def test_etrn(line: str, node: str) -> None:
    assert parsed(line) == Etrn(node)


@pytest.mark.parametrize(
    "argument",
    [
        *("localname", "@", "#", "@@a.b", "@#a.b", "# a", "#a b", "a.b c.d", "a.b,c.d", "@ a.b", "[192.0.2.1]"),
        *("#\u00fc", "#" + "q" * 256, "@local", "a.b.", "!a.b"),
    ],
)
def test_what_etrn_does_not_take(argument: str) -> None:
    # RFC 1985 section 7: ETRN localname
    assert code(f"ETRN {argument}") == 501


def test_etrn_without_a_node() -> None:
    # RFC 1985 section 7: "C: ETRN", "S: 500 Syntax Error"
    assert code("ETRN") == code("ETRN ") == 500


def test_turn_takes_no_argument() -> None:
    assert parsed("turn") == Turn()
    assert parsed("TURN example.org") == replies.NO_ARGUMENTS


@pytest.mark.parametrize(
    "transid", ["12345@claremont.edu", "a.b@c.d", "A@a", "!#$%&'*+-^_`{|}~@x", "1" * 76 + "@x", "x@" + "1" * 76]
)
def test_transid(transid: str) -> None:
    # RFC 1845 section 2: 80 characters with the angle brackets, and case matters
    assert parsed(f"MAIL FROM:<ned@ymir.claremont.edu> SIZE=9 transid=<{transid}>") == Mail(
        Address("ned", "ymir.claremont.edu"), size=9, transid=transid
    )


@pytest.mark.parametrize(
    "value",
    [
        *(
            "",
            "=",
            "=<>",
            "=<@>",
            "=<a>",
            "=<a@>",
            "=<@b>",
            "=a@b",
            "=<a@b",
            "=a@b>",
            "=<<a@b>>",
            "=<a@b@c>",
            "=<a.@b>",
        ),
        *("=<.a@b>", "=<a..b@c>", "=<a@b.>", "=<a,b@c>", "=<a/b@c>", '=<"a"@c>', "=<a@[1]>", "=<a?@c>", "=<ü@c>"),
        *("=<a@b> TRANSID=<a@b>", "=<" + "1" * 77 + "@x>", "=<a=b@c>", "=<a:b@c>", "=<a@b>x"),
    ],
)
def test_what_transid_does_not_take(value: str) -> None:
    assert code(f"MAIL FROM:<a@b> TRANSID{value}") == 501


@given(st.text(max_size=90))
def test_transid_that_is_one_is_read_as_it_was_written(text: str) -> None:
    command = parsed(f"MAIL FROM:<> TRANSID=<{text}>")
    assert is_transid(text) == isinstance(command, Mail)
    assert not isinstance(command, Mail) or command.transid == text


@given(st.text(max_size=300))
def test_names_are_themselves_once_they_are_read(text: str) -> None:
    node, domains = parse_node(text), parse_domains(text)
    assert node is None or (parse_node(node) == node and node.isascii())
    assert domains is None or (parse_domains(",".join(domains)) == domains and len(set(domains)) == len(domains))


@given(
    st.lists(st.sampled_from(["a", "Ü", "ß", "-", ".", ",", " ", "@", "#", "xn--", "。", "\u200d", "9"]), max_size=12)
)
def test_no_name_raises(parts: list[str]) -> None:
    text = "".join(parts)
    assert all(domain.isascii() for domain in parse_domains(text) or ())
    assert isinstance(parsed(f"ATRN {text}"), Atrn | Reply)
    assert isinstance(parsed(f"ETRN {text}"), Etrn | Reply)


@given(st.integers(0, 10**20 - 1))
def test_offset_comes_back(offset: int) -> None:
    assert offset_of(resuming(offset)) == offset


def test_offset_as_the_rfc_has_it() -> None:
    assert resuming(6135).encoded == b"355 6135 is the transaction offset\r\n"


@pytest.mark.parametrize(
    ("reply", "offset"),
    [
        (Reply(355, None, ("0",)), 0),
        (Reply(355, None, ("12\tof it", "and more")), 12),
        (Reply(355, None, ("007 agents",)), 7),
        (Reply(355, None, ("is 12",)), None),
        (Reply(355, None, ("",)), None),
        (Reply(355, None, ("-1 of it",)), None),
        (Reply(355, None, ("12octets",)), None),
        (Reply(355, None, ("1.5",)), None),
        (Reply(355, None, ("\u0661 octet",)), None),
        (Reply(355, None, ("1" * 21,)), None),
        (Reply(354, None, ("12 is something",)), None),
        (Reply(250, None, ("12",)), None),
    ],
)
def test_offset_is_the_first_word(reply: Reply, offset: int | None) -> None:
    # RFC 1845 section 3
    assert offset_of(reply) == offset
