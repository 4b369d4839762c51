"""The whole of it by a clock of our own: days go by, reports leave once, and what fails is tried again for a day."""

import gzip
import json
from email import message_from_bytes
from email.policy import default
from itertools import pairwise

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from mailsuite.delivery.tls_reports import TLS_REPORTS, Book, Sending, TLSReports
from mailsuite.delivery.tls_reports.signature import Unsigned
from mailsuite.delivery.tls_reports.tally import DAY
from mailsuite.interfaces import Refused, SpoolError
from mailsuite.mail.address import Address
from mailsuite.mail.options import Notify
from mailsuite.mail.replies import NO_SUCH_USER
from mailsuite.mail.route import Destination
from mailsuite.mail.tls_policy import PolicySource, TLSFailureKind, TLSPolicy, TLSResult
from mailsuite.net.https import FetchFailed, Page
from mailsuite.spool.memory import MemorySpool
from tests.delivery.fakes import FakeRouter
from tests.delivery.tls_policies.fakes import Dns, failing, in_no_thread, now, secure

START = 20_000 * DAY + 40_000.0
CONTACT = Address("tls", "sender.example")
POLICY = TLSPolicy("dane", PolicySource.DANE, text=("3 1 1 ab",))
SUCCESS = TLSResult("example.com", POLICY, "mx.example.com", "192.0.2.1")
FAILURE = TLSResult(
    "example.com", POLICY, "mx.example.com", "192.0.2.1", "192.0.2.9", TLSFailureKind.VALIDATION, "no record fits"
)
TO_MAIL = secure(b"v=TLSRPTv1; rua=mailto:reports@example.com")
TO_WEB = secure(b"v=TLSRPTv1; rua=https://r.example.com/tls")


class Web:
    def __init__(self):
        self.posted = []
        self.answer = Page(201, "", b"")

    async def post(self, host, path, data, media_type, *, port=None):
        assert media_type == "application/tlsrpt+gzip"
        self.posted.append((host, port, path, data))
        answer = self.answer
        if isinstance(answer, Deferred):
            answer = await answer
        if isinstance(answer, Exception):
            raise answer
        return answer


class Signs:
    def __init__(self):
        self.failure = None

    def sign(self, message):
        if self.failure is not None:
            raise self.failure
        return b"DKIM-Signature: x\r\n" + message


class Place:
    """The reports with their neighbours."""

    def __init__(self, directory):
        self.directory = directory
        self.clock = Clock()
        self.clock.advance(START)
        self.web, self.dns, self.signs = Web(), Dns(), Signs()
        self.dns.table["_smtp._tls.example.com", "TXT"] = TO_MAIL
        self.spool, self.router = MemorySpool(self.clock), FakeRouter()
        self.chance = 0.5
        self.start()

    def start(self):
        sending = Sending(
            self.web,
            self.spool,
            self.router,
            self.signs,
            in_no_thread,
            contact=CONTACT,
            seconds=self.clock.seconds,
        )
        self.book = Book(self.directory / "tls-reports.db", in_no_thread)
        self.reports = TLSReports(
            self.book,
            self.dns,
            sending,
            self.clock,
            in_no_thread,
            organization="mx.sender.example",
            contact=CONTACT,
            chance=lambda: self.chance,
        )
        now(self.reports.start())

    def stop(self):
        now(self.reports.stop())
        assert self.clock.getDelayedCalls() == []

    def crash(self):
        for call in self.clock.getDelayedCalls():
            call.cancel()

    def note(self, *results):
        for result in results:
            self.reports.note(result)

    def go_on(self, seconds, step=60.0):
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end:
            self.clock.advance(min(step, end - self.clock.seconds()))

    def till_tomorrow(self, hours=5.0):
        self.go_on(DAY - self.clock.seconds() % DAY + hours * 3600)

    def mails(self):
        return [
            (delivery, message_from_bytes(delivery.content.in_memory(), policy=default))
            for destination, _ in self.spool.destinations().result
            for delivery in self.spool.claim(destination, 10).result
        ]


@pytest.fixture
def place(tmp_path):
    place = Place(tmp_path)
    yield place
    place.stop()


def of_mail(mail):
    _, attached = mail.iter_parts()
    return json.loads(gzip.decompress(attached.get_content()))


