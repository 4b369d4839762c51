"""SASL (RFC 4422), both sides, without I/O: PLAIN, LOGIN, CRAM-MD5, SCRAM-SHA-256, EXTERNAL.

A server takes a mechanism from `SERVER_MECHANISMS`, makes it with its `ServerParameters`, and does what each
step says until one ends the exchange (see `server`). A client has one chosen by `choose` (see `client`).
Base64, the `=` of an empty initial response and the `*` that cancels belong to the protocol around it.
"""

from mailsuite.wire.sasl.client import ClientCredentials, ClientMechanism, SaslError
from mailsuite.wire.sasl.mechanisms import PLAINTEXT_MECHANISMS, SERVER_MECHANISMS, choose
from mailsuite.wire.sasl.saslprep import prepare_query, prepare_stored
from mailsuite.wire.sasl.scram_secret import derive_scram_secret
from mailsuite.wire.sasl.server import ServerMechanism, ServerParameters
from mailsuite.wire.sasl.steps import (
    Challenge,
    Check,
    Credential,
    ExternalCredential,
    NeedSecret,
    PasswordCredential,
    Refused,
    Step,
    StoredSecret,
    Verified,
)

__all__ = [
    "PLAINTEXT_MECHANISMS",
    "SERVER_MECHANISMS",
    "Challenge",
    "Check",
    "ClientCredentials",
    "ClientMechanism",
    "Credential",
    "ExternalCredential",
    "NeedSecret",
    "PasswordCredential",
    "Refused",
    "SaslError",
    "ServerMechanism",
    "ServerParameters",
    "Step",
    "StoredSecret",
    "Verified",
    "choose",
    "derive_scram_secret",
    "prepare_query",
    "prepare_stored",
]
