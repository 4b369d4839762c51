"""EXTERNAL (RFC 4422 appendix A): take me for the one that the connection proves me to be."""

from __future__ import annotations

from typing import ClassVar

from mailsuite.wire.sasl.client import ClientCredentials, ClientStepper, octets
from mailsuite.wire.sasl.prepare import prepared_name
from mailsuite.wire.sasl.server import ServerStepper
from mailsuite.wire.sasl.steps import Check, ExternalCredential, Step


class ExternalServer(ServerStepper):
    """Takes the identity that is asked for; an empty response leaves it to the server."""

    __slots__ = ()

    name: ClassVar[bytes] = b"EXTERNAL"
    client_first: ClassVar[bool] = True

    def _next(self, response: bytes) -> Step:
        return Check(ExternalCredential(authzid=prepared_name(response) if response else ""))


class ExternalClient(ClientStepper):
    """Asks for `authzid`, or by an empty response for the identity that goes with the connection.

    The user name is not sent: it names credentials that this mechanism does not use.
    """

    __slots__ = ("_authzid",)

    name: ClassVar[bytes] = b"EXTERNAL"

    def __init__(self, credentials: ClientCredentials) -> None:
        super().__init__()
        authzid = credentials.authzid
        self._authzid = octets(authzid, "authorization identity") if authzid else b""

    def initial(self) -> bytes:
        return self._authzid
