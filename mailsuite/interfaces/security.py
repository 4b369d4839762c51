"""Between whoever dials and whoever knows how safe a connection must be."""

from __future__ import annotations

from collections.abc import Awaitable

from zope.interface import Interface

from mailsuite.mail.route import NextHop
from mailsuite.mail.tls_policy import TLSFailureKind, TLSPolicy, TLSResult
from mailsuite.mail.visible import visible


class Barred(Exception):
    """Mail for a domain must not go to a host: a policy does not name it, or cannot be known now.

    `temporary` says that this may change by itself; `failure` is what reports have of it.
    """

    def __init__(self, text: str, failure: TLSFailureKind, *, temporary: bool = True) -> None:
        super().__init__(visible(text))
        self.failure = failure
        self.temporary = temporary


class ITLSPolicies(Interface):
    """Knows what TLS a connection must have, by DANE, by MTA-STS, by the configuration, in this order."""

    def policy(domain: str, hop: NextHop) -> Awaitable[TLSPolicy]:
        """What a connection to this host must have that carries mail for a domain (a domain key).

        `hop.host` is a name from the MX of the domain, or from the configuration: then `domain` is empty. Raises
        `Barred`.
        """

    def note(result: TLSResult) -> None:
        """A connection has come to its TLS, or has failed to: counted for the reports of RFC 8460."""
