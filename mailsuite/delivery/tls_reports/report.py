"""A report: what it says (RFC 8460 section 4.4), and the mail that carries it (section 5.3)."""

from __future__ import annotations

import gzip
import json
from base64 import encodebytes
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

from mailsuite.delivery.tls_reports.tally import DAY, Event, Policy
from mailsuite.mail.address import Address
from mailsuite.mail.reports.fields import field, printable
from mailsuite.mail.trace import date_time

MEDIA_TYPE: Final = "application/tlsrpt+gzip"


@dataclass(frozen=True, slots=True)
class TLSReport:
    """The report of a day (by its number since 1970) to a domain. `octets` is gzipped JSON.

    `identity` is the same whenever the report of this day and domain is made: whoever gets it twice can tell.
    """

    domain: str
    identity: str
    octets: bytes
    file_name: str
    successes: int
    failures: int
    begin: datetime

    @property
    def message_id(self) -> str:
        """That of its mail, with the angle brackets."""
        return f"<tls-report.{self.identity}>"


def make_report(
    day: int, domain: str, events: Sequence[tuple[Event, int]], *, organization: str, contact: Address
) -> TLSReport:
    """The report on what was counted. `organization` is who reports, `contact` answers questions about it."""
    begin = datetime.fromtimestamp(day * DAY, UTC)
    last = day * DAY + DAY - 1
    submitter = contact.domain_key
    unique = sha256(f"{organization} {domain} {day}".encode()).hexdigest()[:16]
    identity = f"{begin:%Y%m%d}.{unique}@{submitter}"
    content = {
        "organization-name": organization,
        # Section 4.1: all of a UTC day.
        "date-range": {
            "start-datetime": f"{begin:%Y-%m-%dT%H:%M:%SZ}",
            "end-datetime": f"{datetime.fromtimestamp(last, UTC):%Y-%m-%dT%H:%M:%SZ}",
        },
        "contact-info": str(Address(contact.local_part, submitter)),
        "report-id": identity,
        "policies": [_of_policy(domain, policy, of_policy) for policy, of_policy in _by_policy(events).items()],
    }
    return TLSReport(
        domain,
        identity,
        gzip.compress(json.dumps(content).encode("ascii"), mtime=last),
        f"{submitter}!{domain}!{day * DAY}!{last}!{unique}.json.gz",  # section 5.1
        sum(count for event, count in events if not event.kind),
        sum(count for event, count in events if event.kind),
        begin,
    )


def _by_policy(events: Sequence[tuple[Event, int]]) -> dict[Policy, list[tuple[Event, int]]]:
    found: dict[Policy, list[tuple[Event, int]]] = {}
    for event, count in events:
        found.setdefault(event.policy, []).append((event, count))
    return found


def _of_policy(domain: str, policy: Policy, events: Sequence[tuple[Event, int]]) -> dict[str, Any]:
    said: dict[str, Any] = {"policy-type": policy.source}
    if policy.text:
        said["policy-string"] = policy.text  # section 4.5: one string for each line, or record
    said["policy-domain"] = domain
    if policy.hosts:
        said["mx-host"] = policy.hosts
    failures = [(event, count) for event, count in events if event.kind]
    found = {
        "policy": said,
        "summary": {
            "total-successful-session-count": sum(count for event, count in events if not event.kind),
            "total-failure-session-count": sum(count for _, count in failures),
        },
    }
    return found | {"failure-details": [_failure(*one) for one in failures]} if failures else found


def _failure(event: Event, count: int) -> dict[str, Any]:
    details: dict[str, Any] = {
        "result-type": event.kind,
        "sending-mta-ip": event.local,
        "receiving-mx-hostname": event.host,
        "receiving-ip": event.address,
        "failure-reason-code": event.reason,
    }
    # Where nobody was spoken to, as when a policy cannot be fetched, there is nothing to say.
    return {name: value for name, value in details.items() if value} | {"failed-session-count": count}


def make_mail(report: TLSReport, contact: Address, readers: Sequence[Address], now: float) -> bytes:
    """The report as a message, lines ended by CRLF, not signed yet."""
    submitter = contact.domain_key
    sender = printable(Address(contact.local_part, submitter))
    boundary = f"=_{sha256(report.identity.encode()).hexdigest()[:32]}"
    # That the domain hears of broken TLS must not fail for it (section 3): those on the way are told, too.
    head = [
        field("From", f'"TLS reports of {submitter}" <{sender}>'),
        field("To", ", ".join(f"<{printable(reader)}>" for reader in readers)),
        field("Subject", f"Report Domain: {report.domain} Submitter: {submitter} Report-ID: <{report.identity}>"),
        field("Date", date_time(now)),
        field("Message-ID", report.message_id),
        field("TLS-Report-Domain", report.domain),
        field("TLS-Report-Submitter", submitter),
        field("TLS-Required", "No"),  # RFC 8689 section 3
        field("Auto-Submitted", "auto-generated"),  # RFC 3834 section 5
        field("MIME-Version", "1.0"),
        f'Content-Type: multipart/report; report-type="tlsrpt";\r\n boundary="{boundary}"\r\n',
    ]
    return "".join(
        [
            *head,
            f"\r\n--{boundary}\r\nContent-Type: text/plain; charset=us-ascii\r\n",
            "Content-Transfer-Encoding: 7bit\r\n\r\n",
            _words(report, submitter),
            f"\r\n--{boundary}\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Transfer-Encoding: base64\r\n",
            f'Content-Disposition: attachment;\r\n filename="{report.file_name}"\r\n\r\n',
            encodebytes(report.octets).decode("ascii").replace("\n", "\r\n"),
            f"\r\n--{boundary}--\r\n",
        ]
    ).encode("ascii", "replace")


def _words(report: TLSReport, submitter: str) -> str:
    return (
        f"This is what mail servers of {submitter}\r\nmet with on {report.begin:%Y-%m-%d} (UTC) where they spoke TLS "
        f"to those of\r\n{report.domain}: connections with TLS as it should be {report.successes}, failures "
        f"{report.failures}.\r\n\r\nThe attachment is for programs (RFC 8460).\r\n"
    )