# ------------------------------------------------------------------------------------------------- daily


def test_day_is_reported_by_mail_when_it_is_over(place):
    place.note(SUCCESS, SUCCESS, FAILURE)
    place.go_on(3600)
    place.note(SUCCESS)
    assert place.mails() == []
    place.till_tomorrow()
    [(delivery, mail)] = place.mails()
    assert delivery.destination == Destination(TLS_REPORTS, "example.com")
    assert delivery.reverse_path == CONTACT
    assert delivery.message.envelope.options.tls_optional
    [recipient] = delivery.recipients
    assert recipient.address == Address("reports", "example.com")
    assert recipient.options.notify == Notify(0)
    assert mail["DKIM-Signature"]
    [policy] = of_mail(mail)["policies"]
    assert policy["summary"] == {"total-successful-session-count": 3, "total-failure-session-count": 1}
    place.till_tomorrow()
    assert place.mails() == []  # without traffic there is nothing to tell


def test_day_is_reported_by_https(place):
    place.dns.table["_smtp._tls.example.com", "TXT"] = secure(
        b"v=TLSRPTv1; rua=https://r.example.com/tls,https://s.example.com:8443/"
    )
    place.note(FAILURE)
    place.till_tomorrow()
    (host, port, path, data), (other, other_port, _, same) = place.web.posted
    assert (host, port, path) == ("r.example.com", None, "/tls")
    assert (other, other_port) == ("s.example.com", 8443)
    assert data == same
    assert json.loads(gzip.decompress(data))["date-range"]["start-datetime"] == "2024-10-04T00:00:00Z"
    assert place.mails() == []


@pytest.mark.parametrize("records", [(), (b"v=TLSRPTv1; rua=ftp://x.example/",), (b"v=spf1 -all",)])
def test_who_does_not_ask_hears_nothing(place, records):
    place.dns.table["_smtp._tls.example.com", "TXT"] = secure(*records)
    place.note(FAILURE)
    place.till_tomorrow()
    place.dns.table["_smtp._tls.example.com", "TXT"] = TO_MAIL
    place.till_tomorrow()
    assert place.mails() == []
    assert place.dns.asked == [("_smtp._tls.example.com", "TXT")]


def test_reports_wait_for_some_hours_by_chance(place):
    place.note(SUCCESS)
    place.go_on(DAY - place.clock.seconds() % DAY)
    place.go_on(7200, 5.0)  # half of four hours, as chance has it
    asked = len(place.dns.asked)
    place.go_on(120, 5.0)
    assert (asked, len(place.dns.asked)) == (0, 1)


def test_each_domain_has_its_report(place):
    domains = [f"d{number}.example" for number in range(30)]
    for domain in domains:
        place.dns.table[f"_smtp._tls.{domain}", "TXT"] = TO_WEB
        place.note(TLSResult(domain, POLICY))
    place.till_tomorrow()
    reported = [json.loads(gzip.decompress(data))["policies"][0]["policy"] for *_, data in place.web.posted]
    assert sorted(policy["policy-domain"] for policy in reported) == sorted(domains)


# ---------------------------------------------------------------------------------------------- restarts


def test_counts_outlive_a_restart(place):
    place.note(SUCCESS)
    place.stop()
    place.start()
    place.note(SUCCESS)
    place.till_tomorrow()
    [(_, mail)] = place.mails()
    assert of_mail(mail)["policies"][0]["summary"]["total-successful-session-count"] == 2


def test_counts_outlive_a_crash_but_for_the_last_seconds(place):
    place.note(SUCCESS)
    place.go_on(6, 1.0)
    place.note(SUCCESS)
    place.crash()
    place.start()
    place.till_tomorrow()
    [(_, mail)] = place.mails()
    assert of_mail(mail)["policies"][0]["summary"]["total-successful-session-count"] == 1


def test_day_that_ended_while_we_did_not_run_is_reported_soon_and_once(place):
    place.note(SUCCESS)
    place.stop()
    place.clock.advance(DAY)
    place.start()
    place.go_on(100, 5.0)
    assert place.dns.asked == []
    place.go_on(200, 5.0)
    assert len(place.mails()) == 1
    place.stop()
    place.start()
    place.till_tomorrow()
    assert place.mails() == []


