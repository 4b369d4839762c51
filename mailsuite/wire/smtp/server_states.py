"""What an SMTP or LMTP client may say to us when, and where an answer leads, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from types import MappingProxyType

from mailsuite.wire.core import Event
from mailsuite.wire.smtp.commands import (
    Atrn,
    Auth,
    AuthResponse,
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


class State(Enum):
    """Where the conversation is."""

    CONNECTED = auto()  # the greeting is not said yet
    REFUSING = auto()  # the greeting was 554: only QUIT is left (RFC 5321 section 3.1)
    INITIAL = auto()  # greeted, no EHLO or HELO yet
    READY = auto()
    SENDER = auto()  # MAIL was accepted
    RECIPIENTS = auto()  # so was a recipient, or all of an interrupted transaction (RFC 1845 section 3)
    CONTENT = auto()  # the content flows, by DATA or in a chunk
    CHUNKS = auto()  # between two BDAT chunks
    BROKEN = auto()  # a chunk was refused: only RSET and what implies it help (RFC 3030 section 2)
    AUTH = auto()  # within an AUTH exchange
    DONE = auto()  # closed, or handed over


# Tuples, not sets: they are searched by identity, where a set would hash an enum's member in Python code.
_OPEN = (State.INITIAL, State.READY, State.SENDER, State.RECIPIENTS, State.CHUNKS, State.BROKEN)
TRANSACTION = (State.SENDER, State.RECIPIENTS, State.CONTENT, State.CHUNKS, State.BROKEN)

LEGAL: Mapping[type[Command], tuple[State, ...]] = MappingProxyType(
    {
        Ehlo: _OPEN,
        Helo: _OPEN,
        Mail: (State.READY,),
        Rcpt: (State.SENDER, State.RECIPIENTS),
        Data: (State.RECIPIENTS,),
        Bdat: (State.RECIPIENTS, State.CHUNKS),
        Rset: _OPEN,
        Noop: _OPEN,
        Help: _OPEN,
        Vrfy: _OPEN,
        Quit: (*_OPEN, State.REFUSING),
        StartTls: (State.READY,),  # RFC 3207 section 4: after EHLO, outside a transaction
        Auth: (State.READY,),  # RFC 4954 section 4: never within a transaction
        Etrn: (State.READY,),  # RFC 1985 section 5: "as long as there is not a transaction occuring"
        Atrn: (State.READY,),  # RFC 2645 section 5.2: after EHLO and AUTH
        Turn: (State.READY,),
    }
)
"""In which states a session may see a command; elsewhere it is answered 503."""

LEADS: Mapping[tuple[type[Event] | None, int], State] = MappingProxyType(
    {
        # (what was answered, first digit of the answer): where that leads. What is not listed leads nowhere else.
        (None, 2): State.INITIAL,  # the greeting
        (None, 5): State.REFUSING,
        (Ehlo, 2): State.READY,
        (Helo, 2): State.READY,
        (Mail, 2): State.SENDER,
        (Mail, 3): State.RECIPIENTS,  # RFC 1845 section 3: the next command may be DATA
        (Rcpt, 2): State.RECIPIENTS,
        (Data, 3): State.CONTENT,
        (Auth, 3): State.AUTH,
        (Auth, 2): State.READY,
        (AuthResponse, 3): State.AUTH,
        (AuthResponse, 2): State.READY,
        (AuthResponse, 4): State.READY,
        (AuthResponse, 5): State.READY,
        (StartTls, 2): State.DONE,
        (Atrn, 2): State.DONE,  # RFC 2645 section 5.3: the roles are reversed
        (Turn, 2): State.DONE,  # RFC 821 section 3.8
        (Quit, 2): State.DONE,
    }
)

WITH_MORE: tuple[type[Event] | None, ...] = (Data, Auth, AuthResponse)
"""What may be answered 3yz (RFC 5321 section 4.2.1); MAIL as well, by 355 alone (RFC 1845 section 3)."""

WITHOUT_TLS = (Ehlo, Helo, StartTls, Noop, Quit, Rset)
"""What is taken in plaintext where TLS is demanded (RFC 3207 section 4)."""

WITHOUT_AUTH = (Ehlo, Helo, StartTls, Auth, Noop, Quit, Rset, Help)
"""What is taken before AUTH where that is demanded (RFC 4954 section 6)."""
