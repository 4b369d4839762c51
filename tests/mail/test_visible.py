"""Words of strangers in lines for people."""

import pytest

from mailsuite.interfaces import Barred
from mailsuite.mail.tls_policy import TLSFailureKind
from mailsuite.mail.visible import visible
from mailsuite.net.dnssec import LookupFailed
from mailsuite.net.resolver import DnsFailure

ODD = "a\r\nX: y\x1b[2J\x00\x85\u2028\u202e\udc80"


def test_what_can_be_seen_stays_as_it_is() -> None:
    assert visible("Bücher.example: nichts") == "Bücher.example: nichts"


def test_octets_of_control_are_escaped() -> None:
    assert visible("a\r\nb\x1b\u2028") == "a\\r\\nb\\x1b\\u2028"


@pytest.mark.parametrize(
    "error",
    [
        DnsFailure(ODD, "no such domain", temporary=False),
        LookupFailed(ODD, "MX", ODD),
        Barred(f"the policy does not name {ODD}", TLSFailureKind.VALIDATION),
    ],
)
def test_failures_that_quote_the_dns_are_one_line(error) -> None:
    assert str(error).isprintable()
