"""PLAIN (RFC 4616): identity, name and password in one message, in plaintext. For TLS only."""

from __future__ import annotations

from typing import ClassVar

from mailsuite.wire.sasl.client import ClientCredentials, ClientStepper, octets
from mailsuite.wire.sasl.prepare import Unacceptable, checked_password, prepared_name
from mailsuite.wire.sasl.server import ServerStepper
from mailsuite.wire.sasl.steps import Check, PasswordCredential, Step


class PlainServer(ServerStepper):
    """Takes the one message apart."""

    __slots__ = ()

    name: ClassVar[bytes] = b"PLAIN"
    client_first: ClassVar[bool] = True

    def _next(self, response: bytes) -> Step:
        # RFC 4616 section 2: [authzid] NUL authcid NUL passwd, and no NUL inside any of them.
        parts = response.split(b"\0", 3)
        if len(parts) != 3:
            raise Unacceptable(malformed=True)
        authzid, authcid, password = parts
        return Check(
            PasswordCredential(
                authcid=prepared_name(authcid),
                authzid=prepared_name(authzid) if authzid else "",
                password=checked_password(password),
            )
        )


class PlainClient(ClientStepper):
    """Says it all in the initial response."""

    __slots__ = ("_message",)

    name: ClassVar[bytes] = b"PLAIN"

    def __init__(self, credentials: ClientCredentials) -> None:
        super().__init__()
        authzid = octets(credentials.authzid, "authorization identity") if credentials.authzid else b""
        user = octets(credentials.user, "user name")
        self._message = b"\0".join((authzid, user, octets(credentials.password, "password")))

    def initial(self) -> bytes:
        return self._message
