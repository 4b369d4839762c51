"""What a peer sends, on its way in: octets that must be UTF-8, within bounds, and names prepared by SASLprep.

Names are prepared as query strings (RFC 4616 section 3, RFC 5802 section 5.1).
"""

from __future__ import annotations

from mailsuite.wire.sasl.saslprep import prepare_query

MAX_NAME = 255
"""Octets. RFC 4616 section 2 has a server accept as many; no account's name is longer."""

MAX_PASSWORD = 1024
"""Octets, well over the 255 that RFC 4616 section 2 has a server accept."""


class Unacceptable(Exception):
    """A peer's response cannot be accepted. `malformed` tells bad syntax from a name that cannot exist."""

    def __init__(self, *, malformed: bool) -> None:
        super().__init__("malformed response" if malformed else "unacceptable name")
        self.malformed = malformed


def decoded(data: bytes, limit: int) -> str:
    """What the octets say. Unacceptable when empty, over `limit` octets, not UTF-8, or with a NUL in them."""
    if not 0 < len(data) <= limit or b"\0" in data:
        raise Unacceptable(malformed=True)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise Unacceptable(malformed=True) from None


def prepared_name(data: bytes) -> str:
    """The name, an authcid or an authzid, that a peer sent. Unacceptable where none can be made of it."""
    text = decoded(data, MAX_NAME)
    try:
        prepared = prepare_query(text)
    except ValueError:
        # RFC 4954 section 4, RFC 5802 section 5.1: authentication fails.
        raise Unacceptable(malformed=False) from None
    # Compatibility forms unfold: 255 octets may become thousands.
    if len(prepared.encode("utf-8")) > MAX_NAME:
        raise Unacceptable(malformed=False)
    return prepared


def checked_password(data: bytes) -> bytes:
    """The password as the peer sent it. Unacceptable where it breaks RFC 4616's grammar or our bound."""
    decoded(data, MAX_PASSWORD)
    return data
