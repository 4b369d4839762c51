"""CRAM-MD5 (RFC 2195): the client proves that it knows a shared secret by a keyed digest of our challenge.

RFC 2645 section 5.1.2 makes it mandatory for on-demand relay, which is why it is still here.

Known limits: the server must keep the password itself; the server proves nothing; a listener can guess
passwords offline. There is no authorization identity.
"""

from __future__ import annotations

import hmac
import re
from typing import ClassVar

from mailsuite.mail.session import SecretKind
from mailsuite.wire.core import LocalProtocolError
from mailsuite.wire.sasl.client import ClientCredentials, ClientStepper, SaslError, octets, without_authzid
from mailsuite.wire.sasl.prepare import Unacceptable, prepared_name
from mailsuite.wire.sasl.server import ServerParameters, ServerStepper
from mailsuite.wire.sasl.steps import Challenge, NeedSecret, Refused, Step, StoredSecret, Verified

# RFC 2195 section 2: 16 octets in hexadecimal, in lower case.
_DIGEST = re.compile(rb"[0-9a-f]{32}")


def _keyed_digest(secret: bytes, challenge: bytes) -> bytes:
    return hmac.digest(secret, challenge, "md5").hex().encode("ascii")


class CramMd5Server(ServerStepper):
    """Challenges, asks for the account's secret, and compares."""

    __slots__ = ("_challenge", "_digest", "_user")

    name: ClassVar[bytes] = b"CRAM-MD5"
    client_first: ClassVar[bool] = False

    def __init__(self, parameters: ServerParameters) -> None:
        super().__init__(parameters)
        self._challenge = b""
        self._digest = b""
        self._user = ""

    def _opening(self) -> Step:
        # RFC 2195 section 2: random digits, a timestamp and our host name, in the form of a msg-id.
        ours = self._parameters
        self._challenge = b"<%d.%d@%b>" % (ours.random_number(), int(ours.clock()), ours.hostname)
        return Challenge(self._challenge)

    def _next(self, response: bytes) -> Step:
        # The name may hold spaces, the digest cannot.
        user, _, digest = response.rpartition(b" ")
        if not _DIGEST.fullmatch(digest):
            raise Unacceptable(malformed=True)
        self._user = prepared_name(user)
        self._digest = digest
        return NeedSecret(self._user, SecretKind.SHARED)

    def _supplied(self, secret: StoredSecret | None) -> Step:
        if secret is not None and not isinstance(secret, bytes):
            raise LocalProtocolError("CRAM-MD5 needs the shared secret itself")
        # An empty secret is none. Without one the same work is done with a key that nobody knows.
        expected = _keyed_digest(secret or self._parameters.decoy_key, self._challenge)
        right = hmac.compare_digest(expected, self._digest)
        return Verified(self._user) if right and secret else Refused()


class CramMd5Client(ClientStepper):
    """Answers the one challenge."""

    __slots__ = ("_password", "_user")

    name: ClassVar[bytes] = b"CRAM-MD5"

    def __init__(self, credentials: ClientCredentials) -> None:
        super().__init__(self._prove)
        without_authzid(credentials, "CRAM-MD5")
        self._user = octets(credentials.user, "user name")
        self._password = octets(credentials.password, "password")

    def initial(self) -> None:
        return None

    def _prove(self, challenge: bytes) -> bytes:
        # Not all servers keep to the form of a msg-id; but without any challenge the answer is good for ever.
        if not challenge:
            raise SaslError("CRAM-MD5: the server's challenge is empty")
        return self._user + b" " + _keyed_digest(self._password, challenge)
