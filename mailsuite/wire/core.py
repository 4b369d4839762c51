"""The core contract: what every protocol core promises to whoever drives it.

A core knows the grammar and the order of one protocol in one role. It does no I/O and keeps no time. Its driver
(`mailsuite.net.connection`, or a test) feeds it octets and takes events out; a session answers the events.

- `receive_data` and `next_event` never raise on anything a peer may send.
- `next_event` answers `NEED_DATA` when it must see more octets, and `PAUSED` while something that was handed out has
  not been answered by `send`: pipelined commands wait for their turn, however slow the answer.
- What a core can answer by itself (bad syntax, bad order) it hands out as an `Answer`: octets that the driver writes;
  the session never sees it.
- `send` takes what the session says and returns the octets. Saying what may not be said now is our own fault and
  raises `LocalProtocolError`.
- After a positive reply that turns the connection into something else (STARTTLS, ATRN, TURN), the core is done: it
  parses nothing more, and `trailing_data` holds the octets that it was given and did not use.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final, Protocol


class Signal(Enum):
    """Why there is no event."""

    NEED_DATA = auto()
    PAUSED = auto()


NEED_DATA: Final = Signal.NEED_DATA
PAUSED: Final = Signal.PAUSED


class Role(Enum):
    """Which side of the protocol a core plays."""

    SERVER = auto()
    CLIENT = auto()


class Phase(Enum):
    """What is being waited for: names the limit of time that applies (RFC 5321 section 4.5.3.2).

    The driver looks the seconds up in its settings and enforces them.
    """

    GREETING = "greeting"  # client: the initial 220
    COMMAND = "command"  # server: the next command
    RESPONSE = "response"  # client: the reply to a command that has no limit of its own (EHLO, AUTH, STARTTLS ...)
    MAIL = "mail"  # client: the reply to MAIL
    RECIPIENT = "recipient"  # client: the reply to RCPT
    DATA_INITIATION = "data-initiation"  # client: the 354
    DATA_BLOCK = "data-block"  # both: progress while content flows
    DATA_TERMINATION = "data-termination"  # client: the reply to the end of the content
    TURN = "turn"  # client: the reply to ATRN or TURN (RFC 2645 section 5.2.1: at least 10 minutes)
    QUIT = "quit"  # client: the 221; nothing depends on it any more, so this limit is short
    WORKING = "working"  # nothing is expected of the peer: we are the ones who are slow


class LocalProtocolError(Exception):
    """We said what may not be said in this state: a defect of ours."""


class RemoteProtocolError(Exception):
    """The peer broke the protocol beyond repair: the connection is of no more use."""


class ConnectionClosed(Exception):
    """The connection has ended, or was lost."""


class PeerTooSlow(Exception):
    """The limit of time of the present phase has passed."""

    def __init__(self, phase: Phase) -> None:
        super().__init__(f"the limit of time for {phase.value} has passed")
        self.phase = phase


class Event:
    """Something a core hands out."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Answer(Event):
    """Octets by which a core answers on its own account; `closing` says that the connection ends after them."""

    data: bytes
    closing: bool = False


@dataclass(frozen=True, slots=True)
class Violation(Event):
    """What the peer sent cannot be understood; the driver raises it into the session as `RemoteProtocolError`."""

    reason: str


@dataclass(frozen=True, slots=True)
class EndOfFile(Event):
    """The peer has ended its side; the driver raises it into the session as `ConnectionClosed`."""


class Core(Protocol):
    """What the driver asks of every core. See the head of this module."""

    @property
    def role(self) -> Role:
        """The side this core plays."""

    @property
    def timeout(self) -> Phase:
        """The limit that applies to the present wait."""

    @property
    def trailing_data(self) -> bytes:
        """Octets that were received and not parsed, once the core is done."""

    @property
    def buffered(self) -> int:
        """How many received octets wait to be parsed; past a bound the driver pauses the transport."""

    def receive_data(self, data: bytes) -> None:
        """Take what the peer sent; empty octets say that it has ended its side."""

    def next_event(self) -> Event | Signal:
        """The next event, or why there is none."""

    def send(self, message: Any) -> bytes:  # noqa: ANN401 - each core has messages of its own
        """Turn what the session says into octets. Raises `LocalProtocolError` where it may not be said now."""
