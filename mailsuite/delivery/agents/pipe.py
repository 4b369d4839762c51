"""The pipe agent: hands each message to a program, once for each recipient.

There is no shell: the command is a list of words, in which `{recipient}` and the like stand for what is known of the
message. An address that begins with a hyphen is written with its local part in quotes, which means the same and is no
option; a bare `{local}` that does is refused. The program gets the message on its standard input with LF line ends,
Return-Path and Delivered-To above it, and an environment of its own: PATH, SENDER, RECIPIENT, ORIGINAL_RECIPIENT and
QUEUE_ID.

How it exits tells what became of the message, in the numbers of sysexits.h: with 0 it was delivered; some say that it
never will be; all else, a signal and the time-out too, that it is tried again, for a temporary answer loses nothing. An
enhanced status at the head of what the program writes takes the place of ours. Of its output the first two thousand
octets are kept.

Known limits: a program that had delivered when the server was killed gets the message once more. What a program has
started by itself outlives a time-out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from string import Formatter
from typing import Final

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorProcess, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from mailsuite.delivery.agents.child import Ending, run_child
from mailsuite.interfaces import IDeliveryAgent, IQueueRun
from mailsuite.mail.address import Address
from mailsuite.mail.queue import Delivery, Outcome, Recipient, Result
from mailsuite.mail.status import EnhancedStatus
from mailsuite.mail.trace import delivered_to_line, return_path_line

WORDS: Final = ("sender", "recipient", "original", "local", "domain", "queue_id", "size")
"""What may stand in braces in a command."""

_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
_DELIVERED: Final = Outcome(Result.DELIVERED, EnhancedStatus(2, 0, 0), "Delivered to the program")
_INTERRUPTED: Final = Outcome(Result.DEFERRED, EnhancedStatus(4, 3, 2), "The server was stopped before the program ran")
_MISSING: Final = EnhancedStatus(4, 3, 5)
_FAILED: Final = EnhancedStatus(4, 3, 0)
# sysexits.h: those that another attempt does not mend, with what RFC 3463 calls them.
_FOR_GOOD: Final = {
    65: (EnhancedStatus(5, 6, 0), "the program takes no such message"),
    67: (EnhancedStatus(5, 1, 1), "the program knows no such user"),
    68: (EnhancedStatus(5, 1, 2), "the program knows no such host"),
    69: (EnhancedStatus(5, 3, 0), "the program's service is not there"),
    76: (EnhancedStatus(5, 5, 0), "the program met an error of protocol"),
    77: (EnhancedStatus(5, 7, 0), "the program does not permit it"),
}
_NOT_TEXT: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_LONGEST_TEXT: Final = 500


@dataclass(frozen=True, slots=True)
class PipeSettings:
    """`command` is a program by its whole path and its words; `timeout` is in seconds, for one message.

    `concurrency` is how many run at once. Raises `ValueError` in one sentence.
    """

    command: Sequence[str]
    timeout: float = 600.0
    concurrency: int = 2

    def __post_init__(self) -> None:
        if not self.command:
            raise ValueError("command: it names no program; write the whole path of one")
        if not Path(self.command[0]).is_absolute() or set("{}") & set(self.command[0]):
            raise ValueError(f"command = {self.command[0]!r}: write the whole path of the program")
        for word in self.command:
            if "\0" in word:  # no program can be given one
                raise ValueError(f"command: {word!r} has a NUL in it; take that out")
        for word in self.command[1:]:
            _check_word(word)
        if isinstance(self.timeout, bool) or not isfinite(self.timeout):
            raise ValueError(f'timeout = {self.timeout!r}: it takes seconds, or text as in "5m"')
        if self.timeout <= 0 or self.concurrency < 1:
            raise ValueError("timeout and concurrency: give more than nothing")


@implementer(IDeliveryAgent)
class PipeAgent:
    """Runs a program for each recipient, spawned by `reactor`; `clock` tells when it has taken too long."""

    _log = Logger()
    name = "pipe"
    batch = 2  # a program that runs long is not waited for by what comes after it

    def __init__(self, settings: PipeSettings, reactor: IReactorProcess, clock: IReactorTime) -> None:
        self.concurrency = settings.concurrency
        self._settings = settings
        self._reactor = reactor
        self._clock = clock

    async def deliver(self, run: IQueueRun) -> None:
        while (delivery := await run.next()) is not None:
            outcomes: list[Outcome] = []
            try:
                for recipient in delivery.recipients:
                    outcomes.append(await self._hand_over(delivery, recipient))  # noqa: PERF401 - kept when cancelled
            except CancelledError:
                if outcomes:  # what was delivered to some is not delivered to them again
                    run.settle(delivery, [*outcomes, *[_INTERRUPTED] * (len(delivery.recipients) - len(outcomes))])
                raise
            run.settle(delivery, outcomes)

    async def _hand_over(self, delivery: Delivery, recipient: Recipient) -> Outcome:
        known = _known(delivery, recipient)
        try:
            arguments = [self._settings.command[0], *(_filled(word, known) for word in self._settings.command[1:])]
        except _LooksLikeAnOption as error:
            return Outcome(Result.FAILED, EnhancedStatus(5, 1, 3), str(error))
        head = return_path_line(delivery.reverse_path) + delivered_to_line(recipient.address)
        environment = {
            "PATH": _PATH,
            "SENDER": known["sender"],
            "RECIPIENT": known["recipient"],
            "ORIGINAL_RECIPIENT": known["original"],
            "QUEUE_ID": known["queue_id"],
        }
        timeout = self._settings.timeout
        try:
            ending = await run_child(
                self._reactor, self._clock, arguments, environment, head, delivery.content, timeout=timeout
            )
        except OSError as error:  # the content cannot be read, or nothing can be spawned
            return Outcome(Result.DEFERRED, _FAILED, f"cannot hand the message to {arguments[0]}: {error.strerror}")
        outcome = judge(ending, Path(arguments[0]).name)
        if outcome.result is not Result.DELIVERED:
            self._log.warn(
                "{queue_id}: {agent} for {recipient}: {text}",
                queue_id=delivery.message.queue_id,
                agent=str(delivery.destination),
                recipient=known["recipient"],
                text=outcome.text,
            )
        return outcome


def judge(ending: Ending, program: str) -> Outcome:
    """What the end of a program means for the message."""
    said = _NOT_TEXT.sub(" ", ending.output.decode("utf-8", "replace")).strip()[:_LONGEST_TEXT]
    if ending.timed_out:
        return Outcome(Result.DEFERRED, _FAILED, f"{program} took too long, and was ended")
    if ending.status == 0:
        return _DELIVERED if not said else replace(_DELIVERED, text=said)
    if ending.signal is not None:
        return Outcome(Result.DEFERRED, _FAILED, _with(f"{program} was ended by signal {ending.signal}", said))
    if ending.not_started:
        return Outcome(Result.DEFERRED, _MISSING, _with(f"{program} cannot be run", said))
    if ending.status in _FOR_GOOD:
        result, (status, text) = Result.FAILED, _FOR_GOOD[ending.status]
    else:
        result, status, text = Result.DEFERRED, _FAILED, f"{program} ended with {ending.status}"
    own = EnhancedStatus.parse(said)
    if own is not None and own.class_ in (4, 5):  # it says better what it means
        result = Result.FAILED if own.class_ == 5 else Result.DEFERRED
        return Outcome(result, own, said.partition(" ")[2].strip() or text)
    return Outcome(result, status, _with(text, said))


class _LooksLikeAnOption(Exception):
    pass


def _with(text: str, said: str) -> str:
    return f"{text}: {said}" if said else text


def _known(delivery: Delivery, recipient: Recipient) -> dict[str, str]:
    address = recipient.address
    return {
        "sender": "" if delivery.reverse_path is None else _as_word(delivery.reverse_path),
        "recipient": _as_word(address),
        "original": _as_word(recipient.original or address),
        "local": address.local_part,
        "domain": address.domain_key,
        "queue_id": delivery.message.queue_id,
        "size": str(delivery.message.size),
    }


def _as_word(address: Address) -> str:
    """An address as it can stand alone in a command (RFC 5321 section 4.1.2: quotes do not change what is meant)."""
    text = str(address)
    return f'"{address.local_part}"@{address.domain}' if text.startswith("-") else text


def _filled(word: str, known: Mapping[str, str]) -> str:
    filled = word.format_map(known)
    if filled.startswith("-") and not word.startswith("-"):
        raise _LooksLikeAnOption(f"{filled!r} would be an option of the program, not an address")
    return filled


def _check_word(word: str) -> None:
    try:
        fields = [(name, spec, conversion) for _, name, spec, conversion in Formatter().parse(word) if name is not None]
    except ValueError:
        raise ValueError(f"command: {word!r} has a brace too few; write one that stands for itself twice") from None
    for name, spec, conversion in fields:
        if name not in WORDS or spec or conversion:
            known = ", ".join(f"{{{one}}}" for one in WORDS)
            raise ValueError(f"command: {word!r}: in braces there may be {known}")
