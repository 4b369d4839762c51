"""Which mechanisms there are, and which one a client takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from types import MappingProxyType

from mailsuite.wire.sasl.client import ClientCredentials, ClientMechanism, SaslError
from mailsuite.wire.sasl.cram import CramMd5Client, CramMd5Server
from mailsuite.wire.sasl.external import ExternalClient, ExternalServer
from mailsuite.wire.sasl.login import LoginClient, LoginServer
from mailsuite.wire.sasl.plain import PlainClient, PlainServer
from mailsuite.wire.sasl.scram import ScramSha256Client, ScramSha256Server
from mailsuite.wire.sasl.server import ServerMechanism, ServerParameters

SERVER_MECHANISMS: Mapping[bytes, Callable[[ServerParameters], ServerMechanism]] = MappingProxyType(
    {
        mechanism.name: mechanism
        for mechanism in (ScramSha256Server, CramMd5Server, PlainServer, LoginServer, ExternalServer)
    }
)
"""By name in upper case, in the order in which to offer them."""

PLAINTEXT_MECHANISMS = frozenset({PlainServer.name, LoginServer.name})
"""Those that show the password to whoever listens: for TLS only (RFC 4616 section 1, RFC 4954 section 4)."""

# The strongest first. CRAM-MD5 proves less than SCRAM, but does not give the password away.
_CLIENT_MECHANISMS: Mapping[bytes, Callable[[ClientCredentials], ClientMechanism]] = MappingProxyType(
    {
        mechanism.name: mechanism
        for mechanism in (ExternalClient, ScramSha256Client, CramMd5Client, PlainClient, LoginClient)
    }
)


def choose(offered: Iterable[bytes], credentials: ClientCredentials, *, secure: bool) -> ClientMechanism | None:
    """The strongest mechanism that the server offers and the credentials fit; None where there is none.

    `offered` are names in any case. `secure` says that nobody can listen; else the password is not shown.
    EXTERNAL is taken where the credentials ask for it, and never otherwise.
    """
    names = {name.upper() for name in offered}
    for name, mechanism in _CLIENT_MECHANISMS.items():
        if name not in names or (name in PLAINTEXT_MECHANISMS and not secure):
            continue
        if name == ExternalClient.name and not credentials.external:
            continue
        with suppress(SaslError):
            return mechanism(credentials)
    return None
