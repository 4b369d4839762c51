"""The client side of every mechanism: the contract, the credentials, and what goes wrong.

Rules: a mechanism does no I/O. What a server sends wrongly raises `SaslError`; then the driver cancels with
`*` and the attempt has failed. Messages of errors never hold a password or a key.

Where the initial response would make the AUTH command too long, the driver withholds it, and sends it as the
answer to the empty challenge that follows (RFC 4954 section 4); the mechanism is not asked again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Protocol


class SaslError(Exception):
    """Authentication cannot succeed: the server broke the rules, or the credentials do not fit."""


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """Who we are for another server.

    `password` is None where there is none. `authzid` is the identity to act as; nearly always empty, for our
    own. `external`: use what the connection proves (a client certificate) where the server takes it.
    """

    user: str
    password: str | None = field(default=None, repr=False)
    authzid: str = ""
    external: bool = False


class ClientMechanism(Protocol):
    """One authentication exchange, client side. Made for one AUTH command, then thrown away."""

    @property
    def name(self) -> bytes:
        """The mechanism's registered name, in upper case."""

    @property
    def slow(self) -> bool:
        """Whether `respond` may compute for long (milliseconds, up to a second): then call it in a thread."""

    def initial(self) -> bytes | None:
        """The initial response; None where the server begins."""

    def respond(self, challenge: bytes) -> bytes:
        """The response to a decoded challenge. Raises `SaslError` on one that cannot be."""

    def finish(self) -> None:
        """To be called after 235. Raises `SaslError` where the server ended early, or never proved itself."""


class ClientStepper(ABC):
    """A `ClientMechanism` that answers its rounds in order, each one challenge.

    Constructors of mechanisms raise `SaslError` where the credentials do not fit the mechanism.
    """

    __slots__ = ("_failed", "_rounds")

    name: ClassVar[bytes]
    slow: ClassVar[bool] = False

    def __init__(self, *rounds: Callable[[bytes], bytes]) -> None:
        self._rounds = list(rounds)
        self._failed = False

    @abstractmethod
    def initial(self) -> bytes | None:
        """The initial response; None where the server begins."""

    def respond(self, challenge: bytes) -> bytes:
        if self._failed or not self._rounds:
            self._failed = True
            raise SaslError(f"{self.name.decode()}: the server sent a challenge too many")
        answer = self._rounds.pop(0)
        try:
            return answer(challenge)
        except SaslError:
            self._failed = True
            raise

    def finish(self) -> None:
        if self._failed or self._rounds:
            raise SaslError(f"{self.name.decode()}: the server accepted an exchange that is not complete")


def octets(text: str | None, what: str) -> bytes:
    """A name or password in UTF-8. Raises `SaslError` where it is empty, holds a NUL, or has no such form."""
    if not text:
        raise SaslError(f"there is no {what} to authenticate with")
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError:
        raise SaslError(f"the {what} cannot be written in UTF-8") from None
    if b"\0" in data:
        raise SaslError(f"the {what} holds a NUL")
    return data


def without_authzid(credentials: ClientCredentials, mechanism: str) -> None:
    """Raises `SaslError` where the credentials ask for an identity that the mechanism cannot carry."""
    if credentials.authzid:
        raise SaslError(f"{mechanism} carries no authorization identity")
