"""The part of a report that people read: what has happened to whom, and what was said about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mailsuite.mail.queue import Message, Result
from mailsuite.mail.reports.fields import ascii_line, printable
from mailsuite.mail.reports.status import Reported
from mailsuite.mail.trace import date_time

# The gravest first: of several it is what the subject says.
_ORDER: Final = (Result.FAILED, Result.DEFERRED, Result.RELAYED, Result.DELIVERED)
_SUBJECTS: Final = {
    Result.FAILED: "Your message could not be delivered",
    Result.DEFERRED: "Your message is delayed",
    Result.RELAYED: "Your message was passed on",
    Result.DELIVERED: "Your message was delivered",
}
_UNDELIVERABLE: Final = "A message without a sender could not be delivered"


def subject(reported: Sequence[Reported], *, without_sender: bool) -> str:
    """What it is about."""
    if without_sender:
        return _UNDELIVERABLE
    results = {one.outcome.result for one in reported}
    return next(_SUBJECTS[result] for result in _ORDER if result in results)


def words(
    message: Message,
    reported: Sequence[Reported],
    hostname: str,
    returned: str,
    *,
    without_sender: bool,
    about: str = "",
    others: int = 0,
) -> str:
    """The text. `returned` says in a word what of the message comes back, as in `header`; empty where nothing does.

    `about` is the message's own subject, one line of text; `others` is how many recipients it still waits for.
    """
    whose = "The" if without_sender else "Your"
    lines = [f"This is the mail server at {hostname}."]
    if about:
        lines += ["", f"Subject: {about}"]
    for result in _ORDER:
        of_kind = [one for one in reported if one.outcome.result is result]
        if of_kind:
            lines += ["", *_opening(result, f"{whose} message of {date_time(message.arrived)}", of_kind)]
            for one in of_kind:
                lines += _about(one)
    if others:
        whom = "one other recipient" if others == 1 else f"{others:,} other recipients"
        lines += ["", f"The message is still being tried for {whom}: do not send it anew to all."]
    if returned:
        lines += ["", f"{whose} message is attached." if returned == "message" else f"The {returned} is attached."]
    return "\r\n".join([*lines, ""])


def _opening(result: Result, message: str, reported: Sequence[Reported]) -> Sequence[str]:
    match result:
        case Result.FAILED:
            return (f"{message} could not be delivered to", "the recipients below, and will not be tried again.")
        case Result.DEFERRED:
            until = max((one.until for one in reported if one.until is not None), default=None)
            limit = "" if until is None else f" until {date_time(until)}"
            return (
                f"{message} was not delivered yet to",
                f"the recipients below. It will be tried again{limit}.",
                "You need not send it anew.",
            )
        case Result.RELAYED:
            return (
                f"{message} was passed on for",
                "the recipients below, to a server that does not say when it has delivered it.",
            )
        case _:
            return (f"{message} was delivered to", "the recipients below.")


def _about(reported: Reported) -> Sequence[str]:
    recipient, outcome = reported.recipient, reported.outcome
    asked = "" if recipient.original is None else f" (sent to <{printable(recipient.original)}>)"
    lines = ["", f"<{printable(recipient.address)}>{asked}"]
    if outcome.reply is not None:
        who = "" if outcome.remote is None else f"{ascii_line(outcome.remote)} said: "
        lines.append(f"    {who}{ascii_line(str(outcome.reply))}")
    if outcome.reply is None or outcome.text != outcome.reply.text:
        lines.append(f"    {ascii_line(outcome.text)}")  # our own words: nobody else has said them
    if reported.before:
        lines.append(f"    The last attempt: {ascii_line(reported.before)}")
    return lines
