"""Why a connection ended, in our words: they go to logs, tables and senders, who need not know Twisted's."""

from __future__ import annotations

from typing import Final

from OpenSSL import SSL
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.python.failure import Failure

BROKE: Final = "the line broke"


def describe_loss(reason: Failure) -> str:
    """What to tell of a transport that was lost for this reason."""
    error = reason.value
    if isinstance(error, ConnectionAborted):
        return "the connection was aborted"
    if isinstance(error, ConnectionDone):
        return "the peer has closed the connection"
    if isinstance(error, (ConnectionLost, OSError)):
        return BROKE
    if isinstance(error, SSL.Error):
        return f"{BROKE} (TLS)"
    return reason.getErrorMessage() or BROKE
