"""From settings to the reports on TLS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any, Final

from mailsuite.config import Settings
from mailsuite.delivery.tls_reports import Book, Sending, Signature, TLSReports
from mailsuite.interfaces import IRouter, ISpool
from mailsuite.mail.address import Address, parse_mailbox
from mailsuite.net.dnssec import AsksDns
from mailsuite.net.https import Addresses, HttpsClient
from mailsuite.net.resolver import DnsFailure
from mailsuite.net.tls import ClientTLS
from mailsuite.service.routes import optional_path

_BOOK: Final = "tls-reports.db"
_KEY: Final = "tls-reports.key"


def make_tls_reports(
    settings: Settings,
    reactor: Any,
    dns: AsksDns,
    addresses: Addresses,
    in_thread: Callable[..., Any],
    spool: ISpool,
    router: IRouter,
    chance: Callable[[], float],
) -> TLSReports | None:
    """What counts and reports; None where the settings want no reports. `addresses` are those of web servers."""
    relay = settings.relay
    if not relay.tls_reports:
        return None
    contact = None if relay.tls_reports_from is None else parse_mailbox(relay.tls_reports_from)
    contact = contact or Address("postmaster", settings.hostname)
    web = HttpsClient(reactor, ClientTLS(optional_path(settings, relay.ca_file)), public_only(addresses))
    signature = Signature(contact.domain_key, settings.data_directory / _KEY)
    sending = Sending(web, spool, router, signature, in_thread, contact=contact, seconds=reactor.seconds)
    book = Book(settings.data_directory / _BOOK, in_thread)
    return TLSReports(
        book, dns, sending, reactor, in_thread, organization=settings.hostname, contact=contact, chance=chance
    )


def public_only(addresses: Addresses) -> Addresses:
    """The addresses of hosts that strangers name: none of them on our own networks, where they have no business."""

    async def found(host: str) -> Sequence[str]:
        public = [one for one in await addresses(host) if ip_address(one).is_global]
        if not public:
            raise DnsFailure(host, "has no address that is everybody's", temporary=False)
        return public

    return found
