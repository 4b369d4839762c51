"""Reports on TLS (RFC 8460): results are counted, written down every few seconds, and told once a day to who asks.

After a UTC day is over, and some hours by chance, each domain that mail went to is asked for its TXT record. Who has
none hears nothing, and what was counted is forgotten. Who has one gets one report of that day; where nobody takes it,
it is tried again for about a day, with growing waits. A report is made twice only where we crash between sending it and
writing that down; it has the same identity then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from mailsuite.delivery.small_database import InThread
from mailsuite.delivery.tasks import Tasks, uncancelled
from mailsuite.delivery.tls_reports.book import Book, Due
from mailsuite.delivery.tls_reports.record import endpoints
from mailsuite.delivery.tls_reports.report import make_report
from mailsuite.delivery.tls_reports.sending import Sending
from mailsuite.delivery.tls_reports.tally import DAY, Tally
from mailsuite.mail.address import Address
from mailsuite.mail.tls_policy import TLSResult
from mailsuite.net.dnssec import AsksDns, LookupFailed

_WRITE_INTERVAL: Final = 5.0  # seconds; so much is lost by a crash
_SOONEST: Final = 120.0  # seconds after midnight: until then the last results of the day are written down
_LATEST: Final = 4 * 3600.0  # RFC 8460 section 4.1
_RETRY: Final = 600.0  # seconds to the second try, then twice as long each time
_MOST_TRIES: Final = 8  # the last one comes 21 hours after the first: section 5.5 has a day
_AT_ONCE: Final = 10  # domains
_ROUND: Final = 500


class TLSReports:
    """Counts results and sends reports.

    `organization` is who reports, `contact` answers questions about it; `chance` gives numbers from 0 to 1.
    """

    _log = Logger()

    def __init__(
        self,
        book: Book,
        dns: AsksDns,
        sending: Sending,
        clock: IReactorTime,
        in_thread: InThread,
        *,
        organization: str,
        contact: Address,
        chance: Callable[[], float],
    ) -> None:
        self._book = book
        self._dns = dns
        self._sending = sending
        self._clock = clock
        self._in_thread = in_thread
        self._organization = organization
        self._contact = contact
        self._chance = chance
        self._tally = Tally()
        self._tasks = Tasks()
        self._alarm: IDelayedCall | None = None
        self._look_at = 0.0
        self._is_looking = False
        self._is_writing = False
        self._making: list[Deferred[bool]] = []

    def note(self, result: TLSResult) -> None:
        """Count a result. Costs a look into memory."""
        self._tally.note(result, self._clock.seconds())

    async def start(self) -> None:
        """Begin to write down, and to send the reports of the days that are over."""
        now = self._clock.seconds()
        # Where the time for the last day's has gone by while we did not run: soon, but not in the middle of the start.
        self._look_at = max(self._time_of_day(now), now + _SOONEST * (1 + self._chance()))
        self._alarm = self._clock.callLater(_WRITE_INTERVAL, self._tick)

    async def stop(self) -> None:
        """Write down what was counted. A report that is not sent by now is begun anew at the next start."""
        if self._alarm is not None and self._alarm.active():
            self._alarm.cancel()
        self._alarm = None
        for making in self._making:
            making.cancel()
        await self._tasks.finished()
        await self._write()

    def _tick(self) -> None:
        self._alarm = self._clock.callLater(_WRITE_INTERVAL, self._tick)
        if self._tally and not self._is_writing:
            self._tasks.start(self._write(), "writing down results of TLS")
        now = self._clock.seconds()
        # A clock that was set back must not keep us for longer than a day.
        self._look_at = min(self._look_at, now + DAY + _LATEST)
        if now >= self._look_at and not self._is_looking:
            self._tasks.start(self._look(), "sending reports on TLS")

    async def _write(self) -> None:
        counts = self._tally.take()
        if not counts:
            return
        self._is_writing = True
        written = False
        try:
            written = await uncancelled(self._book.add(counts))
        finally:
            self._is_writing = False
            if not written:
                self._tally.add(counts)

    def _time_of_day(self, now: float) -> float:
        """When the reports of yesterday are due."""
        return now // DAY * DAY + _SOONEST + (_LATEST - _SOONEST) * self._chance()

    # --------------------------------------------------------------------------------- those of a day

    async def _look(self) -> None:
        """Make all reports that are due, and find out when to look again."""
        self._is_looking = True
        try:
            sent = await self.send_due()
            if sent:
                self._log.info("{count} reports on TLS are sent", count=sent)
        finally:
            now = self._clock.seconds()
            self._look_at = self._time_of_day(now + DAY)
            self._is_looking = False
        again = await self._book.next_due(int(now // DAY))
        if again is not None:
            self._look_at = min(self._look_at, max(again, now))

    async def send_due(self) -> int:
        """Make all reports that are due now, whatever the time of day; tell how many are sent."""
        today = int(self._clock.seconds() // DAY)
        await self._book.prune(today)
        sent = 0
        before: list[Due] = []
        while due := await self._book.due(today, self._clock.seconds(), _ROUND):
            if due == before:
                break  # the disk does not take what has become of them
            before = due
            for at in range(0, len(due), _AT_ONCE):
                if self._alarm is None:
                    return sent  # we are to stop
                self._making = [Deferred.fromCoroutine(self._make_calmly(one)) for one in due[at : at + _AT_ONCE]]
                sent += sum([await one for one in self._making])
        return sent

    async def _make_calmly(self, due: Due) -> bool:
        try:
            return await self._make(due)
        except CancelledError:
            return False
        except Exception:  # noqa: BLE001 - one report that meets a defect is no reason not to send the others
            self._log.failure("the report on TLS with {domain} cannot be made", domain=due.domain)
            await self._again(due)
            return False

    async def _make(self, due: Due) -> bool:
        """Make one report, if it is wanted; whether it is sent."""
        try:
            answer = await self._dns.ask(f"_smtp._tls.{due.domain}", "TXT")
        except LookupFailed as failure:
            self._log.debug("{failure}", failure=failure)
            await self._again(due)
            return False
        wanted = endpoints(record for record in answer.records if isinstance(record, bytes))
        if not wanted:
            await self._book.close(due)
            return False
        events = await self._book.events(due.day, due.domain)
        if not events:
            return False
        report = await self._in_thread(
            lambda: make_report(due.day, due.domain, events, organization=self._organization, contact=self._contact)
        )
        is_sent = await self._sending.send(report, wanted)
        if is_sent:
            await self._book.close(due)
        else:
            await self._again(due)
        return is_sent

    async def _again(self, due: Due) -> None:
        if due.tries + 1 >= _MOST_TRIES:
            self._log.info("the report on TLS with {domain} is given up", domain=due.domain)
            await self._book.close(due)
        else:
            await self._book.defer(due, self._clock.seconds() + _RETRY * 2**due.tries)