def test_days_that_are_long_past_are_not_reported(place):
    place.note(SUCCESS)
    place.stop()
    place.clock.advance(6 * DAY)
    place.start()
    place.till_tomorrow()
    assert place.mails() == []


def test_clock_that_is_set_back_stops_nothing(place):
    place.note(SUCCESS)
    place.till_tomorrow()
    assert len(place.mails()) == 1
    place.clock.rightNow -= 10 * DAY
    for call in place.clock.calls:
        call.time -= 10 * DAY  # a reactor's timers are not by the clock on the wall
    place.note(SUCCESS)
    place.till_tomorrow()
    place.till_tomorrow()
    assert len(place.mails()) == 1


# ---------------------------------------------------------------------------------------------- failures


def test_post_that_fails_is_tried_for_a_day_and_no_longer(place):
    place.dns.table["_smtp._tls.example.com", "TXT"] = TO_WEB
    place.web.answer = FetchFailed("away")
    place.note(FAILURE)
    place.till_tomorrow(hours=0)
    when = []
    for _ in range(3 * 24 * 12):
        before = len(place.web.posted)
        place.go_on(300)
        when += [place.clock.seconds()] * (len(place.web.posted) - before)
    assert len(when) == 8
    waits = [later - sooner for sooner, later in pairwise(when)]
    assert waits == sorted(waits)
    assert 0.7 * DAY < when[-1] - when[0] <= DAY
    assert len({data for *_, data in place.web.posted}) == 1  # with the same identity


def test_post_that_fails_once_is_sent_later(place):
    place.dns.table["_smtp._tls.example.com", "TXT"] = TO_WEB
    place.web.answer = Page(503, "", b"")
    place.note(FAILURE)
    place.till_tomorrow()
    tries = len(place.web.posted)
    place.web.answer = Page(200, "", b"")
    place.till_tomorrow()
    assert len(place.web.posted) == tries + 1


def test_one_who_takes_it_is_enough(place):
    place.dns.table["_smtp._tls.example.com", "TXT"] = secure(
        b"v=TLSRPTv1; rua=mailto:reports@example.com,https://r.example.com/"
    )
    place.web.answer = FetchFailed("away")
    place.note(FAILURE)
    place.till_tomorrow()
    assert len(place.mails()) == 1
    place.till_tomorrow()
    assert len(place.web.posted) == 1


@pytest.mark.parametrize("fault", ["dns", "spool", "key"])
def test_what_fails_on_our_side_is_tried_again(place, fault):
    if fault == "dns":
        place.dns.table["_smtp._tls.example.com", "TXT"] = failing()
    elif fault == "spool":
        place.spool.failure = SpoolError("no")
    else:
        place.signs.failure = Unsigned("no key")
    place.note(FAILURE)
    place.till_tomorrow()
    assert place.mails() == []
    place.dns.table["_smtp._tls.example.com", "TXT"] = TO_MAIL
    place.spool.failure = place.signs.failure = None
    place.till_tomorrow()
    assert len(place.mails()) == 1


def test_reader_who_is_refused_is_left_out(place):
    place.router.refusal = Refused(NO_SUCH_USER)
    place.note(FAILURE)
    place.till_tomorrow()
    assert place.mails() == []


def test_defect_of_one_report_keeps_no_other(place):
    class Broken:
        def __getattr__(self, name):
            raise RuntimeError("a defect")

    place.dns.table["_smtp._tls.a.example", "TXT"] = Broken()
    place.note(TLSResult("a.example", POLICY), SUCCESS)
    place.till_tomorrow()
    assert len(place.mails()) == 1


def test_disk_that_takes_nothing_is_no_loop(place):
    place.note(FAILURE)
    place.go_on(10, 5.0)

    async def nothing(*_):
        return None

    place.book.close = place.book.defer = nothing
    place.till_tomorrow(hours=3)
    assert 1 <= len(place.mails()) <= 2


def test_stop_waits_for_nobody(place):
    place.dns.table["_smtp._tls.example.com", "TXT"] = TO_WEB
    place.web.answer = Deferred()
    place.note(FAILURE)
    place.till_tomorrow()
    place.stop()
    place.web.answer = Page(200, "", b"")
    place.start()
    place.go_on(600)
    assert len(place.web.posted) == 2
