"""What TLS a connection to another server must have, and what came of it: values for DANE, MTA-STS and reports."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class TLSA(NamedTuple):
    """A TLSA record (RFC 6698 section 2.1)."""

    usage: int
    selector: int
    matching: int
    data: bytes


class PolicySource(StrEnum):
    """Who says so; in the words of RFC 8460 section 4.2 where it has one."""

    CONFIGURED = "no-policy-found"
    DANE = "tlsa"
    MTA_STS = "sts"


@dataclass(frozen=True, slots=True)
class TLSPolicy:
    """What a connection must have; `mode` is one of `NextHop.tls`.

    `tlsa` are the usable records in the mode "dane"; `names` the names that a certificate may be for, where the host's
    own is not the only one (RFC 7672 section 3.2.2). `text` are the lines of the policy as reports quote them. With
    `testing` (MTA-STS, RFC 8461 section 5) failures are reported and otherwise nothing follows from them. The first of
    the `names` is the one that the server is asked for (RFC 7672 section 8.1). `mx_proved` says that the host is known
    to serve the domain: by DNSSEC, by MTA-STS, or because the configuration names it.
    """

    mode: str = "opportunistic"
    source: PolicySource = PolicySource.CONFIGURED
    tlsa: tuple[TLSA, ...] = ()
    names: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    mx_patterns: tuple[str, ...] = ()
    testing: bool = False
    mx_proved: bool = True

    @property
    def allows_plaintext(self) -> bool:
        """Whether a connection on which TLS has failed is tried again without."""
        return self.mode in ("none", "opportunistic")

    @property
    def proves_the_host(self) -> bool:
        """Whether TLS is certain, with a certificate that proves the right host (RFC 8689 section 4.2.1, 2 and 4)."""
        return self.mode in ("verified", "dane", "implicit") and self.mx_proved and not self.testing


class TLSFailureKind(StrEnum):
    """What may go wrong, as reports have it (RFC 8460 section 4.3)."""

    STARTTLS_NOT_SUPPORTED = "starttls-not-supported"
    HOST_MISMATCH = "certificate-host-mismatch"
    EXPIRED = "certificate-expired"
    NOT_TRUSTED = "certificate-not-trusted"
    VALIDATION = "validation-failure"
    TLSA_INVALID = "tlsa-invalid"
    DNSSEC_INVALID = "dnssec-invalid"
    DANE_REQUIRED = "dane-required"
    POLICY_FETCH = "sts-policy-fetch-error"
    POLICY_INVALID = "sts-policy-invalid"
    WEBPKI_INVALID = "sts-webpki-invalid"


class TLSProblem(NamedTuple):
    """What was wrong with the other side's TLS: for reports, and in words for people."""

    kind: TLSFailureKind
    text: str


@dataclass(frozen=True, slots=True)
class TLSResult:
    """What came of one connection, or of the search for a policy. `failure` is None for a success.

    `domain` is the policy domain (of the recipients), `host` the MX, `address` its IP address, `local` ours.
    """

    domain: str
    policy: TLSPolicy
    host: str = ""
    address: str = ""
    local: str = ""
    failure: TLSFailureKind | None = None
    reason: str = ""
