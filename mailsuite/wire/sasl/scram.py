"""SCRAM-SHA-256 (RFC 5802, RFC 7677), both sides, without channel binding.

The password does not cross the wire, what the server keeps is no password, and the server proves that it
knows the account: SMTP has no additional data with success, so the server-final message is one more
challenge, answered by an empty response (RFC 4422 section 5, item 2b; RFC 4954 section 4).

Known limits: no -PLUS variant, so a client that requires channel binding is refused; `y` is as good as `n`.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import ClassVar

from mailsuite.mail.scram import MIN_ITERATIONS, SALT_LENGTH
from mailsuite.mail.session import ScramSecret, SecretKind
from mailsuite.wire.core import LocalProtocolError
from mailsuite.wire.sasl import scram_messages as scram
from mailsuite.wire.sasl.client import ClientCredentials, ClientStepper, SaslError
from mailsuite.wire.sasl.prepare import Unacceptable, decoded, prepared_name
from mailsuite.wire.sasl.saslprep import prepare_query, prepare_stored
from mailsuite.wire.sasl.server import ServerParameters, ServerStepper, fresh_nonce
from mailsuite.wire.sasl.steps import Challenge, NeedSecret, Refused, Step, StoredSecret, Verified

MAX_ITERATIONS = 1_000_000
"""What a client will compute: under a second. RFC 5802 section 9 warns of servers that ask for more."""


class ScramSha256Server(ServerStepper):
    """client-first, the secret, server-first, client-final, server-final, an empty response."""

    __slots__ = (
        "_authzid",
        "_client_first_bare",
        "_continue",
        "_gs2",
        "_known",
        "_nonce",
        "_secret",
        "_server_first",
        "_user",
    )

    name: ClassVar[bytes] = b"SCRAM-SHA-256"
    client_first: ClassVar[bool] = True

    def __init__(self, parameters: ServerParameters) -> None:
        super().__init__(parameters)
        self._continue: Callable[[bytes], Step] = self._client_first

    def _next(self, response: bytes) -> Step:
        return self._continue(response)

    def _client_first(self, response: bytes) -> Step:
        match = scram.CLIENT_FIRST.fullmatch(decoded(response, scram.MAX_MESSAGE))
        if match is None:
            raise Unacceptable(malformed=True)
        if match["binding"].startswith("p="):
            # RFC 5802 section 6: channel binding is required of us, and we do not have it.
            return Refused()
        self._user = prepared_name(scram.unescaped(match["user"]).encode("utf-8"))
        self._authzid = prepared_name(scram.unescaped(match["authzid"]).encode("utf-8")) if match["authzid"] else ""
        self._gs2 = match["gs2"]
        # RFC 5802 section 5.1: the name enters the hash as it was received.
        self._client_first_bare = match["bare"]
        self._nonce = match["nonce"] + self._parameters.nonce().decode("ascii")
        return NeedSecret(self._user, SecretKind.SCRAM_SHA_256)

    def _supplied(self, secret: StoredSecret | None) -> Step:
        if secret is not None and not isinstance(secret, ScramSecret):
            raise LocalProtocolError("SCRAM-SHA-256 needs a ScramSecret")
        # The decoy is made for everyone, so that it takes no longer where it is needed.
        decoy = _decoy(self._parameters, self._user)
        self._known = secret is not None
        self._secret = decoy if secret is None else secret
        salt = scram.encoded(self._secret.salt)
        self._server_first = f"r={self._nonce},s={salt},i={self._secret.iterations}"
        self._continue = self._client_final
        return Challenge(self._server_first.encode("ascii"))

    def _client_final(self, response: bytes) -> Step:
        match = scram.CLIENT_FINAL.fullmatch(decoded(response, scram.MAX_MESSAGE))
        proof = scram.decoded_base64(match["proof"]) if match else None
        if match is None or proof is None or len(proof) != scram.DIGEST_SIZE:
            raise Unacceptable(malformed=True)
        # RFC 5802 section 5.1: c is the gs2 header of the first message, without binding data for "n" and
        # "y"; r is the nonce that we sent. Neither is a secret.
        if match["binding"] != scram.encoded(self._gs2.encode("utf-8")) or match["nonce"] != self._nonce:
            return Refused()
        message = scram.auth_message(self._client_first_bare, self._server_first, match["without_proof"])
        client_key = scram.xor(proof, scram.signature(self._secret.stored_key, message))
        right = hmac.compare_digest(hashlib.sha256(client_key).digest(), self._secret.stored_key)
        verifier = scram.encoded(scram.signature(self._secret.server_key, message))
        if not (right and self._known):
            # RFC 5802 section 5.1: on failure the server-final message may be left out.
            return Refused()
        self._continue = self._acknowledged
        return Challenge(f"v={verifier}".encode("ascii"))

    def _acknowledged(self, response: bytes) -> Step:
        # RFC 4422 section 5, item 2b: the answer to additional data is empty.
        if response:
            raise Unacceptable(malformed=True)
        return Verified(self._user, self._authzid)


def _decoy(parameters: ServerParameters, user: str) -> ScramSecret:
    """The secret of an account that does not exist: the same at each attempt, and no password fits it."""
    seed = hmac.digest(parameters.decoy_key, parameters.canonical(user).encode("utf-8"), "sha256")
    return ScramSecret(
        salt=hmac.digest(seed, b"salt", "sha256")[:SALT_LENGTH],
        iterations=parameters.decoy_iterations,
        stored_key=hmac.digest(seed, b"stored key", "sha256"),
        server_key=hmac.digest(seed, b"server key", "sha256"),
    )


class ScramSha256Client(ClientStepper):
    """Proves that we know the password, and has the server prove that it knows the account.

    `nonce` makes a nonce that was never used: printable ASCII without a comma. A server that prescribes fewer
    than 4096 iterations or more than `max_iterations` is refused.
    """

    __slots__ = (
        "_client_first_bare",
        "_gs2",
        "_max_iterations",
        "_nonce",
        "_password",
        "_server_signature",
    )

    name: ClassVar[bytes] = b"SCRAM-SHA-256"
    slow: ClassVar[bool] = True

    def __init__(
        self,
        credentials: ClientCredentials,
        *,
        nonce: Callable[[], bytes] = fresh_nonce,
        max_iterations: int = MAX_ITERATIONS,
    ) -> None:
        super().__init__(self._prove, self._verify)
        user = _prepared(credentials.user, prepare_query, "user name")
        self._password = _prepared(credentials.password, prepare_stored, "password")
        authzid = _prepared(credentials.authzid, prepare_query, "authorization identity") if credentials.authzid else ""
        self._gs2 = f"n,a={scram.escaped(authzid)}," if authzid else "n,,"
        self._nonce = nonce().decode("ascii")
        self._client_first_bare = f"n={scram.escaped(user)},r={self._nonce}"
        self._max_iterations = max_iterations
        self._server_signature = b""

    def initial(self) -> bytes:
        return (self._gs2 + self._client_first_bare).encode("utf-8")

    def _prove(self, challenge: bytes) -> bytes:
        server_first = _text(challenge)
        match = scram.SERVER_FIRST.fullmatch(server_first)
        salt = scram.decoded_base64(match["salt"]) if match else None
        if match is None or salt is None:
            raise SaslError("SCRAM-SHA-256: the server's first message cannot be understood")
        nonce, iterations = match["nonce"], int(match["iterations"])
        # RFC 5802 section 5.1: our nonce, and something of the server's behind it.
        if not nonce.startswith(self._nonce) or nonce == self._nonce:
            raise SaslError("SCRAM-SHA-256: the server's nonce does not continue ours")
        if not MIN_ITERATIONS <= iterations <= self._max_iterations:
            raise SaslError(f"SCRAM-SHA-256: the server prescribes {iterations} iterations")
        salted = scram.salted_password(self._password, salt, iterations)
        client_key = scram.signature(salted, b"Client Key")
        binding = scram.encoded(self._gs2.encode("utf-8"))
        without_proof = f"c={binding},r={nonce}"
        message = scram.auth_message(self._client_first_bare, server_first, without_proof)
        proof = scram.xor(client_key, scram.signature(hashlib.sha256(client_key).digest(), message))
        self._server_signature = scram.signature(scram.signature(salted, b"Server Key"), message)
        return f"{without_proof},p={scram.encoded(proof)}".encode("ascii")

    def _verify(self, challenge: bytes) -> bytes:
        match = scram.SERVER_FINAL.fullmatch(_text(challenge))
        if match is None:
            raise SaslError("SCRAM-SHA-256: the server's final message cannot be understood")
        if match["error"]:
            raise SaslError(f"SCRAM-SHA-256: the server says {match['error'][:80]!a}")
        verifier = scram.decoded_base64(match["verifier"])
        if verifier is None or not hmac.compare_digest(verifier, self._server_signature):
            raise SaslError("SCRAM-SHA-256: the server does not know this account's keys")
        return b""


def _prepared(text: str | None, prepare: Callable[[str], str], what: str) -> str:
    if not text:
        raise SaslError(f"there is no {what} to authenticate with")
    try:
        return prepare(text)
    except ValueError as error:
        raise SaslError(f"the {what} is {error}") from None


def _text(challenge: bytes) -> str:
    try:
        return decoded(challenge, scram.MAX_MESSAGE)
    except Unacceptable:
        raise SaslError("SCRAM-SHA-256: the server's message cannot be understood") from None
