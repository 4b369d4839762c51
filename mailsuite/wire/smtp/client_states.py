"""What an SMTP or LMTP client may say when, and where a reply leads, as tables.

A client that pipelines has two states: the one that replies have confirmed, and the one that it speaks in, where
everything unanswered will have gone well. `LEGAL` asks the second. `LEADS` moves the first, and by `expected` gives
the second from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum, auto
from types import MappingProxyType

from mailsuite.mail.envelope import Body
from mailsuite.wire.core import Phase
from mailsuite.wire.smtp.checkpoint import KEYWORD as CHECKPOINT
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
from mailsuite.wire.smtp.dsn import KEYWORD as DSN


class State(Enum):
    """Where the conversation is."""

    CONNECTED = auto()  # the greeting has not come yet
    REFUSED = auto()  # it was negative: only QUIT is left (RFC 5321 section 3.1)
    INITIAL = auto()  # greeted, no EHLO or HELO accepted yet
    READY = auto()  # no transaction
    SENDER = auto()  # MAIL was accepted
    RECIPIENTS = auto()  # so was a recipient, or MAIL has resumed a transaction (RFC 1845 section 3)
    CONTENT = auto()  # the 354 has come
    CHUNKS = auto()  # between two BDAT chunks
    BROKEN = auto()  # a chunk was refused: "A RSET command MUST be issued" (RFC 3030 section 2)
    AUTH = auto()  # within an AUTH exchange, and it is our turn
    DONE = auto()  # STARTTLS, ATRN or TURN was accepted: nothing more is said or parsed
    CLOSING = auto()  # 421 or the answer to QUIT has come, or what came cannot be understood


class Kind(Enum):
    """What a reply answers."""

    HELLO = auto()
    MAIL = auto()
    CHECKPOINTED_MAIL = auto()  # MAIL with a TRANSID: it may be answered by 355
    RCPT = auto()
    DATA = auto()
    CONTENT = auto()  # the end of the content after DATA; of all content in LMTP
    CHUNK = auto()  # a BDAT chunk that is not the last
    LAST_CHUNK = auto()
    RSET = auto()
    QUERY = auto()  # it changes nothing
    QUIT = auto()
    STARTTLS = auto()
    AUTH = auto()
    TURN = auto()


KINDS: Mapping[type[Command], Kind] = MappingProxyType(
    {
        Ehlo: Kind.HELLO,
        Helo: Kind.HELLO,
        Mail: Kind.MAIL,
        Rcpt: Kind.RCPT,
        Data: Kind.DATA,
        Bdat: Kind.CHUNK,
        Rset: Kind.RSET,
        Noop: Kind.QUERY,
        Vrfy: Kind.QUERY,
        Help: Kind.QUERY,
        Quit: Kind.QUIT,
        StartTls: Kind.STARTTLS,
        Auth: Kind.AUTH,
        AuthResponse: Kind.AUTH,
        Etrn: Kind.QUERY,
        Atrn: Kind.TURN,
        Turn: Kind.TURN,
    }
)

_TRANSACTION = frozenset({State.SENDER, State.RECIPIENTS, State.CHUNKS, State.BROKEN})
_IDLE = frozenset({State.INITIAL, State.READY})

LEGAL: Mapping[type[Command], frozenset[State]] = MappingProxyType(
    {
        # RFC 5321 section 4.1.4: EHLO comes first; later ones are legal, and needless within a transaction.
        Ehlo: _IDLE,
        Helo: _IDLE,
        Mail: frozenset({State.READY}),
        Rcpt: frozenset({State.SENDER, State.RECIPIENTS}),
        Data: frozenset({State.RECIPIENTS}),
        Bdat: frozenset({State.RECIPIENTS, State.CHUNKS}),
        Rset: frozenset({State.READY}) | _TRANSACTION,
        Noop: _IDLE | _TRANSACTION - {State.BROKEN},
        Vrfy: _IDLE | _TRANSACTION - {State.BROKEN},
        Help: _IDLE | _TRANSACTION - {State.BROKEN},
        Quit: _IDLE | _TRANSACTION | {State.REFUSED},
        StartTls: frozenset({State.READY}),
        Auth: frozenset({State.READY}),  # RFC 4954 section 4: never during a mail transaction
        AuthResponse: frozenset({State.AUTH}),
        Etrn: frozenset({State.READY}),  # RFC 1985 section 5: never during a mail transaction
        Atrn: frozenset({State.READY}),
        Turn: frozenset({State.READY}),
    }
)
"""In which states a command may be said."""

ENDS_GROUP: frozenset[type[Command]] = frozenset(
    # RFC 2920 section 3.1, TURN too; RFC 3207 section 4 for STARTTLS, RFC 4954 section 4 for AUTH. Nothing is said of
    # ETRN, so it stands alone; and what stood behind ATRN would be for another server.
    {Ehlo, Helo, Data, Vrfy, Noop, Help, Quit, StartTls, Auth, AuthResponse, Etrn, Atrn, Turn}
)
"""Commands behind which nothing may be said before their answer."""

LEADS: Mapping[Kind, Mapping[int, State | None]] = MappingProxyType(
    {
        Kind.HELLO: {2: State.READY, 4: None, 5: None},
        Kind.MAIL: {2: State.SENDER, 4: None, 5: None},
        Kind.CHECKPOINTED_MAIL: {2: State.SENDER, 3: State.RECIPIENTS, 4: None, 5: None},
        Kind.RCPT: {2: State.RECIPIENTS, 4: None, 5: None},
        Kind.DATA: {3: State.CONTENT, 4: None, 5: None},
        Kind.CONTENT: {2: State.READY, 4: State.READY, 5: State.READY},
        Kind.CHUNK: {2: State.CHUNKS, 4: State.BROKEN, 5: State.BROKEN},
        Kind.LAST_CHUNK: {2: State.READY, 4: State.BROKEN, 5: State.BROKEN},
        Kind.RSET: {2: State.READY, 4: None, 5: None},
        Kind.QUERY: {2: None, 4: None, 5: None},
        Kind.QUIT: {2: State.CLOSING, 4: State.CLOSING, 5: State.CLOSING},
        Kind.STARTTLS: {2: State.DONE, 4: None, 5: None},
        Kind.TURN: {2: State.DONE, 4: None, 5: None},
        Kind.AUTH: {2: State.READY, 3: State.AUTH, 4: State.READY, 5: State.READY},
    }
)
"""Where the first digit of a reply leads; None stays. A digit that is not listed is none that may come.

