"""TLS settings: a server's certificate and key, what a client demands of a server, what a handshake has settled on.

Everything here makes what Twisted's `startTLS` and `Handover.tls` take: connection creators. TLS 1.2 and later,
forward secrecy, no compression, no renegotiation.
"""

from mailsuite.net.tls.client import ClientTLS, PolicyCreator
from mailsuite.net.tls.files import TLSSettingsError
from mailsuite.net.tls.server import ServerTLS
from mailsuite.net.tls.watched import TLSFailed, WatchedConnection, describe_failure, tls_facts

__all__ = [
    "ClientTLS",
    "PolicyCreator",
    "ServerTLS",
    "TLSFailed",
    "TLSSettingsError",
    "WatchedConnection",
    "describe_failure",
    "tls_facts",
]
