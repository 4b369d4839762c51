"""Sending a report: posted to the web, or as mail through our own queue (RFC 8460 sections 5.3 and 5.4).

Mail that the queue has taken counts as sent: it is tried for a day, by the queue. Its sender is a mailbox of ours, as
RFC 5321 section 4.5.5 has it for what is no report on mail, but it wants to hear of no failure.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Final, Protocol

from twisted.logger import Logger

from mailsuite.delivery.tasks import uncancelled
from mailsuite.delivery.tls_reports.record import Endpoint, Https, MailTo
from mailsuite.delivery.tls_reports.report import MEDIA_TYPE, TLSReport, make_mail
from mailsuite.delivery.tls_reports.routing import TLS_REPORTS, aside
from mailsuite.delivery.tls_reports.signature import Signature, Unsigned
from mailsuite.interfaces import DirectoryUnavailable, IRouter, ISpool, Refused, SpoolError
from mailsuite.mail.address import Address
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.options import MessageOptions, Notify, RecipientOptions
from mailsuite.mail.origin import Origin
from mailsuite.mail.plain import plain
from mailsuite.mail.route import Target
from mailsuite.net.https import FetchFailed, Page

InThread = Callable[..., Awaitable[Any]]

_SILENTLY: Final = RecipientOptions(notify=Notify(0))
# RFC 8460 section 3: whatever is wrong with TLS.
_ANYHOW: Final = MessageOptions(tls_optional=True)


class Posts(Protocol):
    """What is asked of the web."""

    async def post(self, host: str, path: str, data: bytes, media_type: str, *, port: int | None = None) -> Page:
        """See `mailsuite.net.https.HttpsClient.post`."""


class Sending:
    """Sends reports. `contact` is whom mail comes from; `signature` signs it."""

    _log = Logger()

    def __init__(
        self,
        web: Posts,
        spool: ISpool,
        router: IRouter,
        signature: Signature,
        in_thread: InThread,
        *,
        contact: Address,
        seconds: Callable[[], float],
    ) -> None:
        self._web = web
        self._spool = spool
        self._router = router
        self._signature = signature
        self._in_thread = in_thread
        self._contact = contact
        self._seconds = seconds

    async def send(self, report: TLSReport, endpoints: Sequence[Endpoint]) -> bool:
        """Send a report to each of them; whether one has taken it (RFC 8460 section 3)."""
        posted = [await self._post(report, one) for one in endpoints if isinstance(one, Https)]
        readers = [one.address for one in endpoints if isinstance(one, MailTo)]
        mailed = await self._mail(report, readers) if readers else False
        return mailed or any(posted)

    async def _post(self, report: TLSReport, place: Https) -> bool:
        port = None if place.port == 443 else place.port
        try:
            page = await self._web.post(place.host, place.path, report.octets, MEDIA_TYPE, port=port)
        except FetchFailed as failure:
            return self._refused(report, f"https://{place.host}", str(failure))
        # Section 5.4
        return 200 <= page.status < 300 or self._refused(report, f"https://{place.host}", f"it answers {page.status}")

    async def _mail(self, report: TLSReport, readers: Sequence[Address]) -> bool:
        found = [target for reader in readers for target in await self._targets(report, reader)]
        targets = list({target.address: target for target in found}.values())
        if not targets:
            return False
        try:
            octets: bytes = await self._in_thread(self._compose, report, readers)
            # Not broken off: nobody would know whether it is in the queue.
            await uncancelled(self._queue(report, octets, targets))
        except (SpoolError, Unsigned) as failure:
            return self._refused(report, "mail", str(failure))
        return True

    def _compose(self, report: TLSReport, readers: Sequence[Address]) -> bytes:
        return self._signature.sign(make_mail(report, self._contact, readers, self._seconds()))

    async def _targets(self, report: TLSReport, reader: Address) -> Sequence[Target]:
        try:
            found = await self._router.resolve(reader, None, trusted=True, sender=self._contact)
        except (Refused, DirectoryUnavailable) as failure:
            self._refused(report, f"<{reader}>", str(failure))
            return ()
        return [aside(replace(target, options=_SILENTLY)) for target in found]

    async def _queue(self, report: TLSReport, octets: bytes, targets: Sequence[Target]) -> None:
        draft = self._spool.draft()
        try:
            full = draft.write(octets)
            if full is not None:
                await full
            origin = Origin(service=TLS_REPORTS, message_id=report.message_id)
            await draft.commit(Envelope(self._contact, options=_ANYHOW), targets, origin=origin)
        finally:
            draft.abort()

    def _refused(self, report: TLSReport, whom: str, why: str) -> bool:
        self._log.info(
            "the report on TLS with {domain} cannot be sent to {whom}: {why}",
            domain=report.domain,
            whom=plain(whom),
            why=plain(why),
        )
        return False
