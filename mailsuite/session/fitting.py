"""What a message asks of the next hop: the MAIL command that it needs, and who fails where that is not offered.

Known limits: content is not converted. 8-bit content goes as it is to a server without 8BITMIME, as most mail servers
send it, though RFC 6152 section 3 wants it converted or refused. Of a message that was sent with SMTPUTF8 only the
header is looked at when the next hop has no SMTPUTF8, not the headers of its MIME parts.
"""

from __future__ import annotations

from typing import Final

from mailsuite.mail.address import Address
from mailsuite.mail.content import Content
from mailsuite.mail.envelope import Body
from mailsuite.mail.queue import Outcome, Result
from mailsuite.mail.status import EnhancedStatus
from mailsuite.session.attempt import Attempt
from mailsuite.session.wishes import is_redistributed
from mailsuite.wire.smtp.capabilities import Capabilities
from mailsuite.wire.smtp.commands import Mail

_MAX_HEADER: Final = 1024 * 1024  # octets
_BLOCK: Final = 64 * 1024

_TOO_BIG: Final = EnhancedStatus(5, 3, 4)  # RFC 1870 section 6.2
_CONVERSION: Final = EnhancedStatus(5, 6, 3)  # RFC 3463 section 3.7
_ENCRYPTION_NEEDED: Final = EnhancedStatus(5, 7, 10)  # RFC 8689 section 4.2.1
_REQUIRETLS_NEEDED: Final = EnhancedStatus(5, 7, 30)  # RFC 8689 section 4.2.1
_NON_ASCII_ADDRESS: Final = EnhancedStatus(5, 6, 7)  # RFC 6531 section 3.5
_NON_ASCII_HEADER: Final = EnhancedStatus(5, 6, 9)  # RFC 6531 section 3.5


async def fit(
    attempt: Attempt, offers: Capabilities, *, chunking: bool, authenticated: bool, secure: bool | None
) -> Mail | None:
    """The MAIL command for a delivery. Settles those who cannot be served; None where nobody remains.

    `chunking` says whether BDAT may be used, `secure` that the connection is under TLS; that is None where it
    does not leave this machine. Raises `OSError` where the content cannot be read.
    """
    envelope = attempt.delivery.message.envelope
    if envelope.options.require_tls and secure is not None and not _may_have_required(attempt, offers, secure=secure):
        return None
    size = attempt.delivery.content.size
    if offers.max_size is not None and size > offers.max_size:
        attempt.refuse(_TOO_BIG, f"the message has {size} octets, {attempt.remote} takes {offers.max_size}")
        return None
    body = None if envelope.body is Body.SEVEN_BIT else envelope.body
    if body is Body.BINARY and not (offers.binarymime and chunking):
        # RFC 3030 section 3: binary content never goes to a server that does not take it.
        attempt.refuse(_CONVERSION, f"{attempt.remote} takes no binary content")
        return None
    if body is Body.EIGHT_BIT and not offers.eightbitmime:
        body = None
    reverse_path = sender = attempt.delivery.reverse_path
    utf8 = _wants_utf8(attempt)
    if utf8 and not offers.smtputf8:
        utf8 = False
        if reverse_path is not None:
            reverse_path = in_ascii(reverse_path)
        if not await _fits_ascii(attempt, without_sender=reverse_path is None and sender is not None):
            return None
    options = envelope.options
    attempt.dsn_passed_on = dsn = offers.dsn
    asked = dsn and not is_redistributed(attempt.delivery)
    return Mail(
        reverse_path,
        size=size if offers.size else None,
        body=body,
        smtputf8=utf8,
        # RFC 4954 section 5: we authenticate ourselves, and vouch for no sender.
        auth="" if authenticated and offers.auth else None,
        # RFC 3461 section 5.2.1 (a), (b). Nobody gets a report on a message from nobody.
        ret=options.ret if asked and reverse_path is not None else None,
        envid=options.envid if asked else None,
        require_tls=options.require_tls and bool(secure) and offers.requiretls,
    )


def _may_have_required(attempt: Attempt, offers: Capabilities, *, secure: bool) -> bool:
    """Whether mail that requires TLS may go on here; else its recipients have failed (RFC 8689 section 4.2.1).

    That the host is who it should be is for whoever has dialled to see to.
    """
    if attempt.delivery.reverse_path is None:
        return True  # section 5: the parameter "SHOULD NOT cause a bounce message to be discarded"
    if not secure:
        attempt.refuse(_ENCRYPTION_NEEDED, f"the message requires TLS, and the connection to {attempt.remote} has none")
        return False
    if not offers.requiretls:
        attempt.refuse(_REQUIRETLS_NEEDED, f"the message requires TLS, and {attempt.remote} does not offer REQUIRETLS")
        return False
    return True


def in_ascii(address: Address) -> Address | None:
    """The address with its domain in A-labels (RFC 6531 section 3.2); None where that does not make it ASCII."""
    converted = address if address.is_ascii else Address(address.local_part, address.domain_key)
    return converted if converted.is_ascii else None


def _wants_utf8(attempt: Attempt) -> bool:
    envelope = attempt.delivery.message.envelope
    sender = attempt.delivery.reverse_path
    if envelope.smtputf8 or not (sender is None or sender.is_ascii):
        return True
    return not all(recipient.address.is_ascii for recipient in attempt.delivery.recipients)


async def _fits_ascii(attempt: Attempt, *, without_sender: bool) -> bool:
    """Fail whom a server without SMTPUTF8 cannot serve. True where somebody remains."""
    lacking = f"{attempt.remote} does not take internationalized mail (SMTPUTF8)"
    if without_sender:
        attempt.refuse(_NON_ASCII_ADDRESS, f"{lacking}, and the sender's address needs it")
        return False
    recipients = attempt.delivery.recipients
    for index in attempt.waiting:
        if in_ascii(recipients[index].address) is None:
            text = f"{lacking}, and the recipient's address needs it"
            attempt.settle(index, Outcome(Result.FAILED, _NON_ASCII_ADDRESS, text, remote=attempt.remote))
    if not attempt.waiting:
        return False
    if attempt.delivery.message.envelope.smtputf8 and not await _has_ascii_header(attempt.delivery.content):
        # RFC 6531 section 3.2: nor may a message with internationalized headers go there.
        attempt.refuse(_NON_ASCII_HEADER, f"{lacking}, and the message's header needs it")
        return False
    return True


async def _has_ascii_header(content: Content) -> bool:
    tail = b""
    for offset in range(0, min(content.size, _MAX_HEADER), _BLOCK):
        block = tail + await content.read(offset, _BLOCK)
        end = block.find(b"\r\n\r\n")
        if not (block if end < 0 else block[:end]).isascii():
            return False
        if end >= 0:
            return True
        tail = block[-3:]
    return True
