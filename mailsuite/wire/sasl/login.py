"""LOGIN: name and password, each answering a question, in plaintext. For TLS only.

No RFC defines it. The server asks `Username:` and `Password:` in these words, which some clients insist on;
the name may come as the initial response. A client goes by the order of the questions: other servers word
them otherwise. There is no authorization identity.
"""

from __future__ import annotations

from typing import ClassVar

from mailsuite.wire.sasl.client import ClientCredentials, ClientStepper, octets, without_authzid
from mailsuite.wire.sasl.prepare import checked_password, prepared_name
from mailsuite.wire.sasl.server import ServerParameters, ServerStepper
from mailsuite.wire.sasl.steps import Challenge, Check, PasswordCredential, Step


class LoginServer(ServerStepper):
    """Asks for the name, unless it is there already, then for the password."""

    __slots__ = ("_user",)

    name: ClassVar[bytes] = b"LOGIN"
    client_first: ClassVar[bool] = True

    def __init__(self, parameters: ServerParameters) -> None:
        super().__init__(parameters)
        self._user: str | None = None

    def _opening(self) -> Step:
        return Challenge(b"Username:")

    def _next(self, response: bytes) -> Step:
        if self._user is None:
            self._user = prepared_name(response)
            return Challenge(b"Password:")
        return Check(PasswordCredential(authcid=self._user, authzid="", password=checked_password(response)))


class LoginClient(ClientStepper):
    """Answers the first question with the name and the second with the password.

    It sends no initial response: there are servers that do not take one.
    """

    __slots__ = ("_password", "_user")

    name: ClassVar[bytes] = b"LOGIN"

    def __init__(self, credentials: ClientCredentials) -> None:
        super().__init__(self._say_user, self._say_password)
        without_authzid(credentials, "LOGIN")
        self._user = octets(credentials.user, "user name")
        self._password = octets(credentials.password, "password")

    def initial(self) -> None:
        return None

    def _say_user(self, challenge: bytes) -> bytes:
        return self._user

    def _say_password(self, challenge: bytes) -> bytes:
        return self._password
