"""The parameters of MAIL and RCPT: `keyword[=value]`, as values for the fields of `Mail` and `Rcpt`.

Which of them exist in a session is what the server has offered; here they are read, or refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any

from mailsuite.mail import replies
from mailsuite.mail.envelope import Body
from mailsuite.mail.options import Return
from mailsuite.mail.reply import Reply
from mailsuite.wire.smtp.checkpoint import is_transid
from mailsuite.wire.smtp.dsn import decode_envid, decode_notify, decode_orcpt, decode_xtext

Table = Mapping[str, tuple[str, Callable[[str | None], Any]]]
"""By keyword: the field, and what reads the value for it, or gives the `Reply` that refuses it."""

_KEYWORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9\-]*")
_VALUE = re.compile(r"[^\x00-\x20=\x7f]+")
# RFC 1870 section 3: the value of SIZE has at most 20 digits.
_SIZE = re.compile(r"[0-9]{1,20}")

_BODIES = {str(body): body for body in (Body.SEVEN_BIT, Body.EIGHT_BIT)}
_RETURNS = {str(what): what for what in Return}


def read_parameters(rest: str, known: Collection[str], table: Table) -> dict[str, Any] | Reply:
    """`SP keyword[=value]` again and again (RFC 5321 section 4.1.2, esmtp-param): the fields that they give."""
    if not rest.startswith(" "):
        return replies.BAD_ARGUMENTS.saying("Something stands behind the path")
    given: dict[str, Any] = {}
    for word in rest.replace("\t", " ").split(" "):
        if not word:
            continue
        keyword, equals, value = word.partition("=")
        if not _KEYWORD.fullmatch(keyword) or (equals and not _VALUE.fullmatch(value)):
            return replies.BAD_ARGUMENTS.saying("Bad parameter syntax")
        keyword = keyword.upper()
        entry = table.get(keyword)
        if entry is None or keyword not in known:
            return replies.UNKNOWN_PARAMETER
        field, read = entry
        if field in given:
            return replies.BAD_ARGUMENTS.saying(f"{keyword} is given twice")
        given[field] = found = read(value if equals else None)
        if isinstance(found, Reply):
            return found
    return given


def _size(value: str | None) -> int | Reply:
    # RFC 1870 section 3
    if value is None or not _SIZE.fullmatch(value):
        return replies.BAD_ARGUMENTS.saying("SIZE takes a number of octets")
    return int(value)


def _body(value: str | None) -> Body | Reply:
    # RFC 6152 section 2
    if value is None:
        return replies.BAD_ARGUMENTS.saying("BODY takes a value")
    body = _BODIES.get(value.upper()) if value.isascii() else None
    # RFC 5321 section 4.1.1.11. BINARYMIME is another extension (RFC 3030), which is not offered.
    return replies.UNKNOWN_PARAMETER.saying("This BODY is not offered") if body is None else body


def _flag(keyword: str) -> Callable[[str | None], bool | Reply]:
    """A parameter without a value."""

    def read(value: str | None) -> bool | Reply:
        return True if value is None else replies.BAD_ARGUMENTS.saying(f"{keyword} takes no value")

    return read


def _auth(value: str | None) -> str | Reply:
    # RFC 4954 section 5
    decoded = None if value is None else decode_xtext(value)
    if decoded is None:
        return replies.BAD_ARGUMENTS.saying("AUTH takes an address in xtext, or <>")
    return "" if decoded == "<>" else decoded


def _transid(value: str | None) -> str | Reply:
    # RFC 1845 section 2
    if value is None or value[:1] != "<" or value[-1:] != ">" or not is_transid(value[1:-1]):
        return replies.BAD_ARGUMENTS.saying("TRANSID takes <local@domain>")
    return value[1:-1]


def _ret(value: str | None) -> Return | Reply:
    # RFC 3461 section 4.3
    ret = _RETURNS.get(value.upper()) if value is not None and value.isascii() else None
    return replies.BAD_ARGUMENTS.saying("RET takes FULL or HDRS") if ret is None else ret


def _envid(value: str | None) -> str | Reply:
    # RFC 3461 section 4.4
    envid = None if value is None else decode_envid(value)
    return replies.BAD_ARGUMENTS.saying("ENVID takes up to 100 characters of xtext") if envid is None else envid


def _notify(value: str | None) -> Any:  # noqa: ANN401 - a Notify or a Reply
    # RFC 3461 section 4.1
    notify = None if value is None else decode_notify(value)
    text = "NOTIFY takes NEVER, or some of SUCCESS,FAILURE,DELAY"
    return replies.BAD_ARGUMENTS.saying(text) if notify is None else notify


def _orcpt(value: str | None) -> str | Reply:
    # RFC 3461 section 4.2
    orcpt = None if value is None else decode_orcpt(value)
    text = "ORCPT takes an address type and an address in xtext"
    return replies.BAD_ARGUMENTS.saying(text) if orcpt is None else orcpt


OF_MAIL: Table = MappingProxyType(
    {
        "SIZE": ("size", _size),
        "BODY": ("body", _body),
        "SMTPUTF8": ("smtputf8", _flag("SMTPUTF8")),  # RFC 6531 section 3.4
        "AUTH": ("auth", _auth),
        "TRANSID": ("transid", _transid),
        "RET": ("ret", _ret),
        "ENVID": ("envid", _envid),
        "REQUIRETLS": ("require_tls", _flag("REQUIRETLS")),  # RFC 8689 section 2
    }
)

OF_RCPT: Table = MappingProxyType({"NOTIFY": ("notify", _notify), "ORCPT": ("orcpt", _orcpt)})
