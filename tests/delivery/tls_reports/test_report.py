"""A report: its content, its mail, its signature."""

import gzip
import json
import re
from email import message_from_bytes
from email.policy import default

import dkim
import pytest

from mailsuite.delivery.tls_reports.report import make_mail, make_report
from mailsuite.delivery.tls_reports.signature import Signature, Unsigned
from mailsuite.delivery.tls_reports.tally import DAY, Event, Policy
from mailsuite.mail.address import Address

CONTACT = Address("tls", "Sender.example")
READERS = [Address("reports", "example.com"), Address("other", "example.net")]
STS = Policy("sts", ("version: STSv1", "mode: testing", "mx: *.example.com", "max_age: 60"), ("*.example.com",))
TLSA = Policy("tlsa", ("3 1 1 ab", "3 1 1 cd"), ("mx.example.com",))
NONE = Policy("no-policy-found")
ENDED = 16_892  # 2016-04-01
EVENTS = [
    (Event(ENDED, "example.com", STS), 5326),
    (
        Event(ENDED, "example.com", STS, "certificate-expired", "2001:db8::1", "mx1.example.com", "192.0.2.7", "late"),
        100,
    ),
    (Event(ENDED, "example.com", STS, "sts-policy-fetch-error", reason="404"), 3),
    (Event(ENDED, "example.com", TLSA), 1),
    (Event(ENDED, "example.com", NONE, "starttls-not-supported", host="mx.example.com"), 2),
]


def report(events=EVENTS):
    return make_report(ENDED, "example.com", events, organization="mx.sender.example", contact=CONTACT)


def content(made):
    return json.loads(gzip.decompress(made.octets))


def test_content_is_that_of_the_schema():
    made = content(report())
    identity = made.pop("report-id")
    assert identity.endswith("@sender.example")
    assert made == {
        "organization-name": "mx.sender.example",
        "date-range": {"start-datetime": "2016-04-01T00:00:00Z", "end-datetime": "2016-04-01T23:59:59Z"},
        "contact-info": "tls@sender.example",
        "policies": [
            {
                "policy": {
                    "policy-type": "sts",
                    "policy-string": list(STS.text),
                    "policy-domain": "example.com",
                    "mx-host": ["*.example.com"],
                },
                "summary": {"total-successful-session-count": 5326, "total-failure-session-count": 103},
                "failure-details": [
                    {
                        "result-type": "certificate-expired",
                        "sending-mta-ip": "2001:db8::1",
                        "receiving-mx-hostname": "mx1.example.com",
                        "receiving-ip": "192.0.2.7",
                        "failure-reason-code": "late",
                        "failed-session-count": 100,
                    },
                    {
                        "result-type": "sts-policy-fetch-error",
                        "failure-reason-code": "404",
                        "failed-session-count": 3,
                    },
                ],
            },
            {
                "policy": {
                    "policy-type": "tlsa",
                    "policy-string": list(TLSA.text),
                    "policy-domain": "example.com",
                    "mx-host": ["mx.example.com"],
                },
                "summary": {"total-successful-session-count": 1, "total-failure-session-count": 0},
            },
            {
                "policy": {"policy-type": "no-policy-found", "policy-domain": "example.com"},
                "summary": {"total-successful-session-count": 0, "total-failure-session-count": 2},
                "failure-details": [
                    {
                        "result-type": "starttls-not-supported",
                        "receiving-mx-hostname": "mx.example.com",
                        "failed-session-count": 2,
                    }
                ],
            },
        ],
    }


def test_same_report_has_the_same_identity_and_another_another():
    assert report() == report()
    other = make_report(ENDED + 1, "example.com", EVENTS, organization="mx.sender.example", contact=CONTACT)
    assert other.identity != report().identity
    other = make_report(ENDED, "example.com", EVENTS, organization="mx2.sender.example", contact=CONTACT)
    assert other.identity != report().identity


def test_mail_is_that_of_section_5_3():
    made = report()
    octets = make_mail(made, CONTACT, READERS, ENDED * DAY + 90_000.0)
    assert max(map(len, octets.split(b"\r\n"))) < 200
    assert b"\n" not in octets.replace(b"\r\n", b"")
    mail = message_from_bytes(octets, policy=default)
    assert not mail.defects
    assert mail.get_content_type() == "multipart/report"
    assert mail.get_param("report-type") == "tlsrpt"
    assert mail["TLS-Report-Domain"] == "example.com"
    assert mail["TLS-Report-Submitter"] == "sender.example"
    assert re.fullmatch(
        r"Report Domain: example\.com Submitter: sender\.example Report-ID: <[^@\s]+@sender\.example>", mail["Subject"]
    )
    assert mail["From"].addresses[0].addr_spec == "tls@sender.example"
    assert [one.addr_spec for one in mail["To"].addresses] == [str(reader) for reader in READERS]
    assert mail["TLS-Required"] == "No"
    assert mail["Message-ID"] == made.message_id
    words, attached = mail.iter_parts()
    assert words.get_content_type() == "text/plain"
    assert "5327" in words.get_content()
    assert attached.get_content_type() == "application/tlsrpt+gzip"
    assert attached.get_content() == made.octets
    begin, end = ENDED * DAY, ENDED * DAY + DAY - 1
    assert re.fullmatch(rf"sender\.example!example\.com!{begin}!{end}!\w+\.json\.gz", attached.get_filename())


# --------------------------------------------------------------------------------------------- signature


def published(file):
    """What the file beside the key says is to stand in the DNS."""
    name, _, strings = file.read_text().strip().partition(" TXT ")
    return {name.encode(): "".join(re.findall(r'"([^"]*)"', strings)).encode()}


def test_signature_is_good_by_the_record_that_is_told(tmp_path):
    signature = Signature("sender.example", tmp_path / "tls-reports.key")
    signed = signature.sign(make_mail(report(), CONTACT, READERS, 1e9))
    records = published(tmp_path / "tls-reports.dns")
    assert list(records) == [f"{signature.selector}._domainkey.sender.example.".encode()]

    def lookup(name, timeout=5):
        return records.get(name)

    assert dkim.verify(signed, dnsfunc=lookup, tlsrpt="strict")
    assert not dkim.verify(signed.replace(b"example.com", b"example.org"), dnsfunc=lookup, tlsrpt="strict")
    field = signed.partition(b"\r\nFrom:")[0]
    assert b" l=" not in field  # section 3
    assert b"tls-report-domain" in field
    assert b"tls-report-submitter" in field


def test_key_is_made_once_and_for_nobody_else(tmp_path):
    file = tmp_path / "tls-reports.key"
    first = Signature("sender.example", file)
    first.sign(b"From: x\r\n\r\n")
    again = Signature("sender.example", file)
    again.sign(b"From: x\r\n\r\n")
    assert again.selector == first.selector
    assert file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("octets", [b"", b"no key", None])
def test_without_a_key_nothing_is_signed(tmp_path, octets):
    file = tmp_path / "none" / "key" if octets is None else tmp_path / "key"
    if octets is not None:
        file.write_bytes(octets)
    with pytest.raises(Unsigned):
        Signature("sender.example", file).sign(b"From: x\r\n\r\n")
