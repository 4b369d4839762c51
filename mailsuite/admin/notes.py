"""What `mailsuite check` says of a configuration that nothing is wrong with: what may be meant, and mostly is not.

Each note is a sentence with its cure. What looks wrong with pulls and their domains is told by
`mailsuite.service.doubts`, for the log of the server too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cryptography import x509

from mailsuite.admin.doctor.judging import Fault, faults_of
from mailsuite.config import Settings

_OF_CERTIFICATES: Final = (Fault.EXPIRED, Fault.NOT_YET, Fault.OTHER_NAME, Fault.EXPIRES_SOON)


def notes(settings: Settings, local: frozenset[str] | None, now: float) -> Iterator[str]:
    """All of them. `local` are the local domains, None where nobody knows them; `now` is a POSIX timestamp."""
    if settings.accounts.postmaster is None and not (local == frozenset() and _is_provider(settings)):
        yield (
            "accounts.postmaster is not set; mail to the postmaster, which every domain must take (RFC 5321 section "
            "4.5.1), is refused where neither a user nor an alias has that address"
        )
    yield from _of_certificate(settings, now)
    for customer in settings.customer:
        if (customer.password, customer.password_file, customer.certificate) == (None, None, None):
            yield (
                f"customer {customer.name}: it cannot log in: it has neither a password nor a certificate; add "
                "password_file"
            )
    for pull in settings.pull:
        if not (pull.interval or pull.times or pull.at_start):
            yield (
                f"pull {pull.name}: it never begins by itself; give it an interval or times, unless a script says "
                "`mailsuite pull`"
            )


def _is_provider(settings: Settings) -> bool:
    """Whether it is there for customers, and may do without domains of its own."""
    return bool(settings.customer) or any(listen.service == "odmr" for listen in settings.listen)


def _of_certificate(settings: Settings, now: float) -> Iterator[str]:
    if settings.tls.certificate is None:
        return
    path = settings.path(settings.tls.certificate)
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return  # what serves has been content with it
    faults = faults_of(certificate, settings.hostname, now)
    for fault in _OF_CERTIFICATES:
        if fault in faults:
            cure = f"get one for {settings.hostname}, and see that it is renewed"
            yield f"tls.certificate: {path}: {faults[fault]}; {cure}"
