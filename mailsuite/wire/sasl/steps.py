"""Values that pass between a server-side mechanism and whoever drives it: steps, credentials, stored secrets.

Rules: nothing here shows a password in its repr. A step says what must happen next; it does no work.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from mailsuite.mail.session import ScramSecret, SecretKind

StoredSecret: TypeAlias = bytes | ScramSecret
"""What answers a `NeedSecret`: the password's octets for `SecretKind.SHARED`, else a `ScramSecret`."""


@dataclass(frozen=True, slots=True)
class PasswordCredential:
    """A name and a password that the directory has to verify (PLAIN, LOGIN).

    `authcid` and `authzid` are prepared by SASLprep; `authzid` is empty when the client asked for no other
    identity. `password` is valid UTF-8 without NUL and not empty, as the client sent it: preparing it is part
    of verifying it (RFC 4616 section 2), the same for every way in, so the directory does that.
    """

    authcid: str
    authzid: str
    password: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ExternalCredential:
    """A request to be taken for whom the connection already proves (RFC 4422 appendix A).

    `authzid` is empty when the client leaves the identity to the server.
    """

    authzid: str


Credential: TypeAlias = PasswordCredential | ExternalCredential


@dataclass(frozen=True, slots=True)
class Challenge:
    """Send this (it may be empty) and hand the decoded answer to `respond`."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Check:
    """The exchange is over; the directory's verdict on `credential` is the outcome."""

    credential: Credential


@dataclass(frozen=True, slots=True)
class NeedSecret:
    """Look the secret of account `user` up and hand it to `supply`; None where there is none."""

    user: str
    kind: SecretKind


@dataclass(frozen=True, slots=True)
class Verified:
    """The client is `authcid`. The caller decides whether it may act as `authzid` (empty: as itself)."""

    authcid: str
    authzid: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """The exchange has failed. `malformed`: by bad syntax (501 in SMTP), else by bad credentials (535)."""

    malformed: bool = False


Step: TypeAlias = Challenge | Check | NeedSecret | Verified | Refused
