"""The grammar of SMTP command lines: octets in, a command or the reply to a bad one out.

It knows syntax alone: what the server offers decides which commands and parameters exist, the order of commands is the
core's.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

from mailsuite.mail import replies
from mailsuite.mail.address import parse_path
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
from mailsuite.wire.smtp.nodes import is_bare_name, parse_domains, parse_node
from mailsuite.wire.smtp.parameters import OF_MAIL, OF_RCPT, read_parameters

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_MECHANISM = re.compile(r"[A-Za-z0-9\-_]{1,20}")
_CHUNK = re.compile(r"([0-9]{1,20})( +LAST)?", re.IGNORECASE | re.ASCII)
# RFC 5321 section 4.5.3.1.2
_MAX_DOMAIN = 255

_NONE: Mapping[str, Reply] = MappingProxyType({})

Parsed = Command | Reply


def parse_command(line: bytes, parameters: Collection[str], absent: Mapping[str, Reply] = _NONE) -> Parsed:
    """The command in a line that has lost its CR LF, or the reply that refuses it.

    `parameters` are those of MAIL and RCPT that exist in this session (keywords in upper case). `absent` are the
    commands (verbs in upper case) that do not, with what refuses each of them, whatever its arguments are.
    """
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        return replies.SYNTAX_ERROR
    if not text.isprintable() and _CONTROL.search(text):
        return replies.SYNTAX_ERROR
    verb, _, argument = text.partition(" ")
    # Outside ASCII there are letters that become those of a verb in upper case (U+017F, U+0131).
    verb = verb.upper() if verb.isascii() else ""
    parse = _PARSERS.get(verb)
    if parse is None:
        return replies.UNRECOGNIZED
    return absent.get(verb) or parse(argument.strip(" \t"), parameters)


def decode_response(line: bytes) -> bytes | Reply | None:
    """A line of an AUTH exchange: the decoded response, None where it cancels, or the refusal (RFC 4954 section 4)."""
    if line == b"*":
        return None
    try:
        return b64decode(line, validate=True)
    except (binascii.Error, ValueError):
        return replies.AUTH_BAD_BASE64


def _mail(argument: str, known: Collection[str]) -> Parsed:
    # RFC 5321 section 4.1.1.2
    if argument[:5].upper() != "FROM:":
        return replies.BAD_ARGUMENTS.saying("Syntax: MAIL FROM:<address>")
    path = parse_path(argument[5:].lstrip(" "))
    if path is None:
        return replies.BAD_SENDER_SYNTAX
    address, rest = path
    if address is not None and not address.domain:
        return replies.BAD_SENDER_SYNTAX  # a mailbox without a domain is for RCPT only (section 4.1.1.3)
    if not rest:
        return Mail(address)
    given = read_parameters(rest, known, OF_MAIL)
    return given if isinstance(given, Reply) else Mail(address, **given)


def _rcpt(argument: str, known: Collection[str]) -> Parsed:
    # RFC 5321 section 4.1.1.3
    if argument[:3].upper() != "TO:":
        return replies.BAD_ARGUMENTS.saying("Syntax: RCPT TO:<address>")
    path = parse_path(argument[3:].lstrip(" "))
    if path is None:
        return replies.BAD_RECIPIENT_SYNTAX
    address, rest = path
    if address is None:
        return replies.BAD_RECIPIENT_SYNTAX
    if not rest:
        return Rcpt(address)
    given = read_parameters(rest, known, OF_RCPT)
    return given if isinstance(given, Reply) else Rcpt(address, **given)


def _ehlo(argument: str, _known: Collection[str]) -> Parsed:
    # RFC 5321 section 4.1.1.1. Real clients say many things that are no domain; what they say proves nothing, so
    # anything that is one printable ASCII word is taken.
    return Ehlo(argument) if _is_word(argument) else replies.BAD_ARGUMENTS.saying("Syntax: EHLO domain")


def _lhlo(argument: str, _known: Collection[str]) -> Parsed:
    # RFC 2033 section 4.1
    return Ehlo(argument, lmtp=True) if _is_word(argument) else replies.BAD_ARGUMENTS.saying("Syntax: LHLO domain")


def _helo(argument: str, _known: Collection[str]) -> Parsed:
    return Helo(argument) if _is_word(argument) else replies.BAD_ARGUMENTS.saying("Syntax: HELO domain")


def _is_word(argument: str) -> bool:
    return 0 < len(argument) <= _MAX_DOMAIN and argument.isascii() and argument.isprintable() and " " not in argument


def _bdat(argument: str, _known: Collection[str]) -> Parsed:
    # RFC 3030 section 2
    match = _CHUNK.fullmatch(argument)
    if match is None:
        return replies.BAD_ARGUMENTS.saying("Syntax: BDAT size [LAST]")
    return Bdat(int(match[1]), last=match[2] is not None)


def _auth(argument: str, _known: Collection[str]) -> Parsed:
    # RFC 4954 section 4
    words = argument.split(" ")
    if not _MECHANISM.fullmatch(words[0]) or len(words) > 2:
        return replies.BAD_ARGUMENTS.saying("Syntax: AUTH mechanism [initial-response]")
    mechanism = words[0].upper().encode("ascii")
    if len(words) == 1:
        return Auth(mechanism)
    if words[1] == "=":
        return Auth(mechanism, b"")
    initial = decode_response(words[1].encode("utf-8"))
    return Auth(mechanism, initial) if isinstance(initial, bytes) else replies.AUTH_BAD_BASE64


def _etrn(argument: str, _known: Collection[str]) -> Parsed:
    # RFC 1985 section 5; its section 7 has 500 where there is no node at all
    if not argument:
        return replies.SYNTAX_ERROR.saying("Syntax: ETRN [@ or #]node")
    node = parse_node(argument)
    return replies.BAD_ARGUMENTS.saying("ETRN takes a domain, @domain or #queue") if node is None else Etrn(node)


def _atrn(argument: str, _known: Collection[str]) -> Parsed:
    # RFC 2645 section 5.2.1
    domains = parse_domains(argument) if argument else ()
    if domains is not None:
        return Atrn(domains)
    # Mostly it is the bare name of a host, which fetchmail sends where it is told of no domain.
    if any(is_bare_name(word.strip(" \t")) for word in argument.split(",")):
        return replies.BAD_ARGUMENTS.saying("Name the domain whole, as in ATRN home.example")
    return replies.BAD_ARGUMENTS.saying("Syntax: ATRN [domain,...]")


def _expn(_argument: str, _known: Collection[str]) -> Parsed:
    return replies.NOT_IMPLEMENTED  # RFC 5321 section 4.2.4: known, and not here


def _vrfy(argument: str, _known: Collection[str]) -> Parsed:
    return Vrfy(argument) if argument else replies.BAD_ARGUMENTS.saying("Syntax: VRFY address")


def _bare(command: type[Command]) -> Callable[[str, Collection[str]], Parsed]:
    """A command that takes no arguments (RFC 5321 section 4.1.1: 501 where it is given one)."""
    value = command()

    def parse(argument: str, _known: Collection[str]) -> Parsed:
        return replies.NO_ARGUMENTS if argument else value

    return parse


_PARSERS: dict[str, Callable[[str, Collection[str]], Parsed]] = {
    "EHLO": _ehlo,
    "LHLO": _lhlo,
    "HELO": _helo,
    "MAIL": _mail,
    "RCPT": _rcpt,
    "DATA": _bare(Data),
    "BDAT": _bdat,
    "RSET": _bare(Rset),
    "NOOP": lambda _argument, _known: Noop(),
    "QUIT": _bare(Quit),
    "HELP": lambda argument, _known: Help(argument),
    "VRFY": _vrfy,
    "EXPN": _expn,
    "STARTTLS": _bare(StartTls),
    "AUTH": _auth,
    "ETRN": _etrn,
    "ATRN": _atrn,
    "TURN": _bare(Turn),
}