What was hoped for stands first. 421 leads to `CLOSING`, whatever it answers.
"""

PHASES: Mapping[Kind, Phase] = MappingProxyType(
    {
        Kind.MAIL: Phase.MAIL,
        Kind.CHECKPOINTED_MAIL: Phase.MAIL,
        Kind.RCPT: Phase.RECIPIENT,
        Kind.DATA: Phase.DATA_INITIATION,
        Kind.CONTENT: Phase.DATA_TERMINATION,
        Kind.CHUNK: Phase.DATA_BLOCK,
        Kind.LAST_CHUNK: Phase.DATA_TERMINATION,
        Kind.TURN: Phase.TURN,
        Kind.QUIT: Phase.QUIT,
    }
)
"""The limit of time for what waits for its reply, where it is not `Phase.RESPONSE` (RFC 5321 section 4.5.3.2)."""

_EXPECTED = {kind: next(iter(leads.values())) for kind, leads in LEADS.items()}


def expected(state: State, unanswered: Iterable[Kind]) -> State:
    """The state in which a client speaks: where `unanswered` leads if all goes well."""
    for kind in unanswered:
        state = _EXPECTED[kind] or state
    return state


_NEEDED: Mapping[type[Command], str] = MappingProxyType(
    {
        Bdat: "CHUNKING",  # RFC 3030 section 2
        StartTls: "STARTTLS",  # RFC 3207 section 3
        Auth: "AUTH",  # RFC 4954 section 3
        Etrn: "ETRN",  # RFC 1985 section 3
        Atrn: "ATRN",  # RFC 2645 section 5.1.1
    }
)


def needed_keywords(command: Command) -> Iterator[str]:
    """The EHLO keywords without which a command, or a parameter of it, may not be said."""
    keyword = _NEEDED.get(type(command))
    if keyword is not None:
        yield keyword
    elif isinstance(command, Mail):
        yield from _needed_by_mail(command)
    elif isinstance(command, Rcpt) and (command.notify is not None or command.orcpt is not None):
        yield DSN  # RFC 3461 section 5.2.2


def _needed_by_mail(command: Mail) -> Iterator[str]:
    if command.size is not None:
        yield "SIZE"  # RFC 1870 section 4
    if command.body is Body.BINARY:
        yield from ("BINARYMIME", "CHUNKING")  # RFC 3030 section 3
    elif command.body is not None:
        yield "8BITMIME"  # RFC 6152 section 2
    if command.smtputf8:
        yield "SMTPUTF8"  # RFC 6531 section 3.1
    if command.auth is not None:
        yield "AUTH"  # RFC 4954 section 5
    if command.transid is not None:
        yield CHECKPOINT  # RFC 1845 section 2
    if command.ret is not None or command.envid is not None:
        yield DSN  # RFC 3461 section 5.2.2
    if command.require_tls:
        yield "REQUIRETLS"  # RFC 8689 section 2
