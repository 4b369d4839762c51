"""The server side of every mechanism: the contract, its parameters, and the order of its steps.

A mechanism does no I/O and looks nothing up. It is driven one step at a time:

    begin -> Challenge    -> respond -> ...
             NeedSecret   -> supply  -> ...
             Check, Verified, Refused: over

Rules: nothing a peer sends raises; what the driver does out of order raises `LocalProtocolError`. An account
that does not exist takes the same steps as one whose password was wrong, and ends in
`Refused(malformed=False)`.

Known limits: two addresses of one account have one SCRAM salt, which those of a decoy cannot know to imitate. Whoever
guesses both learns that they belong together.
"""

from __future__ import annotations

import base64
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from types import MappingProxyType
from typing import ClassVar, Protocol

from mailsuite.mail.scram import DEFAULT_ITERATIONS
from mailsuite.wire.core import LocalProtocolError
from mailsuite.wire.sasl.prepare import Unacceptable
from mailsuite.wire.sasl.steps import Challenge, Check, NeedSecret, Refused, Step, StoredSecret, Verified

_PROCESS_KEY = secrets.token_bytes(32)


def fresh_nonce() -> bytes:
    """A new nonce of 144 random bits in printable ASCII without a comma (RFC 5802 section 5.1)."""
    return base64.b64encode(secrets.token_bytes(18))


def _random_number() -> int:
    return secrets.randbits(64)


@dataclass(frozen=True, slots=True)
class ServerParameters:
    """What server-side mechanisms are made with. One for a whole service; it is not changed by use.

    `hostname` is our fully qualified name, for CRAM-MD5's challenge. `decoy_key` makes up the salts of
    accounts that do not exist. Keep it over restarts, or a salt that changes with one tells that there is no
    such account. Without it the process has a key of its own. `decoy_iterations` is what the real accounts
    have, commonly. `canonical` gives the one spelling of all those that the directory takes for the same name,
    so that a decoy has one salt for them all, as an account has; it never raises.
    """

    hostname: bytes = b"localhost"
    clock: Callable[[], float] = time.time
    random_number: Callable[[], int] = _random_number
    nonce: Callable[[], bytes] = fresh_nonce
    decoy_key: bytes = field(default=_PROCESS_KEY, repr=False)
    decoy_iterations: int = DEFAULT_ITERATIONS
    canonical: Callable[[str], str] = str.casefold


class ServerMechanism(Protocol):
    """One authentication exchange, server side. Made for one AUTH command, then thrown away."""

    @property
    def name(self) -> bytes:
        """The mechanism's registered name, in upper case."""

    @property
    def client_first(self) -> bool:
        """Whether an initial response is allowed. Where it is not, one is malformed (RFC 4954 section 4)."""

    def begin(self, initial: bytes | None) -> Step:
        """Start. `initial` is the decoded initial response, None when the client sent none, b"" for `=`."""

    def respond(self, response: bytes) -> Step:
        """Take the decoded answer to a `Challenge`."""

    def supply(self, secret: StoredSecret | None) -> Step:
        """Take the answer to a `NeedSecret`: None when there is no such account, or it has no such secret."""


class _Turn(Enum):
    BEGIN = auto()
    RESPOND = auto()
    SUPPLY = auto()
    OVER = auto()


_AFTER: Mapping[type[Step], _Turn] = MappingProxyType(
    {
        Challenge: _Turn.RESPOND,
        NeedSecret: _Turn.SUPPLY,
        Check: _Turn.OVER,
        Verified: _Turn.OVER,
        Refused: _Turn.OVER,
    }
)


class ServerStepper(ABC):
    """A `ServerMechanism` that keeps the order of steps; what each step does is said by the mechanism.

    `_next` and `_supplied` may raise `Unacceptable` for what the peer sent.
    """

    __slots__ = ("_parameters", "_turn")

    name: ClassVar[bytes]
    client_first: ClassVar[bool]

    def __init__(self, parameters: ServerParameters) -> None:
        self._parameters = parameters
        self._turn = _Turn.BEGIN

    def begin(self, initial: bytes | None) -> Step:
        self._take(_Turn.BEGIN)
        if initial is None:
            return self._give(self._opening)
        if not self.client_first:
            # RFC 4954 section 4: 501 for an initial response where the client does not begin.
            return self._give(_malformed)
        return self._give(lambda: self._next(initial))

    def respond(self, response: bytes) -> Step:
        self._take(_Turn.RESPOND)
        return self._give(lambda: self._next(response))

    def supply(self, secret: StoredSecret | None) -> Step:
        self._take(_Turn.SUPPLY)
        return self._give(lambda: self._supplied(secret))

    def _opening(self) -> Step:
        """The challenge to a client that sent no initial response: empty for client-first mechanisms."""
        # RFC 4422 section 5, item 2a.
        return Challenge(b"")

    @abstractmethod
    def _next(self, response: bytes) -> Step:
        """The step after a response; the initial response counts as one."""

    def _supplied(self, secret: StoredSecret | None) -> Step:
        """The step after a secret; only for mechanisms that ask for one."""
        raise LocalProtocolError(f"{self.name.decode()} asks for no secret")

    def _take(self, turn: _Turn) -> None:
        if turn is not self._turn:
            raise LocalProtocolError(
                f"{self.name.decode()}: {turn.name.lower()} where {self._turn.name.lower()} is due"
            )

    def _give(self, work: Callable[[], Step]) -> Step:
        try:
            step = work()
        except Unacceptable as refusal:
            step = Refused(malformed=refusal.malformed)
        self._turn = _AFTER[type(step)]
        return step


def _malformed() -> Step:
    return Refused(malformed=True)
