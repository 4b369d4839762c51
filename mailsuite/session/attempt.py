"""One delivery while it is attempted: what became of each of its recipients so far."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from mailsuite.mail.queue import Delivery, Outcome, Result, Via
from mailsuite.mail.reply import Reply
from mailsuite.mail.status import EnhancedStatus

_ARRIVED: Final = (Result.RELAYED, Result.DELIVERED)
_SYSTEM_FULL: Final = ((3, 1), (3, 2))  # RFC 3463 section 3.4


class Attempt:
    """The outcomes of one delivery, by the position of the recipient in `delivery.recipients`.

    `heard` says that the peer has answered something about this delivery, `sent` that its content was said before
    anything was heard. `final` is for LMTP, where a positive reply says that the message was delivered, not relayed.
    `via` is the connection: every outcome names it. `dsn_passed_on` is as in `mail.queue.Outcome`, for those who have
    it.
    """

    __slots__ = ("_final", "_outcomes", "_via", "delivery", "dsn_passed_on", "heard", "remote", "sent")

    def __init__(self, delivery: Delivery, remote: str, *, final: bool, via: Via | None = None) -> None:
        self.delivery = delivery
        self.remote = remote
        self.heard = False
        self.sent = False
        self.dsn_passed_on = False
        self._final = final
        self._via = via
        self._outcomes: list[Outcome | None] = [None] * len(delivery.recipients)

    @property
    def waiting(self) -> list[int]:
        """The recipients without an outcome."""
        return [index for index, outcome in enumerate(self._outcomes) if outcome is None]

    @property
    def is_judged(self) -> bool:
        """Whether everybody has an outcome."""
        return None not in self._outcomes

    @property
    def arrived(self) -> bool:
        """Whether somebody has the message: another attempt for all of them would bring it twice."""
        return any(outcome is not None and outcome.result in _ARRIVED for outcome in self._outcomes)

    @property
    def met_full_disk(self) -> bool:
        """Whether a reply has said of the whole server that it has no room, or takes no mail now."""
        return any(outcome is not None and outcome.status[1:] in _SYSTEM_FULL for outcome in self._outcomes)

    def settle(self, index: int, outcome: Outcome) -> None:
        """Note what became of a recipient."""
        self._outcomes[index] = self._by_this_way(outcome)

    def judge(self, index: int, reply: Reply) -> None:
        """Note what became of a recipient by the reply that decides it."""
        outcome = Outcome.of_reply(reply, self.remote, self._via, dsn_passed_on=self.dsn_passed_on)
        if self._final and outcome.result is Result.RELAYED:
            outcome = replace(outcome, result=Result.DELIVERED)
        self._outcomes[index] = outcome

    def refuse(self, status: EnhancedStatus, text: str) -> None:
        """Note that whoever waits has failed by a rule that we know without asking."""
        for index in self.waiting:
            self.settle(index, Outcome(Result.FAILED, status, text, remote=self.remote))

    def finish(self, rest: Outcome | None = None) -> list[Outcome]:
        """The outcomes in order; `rest` for those who have none. Raises `ValueError` where it is wanted and missing."""
        judged = [outcome for outcome in self._outcomes if outcome is not None]
        if len(judged) == len(self._outcomes):
            return judged
        if rest is None:
            raise ValueError(f"{self.delivery.message.queue_id}: somebody has no outcome")
        rest = self._by_this_way(rest)
        return [outcome or rest for outcome in self._outcomes]

    def _by_this_way(self, outcome: Outcome) -> Outcome:
        return outcome if outcome.via is not None or self._via is None else replace(outcome, via=self._via)


def deferred(status: EnhancedStatus, text: str, remote: str, reply: Reply | None = None) -> Outcome:
    """An outcome that loses nothing."""
    return Outcome(Result.DEFERRED, status.of_class(4), text, reply, remote)
