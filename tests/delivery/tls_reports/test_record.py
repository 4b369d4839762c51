"""Who wants reports, by the TXT record."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsuite.delivery.tls_reports.record import Https, MailTo, endpoints
from mailsuite.mail.address import Address

TEAM = MailTo(Address("reports", "example.com"))


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (b"v=TLSRPTv1;rua=mailto:reports@example.com", (TEAM,)),
        (b"v=TLSRPTv1; rua=MAILTO:reports@example.com;", (TEAM,)),
        (b"v=TLSRPTv1 ;\trua=mailto:reports@example.com ; ", (TEAM,)),
        (b"v=TLSRPTv1; other=x; rua=mailto:reports@example.com; more.of-it=y z", (TEAM,)),
        (b"v=TLSRPTv1; rua=mailto:reports@example.com?subject=none", (TEAM,)),
        (b"v=TLSRPTv1; rua=mailto:a%2Bb@example.com", (MailTo(Address("a+b", "example.com")),)),
        (b"v=TLSRPTv1; rua=mailto:reports@example.com%2Creports@example.com", (TEAM,)),
        (
            b"v=TLSRPTv1; rua=https://reporting.example.com/v1/tlsrpt?of=us",
            (Https("reporting.example.com", 443, "/v1/tlsrpt?of=us"),),
        ),
        (b"v=TLSRPTv1; rua=https://Reporting.example.com:8443", (Https("reporting.example.com", 8443, "/"),)),
        (
            b"v=TLSRPTv1; rua=mailto:reports@example.com , https://r.example.com/",
            (TEAM, Https("r.example.com", 443, "/")),
        ),
    ],
)
def test_endpoints_are_read(record, expected):
    assert endpoints([record, b"v=spf1 -all"]) == expected


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"v=TLSRPTv1",
        b"v=TLSRPTv1;",
        b"v=TLSRPTv2; rua=mailto:reports@example.com",
        b"rua=mailto:reports@example.com; v=TLSRPTv1;",
        b"v=TLSRPTv1; rua",
        b"v=TLSRPTv1; rua=mailto:reports@example.com; =x",
        b"v=TLSRPTv1; RUA=mailto:reports@example.com",
        b"v=TLSRPTv1; rua=reports@example.com",
        b"v=TLSRPTv1; rua=mailto:",
        b"v=TLSRPTv1; rua=mailto:reports@[127.0.0.1]",
        b"v=TLSRPTv1; rua=mailto:%c3%a4@example.com",
        b"v=TLSRPTv1; rua=mailto:x%0d%0aTo:%20y@example.com",
        b"v=TLSRPTv1; rua=http://r.example.com/",
        b"v=TLSRPTv1; rua=https:///x",
        b"v=TLSRPTv1; rua=https://localhost/",
        b"v=TLSRPTv1; rua=https://127.0.0.1/",
        b"v=TLSRPTv1; rua=https://127.1/",
        b"v=TLSRPTv1; rua=https://[::1]/",
        b"v=TLSRPTv1; rua=https://user@r.example.com/",
        b"v=TLSRPTv1; rua=https://r.example.com:99999/",
        b"v=TLSRPTv1; rua=mailto:\xffreports@example.com",
    ],
)
def test_what_leads_nowhere_is_none(record):
    assert endpoints([record]) == ()


def test_more_than_one_record_is_none():
    record = b"v=TLSRPTv1; rua=mailto:reports@example.com"
    assert endpoints([record, record]) == ()
    assert endpoints([]) == ()


def test_not_more_than_a_few_are_heeded():
    uris = ",".join(f"mailto:r{number}@example.com" for number in range(100))
    assert len(endpoints([f"v=TLSRPTv1; rua={uris}".encode()])) == 5


@given(st.binary(max_size=300))
def test_nothing_that_a_stranger_writes_raises(octets):
    for one in endpoints([b"v=TLSRPTv1; rua=" + octets]) + endpoints([octets]):
        assert isinstance(one, (MailTo, Https))
