"""Command lines: what a client writes is what the server reads, and nothing a client writes raises."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsuite.mail import replies
from mailsuite.mail.address import Address
from mailsuite.mail.envelope import Body
from mailsuite.mail.options import Notify, Return
from mailsuite.mail.reply import Reply
from mailsuite.wire.smtp.commands import (
    Atrn,
    Auth,
    Bdat,
    Command,
    Data,
    Ehlo,
    Etrn,
    Helo,
    Help,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Rset,
    StartTls,
    Turn,
    Vrfy,
)
from mailsuite.wire.smtp.dsn import xtext
from mailsuite.wire.smtp.grammar import decode_response, parse_command
from tests.mail.addresses import ADDRESSES, DOMAINS

KNOWN = frozenset({"SIZE", "BODY", "SMTPUTF8", "AUTH", "TRANSID", "RET", "ENVID", "REQUIRETLS", "NOTIFY", "ORCPT"})
PRINTABLE = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=50)

_LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
NAMES = st.lists(_LABELS, min_size=2, max_size=4).map(".".join)  # domains as RFC 2645 knows them, as domain keys
_TOKENS = st.from_regex(r"[!#$%&'*+\-0-9A-Z^_`a-z{|}~]{1,8}(\.[!#$%&'*+\-0-9A-Z^_`a-z{|}~]{1,8}){0,2}", fullmatch=True)
TRANSIDS = st.builds("{}@{}".format, _TOKENS, _TOKENS)

COMMANDS = st.one_of(
    st.builds(Ehlo, DOMAINS.filter(str.isascii), lmtp=st.booleans()),
    st.builds(Helo, DOMAINS.filter(str.isascii)),
    st.builds(
        Mail,
        st.none() | ADDRESSES,
        size=st.none() | st.integers(0, 10**20 - 1),
        body=st.sampled_from([None, Body.SEVEN_BIT, Body.EIGHT_BIT]),
        smtputf8=st.booleans(),
        auth=st.none() | st.just("") | PRINTABLE.filter(lambda text: text != "<>"),
        transid=st.none() | TRANSIDS,
        ret=st.sampled_from([None, *Return]),
        envid=st.none() | PRINTABLE.filter(lambda text: len(xtext(text)) <= 100),
        require_tls=st.booleans(),
    ),
    st.builds(
        Rcpt,
        ADDRESSES | st.just(Address("postmaster", "")),
        notify=st.sampled_from([None, Notify(0), *Notify, Notify.SUCCESS | Notify.DELAY]),
        orcpt=st.none() | PRINTABLE.map("rfc822;{}".format) | st.sampled_from(["utf-8;größe+x@例.example"]),
        smtputf8=st.booleans(),
    ),
    st.builds(Bdat, st.integers(0, 10**20 - 1), st.booleans()),
    st.builds(Vrfy, PRINTABLE),
    st.builds(Auth, st.sampled_from([b"PLAIN", b"SCRAM-SHA-256", b"X_Y"]).map(bytes.upper), st.none() | st.binary()),
    st.builds(Etrn, st.builds(str.__add__, st.sampled_from(["", "@"]), NAMES) | PRINTABLE.map("#{}".format)),
    st.builds(Atrn, st.lists(NAMES, unique=True, max_size=4).map(tuple)),
    st.sampled_from([Data(), Rset(), Noop(), Quit(), Help(), StartTls(), Turn()]),
)


@given(COMMANDS)
def test_command_is_read_as_it_was_written(command: Command) -> None:
    assert parse_command(command.line().removesuffix(b"\r\n"), KNOWN) == command


@given(COMMANDS.filter(lambda command: not isinstance(command, Auth)))
def test_verbs_and_keywords_are_of_any_case(command: Command) -> None:
    line = command.line().removesuffix(b"\r\n")
    verb, space, rest = line.partition(b" ")
    assert parse_command(verb.lower() + space + rest + b" \t", KNOWN) == command


@given(st.binary(max_size=60))
def test_no_line_raises(line: bytes) -> None:
    assert isinstance(parse_command(line, KNOWN), Command | Reply)


@given(
    st.sampled_from(
        [
            "MAIL FROM:",
            "RCPT TO:",
            "EHLO ",
            "BDAT ",
            "AUTH ",
            "VRFY ",
            "MAIL FROM:<a@b> ",
            "ETRN ",
            "ATRN ",
            "ETRN #",
            "TURN ",
        ]
    ),
    st.text(max_size=40),
)
def test_no_argument_raises(verb: str, argument: str) -> None:
    assert isinstance(parse_command((verb + argument).encode("utf-8", "replace"), KNOWN), Command | Reply)


@pytest.mark.parametrize(
    ("line", "response"),
    [(b"", b""), (b"*", None), (b"AAAA", b"\0\0\0"), (b"AAA=", b"\0\0"), (b"AA==", b"\0")],
)
def test_response_is_decoded(line: bytes, response: bytes | None) -> None:
    assert decode_response(line) == response


@pytest.mark.parametrize(
    "line",
    [
        *(b"=", b"A", b"AA", b"AAA", b"AA=", b"AAAAA", b"=AAA", b"AAA=BBB=", b"AA==AA==", b"AAA=A", b"A-A_", b" AAAA"),
        *(b"AAAA ", b"AAAA\n", b"AA AA", b"**", b"AAAA*", b"\xff\xff\xff\xff", b"\0"),
    ],
)
def test_response_outside_the_alphabet_is_refused(line: bytes) -> None:
    # RFC 4954 section 4: rejected, not ignored
    assert decode_response(line) == replies.AUTH_BAD_BASE64


def test_secrets_stay_out_of_reprs() -> None:
    assert "c2VjcmV0" not in repr(parse_command(b"AUTH PLAIN c2VjcmV0", KNOWN))
    assert "secret" not in repr(parse_command(b"AUTH PLAIN c2VjcmV0", KNOWN))


@pytest.mark.parametrize(
    "parameter", ["SIZE=1", "BODY=7BIT", "SMTPUTF8", "AUTH=<>", "TRANSID=<a@b>", "RET=FULL", "ENVID=a"]
)
def test_parameters_exist_only_where_they_are_offered(parameter: str) -> None:
    line = f"MAIL FROM:<a@b> {parameter}".encode()
    assert isinstance(parse_command(line, KNOWN), Mail)
    assert parse_command(line, KNOWN - {parameter.partition("=")[0]}) == replies.UNKNOWN_PARAMETER
    assert parse_command(line, frozenset()) == replies.UNKNOWN_PARAMETER


@pytest.mark.parametrize("parameter", ["NOTIFY=NEVER", "ORCPT=rfc822;a@b"])
def test_parameters_of_recipients_are_those_of_no_sender(parameter: str) -> None:
    line = f"RCPT TO:<a@b> {parameter}".encode()
    assert isinstance(parse_command(line, KNOWN), Rcpt)
    assert parse_command(line, KNOWN - {parameter.partition("=")[0]}) == replies.UNKNOWN_PARAMETER
    assert parse_command(f"MAIL FROM:<a@b> {parameter}".encode(), KNOWN) == replies.UNKNOWN_PARAMETER
    assert parse_command(b"RCPT TO:<a@b> RET=FULL", KNOWN) == replies.UNKNOWN_PARAMETER


@given(st.sampled_from(["MAIL FROM:<a@b> ", "RCPT TO:<a@b> "]), st.sampled_from(sorted(KNOWN)), st.text(max_size=40))
def test_no_value_raises(command: str, keyword: str, value: str) -> None:
    line = f"{command}{keyword}={value}".encode("utf-8", "replace")
    assert isinstance(parse_command(line, KNOWN), Mail | Rcpt | Reply)
