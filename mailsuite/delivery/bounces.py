"""Bounces: the report that a sender gets about recipients that failed for good.

One report for all recipients of a message that fail at once. Mail with the null reverse-path never bounces (RFC 5321
section 6.1), and a report that nobody would take is dropped with a line in the log: its sender cannot be told.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.logger import Logger

from mailsuite.interfaces import DirectoryUnavailable, IRouter, Refused
from mailsuite.mail.content import Content
from mailsuite.mail.envelope import Body, Envelope
from mailsuite.mail.queue import Delivery, Outcome, Recipient, Report
from mailsuite.mail.report import HEADER_LIMIT, failure_report, needs_smtputf8


class Bounces:
    """Composes reports and routes them to the reverse-path. `hostname` is the host that reports."""

    _log = Logger()

    def __init__(self, router: IRouter, hostname: str) -> None:
        self._router = router
        self._hostname = hostname

    async def compose(
        self, delivery: Delivery, failures: Sequence[tuple[Recipient, Outcome]], now: float
    ) -> Report | None:
        """The report about these recipients; None where nobody can be told.

        Raises `DirectoryUnavailable` where it is not known, now, whether the reverse-path takes mail.
        """
        message = delivery.message
        reader = message.envelope.reverse_path
        if reader is None:
            return None
        try:
            targets = await self._router.resolve(reader, None, trusted=True)
        except Refused as refused:
            if refused.reply.is_transient:  # a customer whose mail is held is over quota, or cannot be asked
                raise DirectoryUnavailable(f"no report to <{reader}>: {refused.reply}") from None
            self._log.warn(
                "{queue_id}: no report to <{reader}>: {reply}",
                queue_id=message.queue_id,
                reader=str(reader),
                reply=str(refused.reply),
            )
            return None
        # Unique without chance: a recipient of a message fails once.
        message_id = f"<{message.queue_id}.{failures[0][0].key}.{int(now)}@{self._hostname}>"
        content = failure_report(
            message,
            failures,
            await self._header(message.queue_id, delivery.content),
            hostname=self._hostname,
            now=now,
            message_id=message_id,
        )
        utf8 = needs_smtputf8(reader)
        envelope = Envelope(None, Body.EIGHT_BIT if utf8 else Body.SEVEN_BIT, smtputf8=utf8)
        return Report(envelope, content, tuple(targets))

    async def _header(self, queue_id: str, content: Content) -> bytes:
        octets = content.in_memory()
        if octets is not None:
            return octets[:HEADER_LIMIT]
        try:
            return await content.read(0, HEADER_LIMIT)
        except OSError as error:  # the sender is told all the same
            self._log.error("{queue_id}: cannot read the header: {error}", queue_id=queue_id, error=str(error))
            return b""
