"""What a host that took no mail means for those who wait for it, and what all hosts together come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from mailsuite.interfaces import Barred
from mailsuite.mail.queue import Outcome, Result, Via
from mailsuite.mail.status import EnhancedStatus
from mailsuite.net.resolver import DnsFailure

NO_ANSWER: Final = EnhancedStatus(4, 4, 1)  # RFC 3463 section 3.5
TLS_FAILED: Final = EnhancedStatus(4, 7, 5)  # "Cryptographic failure", section 3.8
_DIRECTORY_FAILURE: Final = EnhancedStatus(4, 4, 3)
_UNABLE_TO_ROUTE: Final = EnhancedStatus(5, 4, 4)
_CONFIGURATION: Final = EnhancedStatus(4, 3, 5)  # "System incorrectly configured", section 3.4
_ENCRYPTION_NEEDED: Final = EnhancedStatus(5, 7, 10)  # RFC 8689 section 4.2.1
_REQUIRETLS_NEEDED: Final = EnhancedStatus(5, 7, 30)

NO_HOST: Final = Outcome(Result.DEFERRED, EnhancedStatus(4, 4, 4), "No host could be tried")


def of_silence(host: str, why: str, via: Via | None = None) -> Outcome:
    """No connection came about, or none is sought for a while."""
    return Outcome(Result.DEFERRED, NO_ANSWER, why, remote=host, via=via)


def of_dns(failure: DnsFailure) -> Outcome:
    """The DNS has no address for a host."""
    if failure.temporary:
        return Outcome(Result.DEFERRED, _DIRECTORY_FAILURE, str(failure))
    # RFC 5321 section 5.1: an MX that cannot be used is an error where there is no other.
    return Outcome(Result.FAILED, _UNABLE_TO_ROUTE, str(failure))


def of_untried(host: str, so_far: Sequence[Outcome]) -> Outcome:
    """There is one more host, or address, that may take the mail: it is left for the next attempt."""
    last = so_far[-1] if so_far else NO_HOST
    status = last.status.of_class(4)
    return replace(last, result=Result.DEFERRED, status=status, text=f"{last.text}; {host} is still to be asked")


def of_barred(host: str, barred: Barred) -> Outcome:
    """A policy keeps mail from a host."""
    result = Result.DEFERRED if barred.temporary else Result.FAILED
    return Outcome(result, TLS_FAILED.of_class(4 if barred.temporary else 5), str(barred), remote=host)


def of_configuration(error: Exception) -> Outcome:
    """Our own settings cannot be used; that bounces nobody's mail."""
    return Outcome(Result.DEFERRED, _CONFIGURATION, str(error))


def of_unsafe(host: str, *, is_proved: bool, may_change: bool) -> Outcome:
    """No host was safe enough for a message that demands TLS; `may_change` says that some could not be asked."""
    if is_proved:
        status, what = _REQUIRETLS_NEEDED, f"REQUIRETLS is demanded, and {host} does not offer it"
    else:
        status, what = _ENCRYPTION_NEEDED, f"TLS is demanded, and {host} has no way to prove itself by it"
    if may_change:
        return Outcome(Result.DEFERRED, status.of_class(4), what, remote=host)
    return Outcome(Result.FAILED, status, what, remote=host)


def sum_up(outcomes: Sequence[Outcome], *, defer: bool) -> Outcome:
    """What all hosts together come to: failed only where each says so, and never where `defer`."""
    deferred = [outcome for outcome in outcomes if outcome.result is Result.DEFERRED]
    if deferred:
        return deferred[-1]
    if not outcomes:
        return NO_HOST
    last = outcomes[-1]
    return replace(last, result=Result.DEFERRED, status=last.status.of_class(4)) if defer else last
