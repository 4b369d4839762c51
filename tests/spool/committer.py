"""A process to be killed: `python -m tests.spool.committer DIRECTORY SEED` commits and delivers until it dies.

What a message consists of follows from its queue id, so whoever looks afterwards can tell whether it is whole. One line
for each step, written after the spool has said so: `C id` committed, `D id` its maildir recipients delivered; `d id`
stands before a delivery is settled.
"""

import hashlib
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import ensureDeferred

from mailsuite.mail.address import Address
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.queue import Delivery, Outcome, Result, Settlement
from mailsuite.mail.route import Destination, Target
from mailsuite.mail.status import EnhancedStatus
from mailsuite.spool.sqlite import SqliteSpool
from tests.spool.pump import Pump

SPILL = 20_000
MAILDIR = Destination("maildir")
DESTINATIONS = (MAILDIR, MAILDIR, Destination("relay", "example.org"), Destination("hold", "ship.example"))
DELIVERED = Outcome(Result.DELIVERED, EnhancedStatus(2, 0, 0), "done")


def content_of(queue_id: str) -> bytes:
    digest = hashlib.sha256(queue_id.encode()).digest()
    size = int.from_bytes(digest[:4], "big") % (5000 if digest[4] < 220 else 200_000)
    return (digest * (size // len(digest) + 1))[:size]


def targets_of(queue_id: str) -> list[Target]:
    digest = hashlib.sha256(queue_id.encode()).digest()
    number = 1 if digest[5] < 128 else digest[6] % 20 + 1
    return [
        Target(Address(f"{queue_id}-{at}", "example.com"), DESTINATIONS[digest[8 + at] % 4]) for at in range(number)
    ]


class Deliverer:
    """Takes all mail for maildirs, and settles half of it."""

    def __init__(self, spool: SqliteSpool, choice: random.Random) -> None:
        self.spool = spool
        self.choice = choice

    def has_room(self, destination: Destination, size: int) -> bool:
        return destination == MAILDIR

    def committed(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            if self.choice.random() < 0.5:
                ensureDeferred(self.deliver(delivery))

    def due(self, destinations: Any) -> None:
        pass

    async def deliver(self, delivery: Delivery) -> None:
        say("d", delivery.message.queue_id)
        await self.spool.settle([Settlement(delivery, (DELIVERED,) * len(delivery.recipients))])
        say("D", delivery.message.queue_id)


def say(what: str, queue_id: str) -> None:
    os.write(1, f"{what} {queue_id}\n".encode())


async def commit(spool: SqliteSpool, choice: random.Random) -> None:
    while True:
        draft = spool.draft()
        content = content_of(draft.queue_id)
        for at in range(0, len(content), 7000):
            waiting = draft.write(content[at : at + 7000])
            if waiting is not None:
                await waiting
        if choice.random() < 0.1:
            draft.abort()
            continue
        await draft.commit(Envelope(Address("joe", "example.net")), targets_of(draft.queue_id))
        say("C", draft.queue_id)


def main(directory: str, seed: str) -> None:
    choice = random.Random(seed)
    pump = Pump()
    spool = SqliteSpool(Path(directory), pump, spill=SPILL)
    spool.watch(Deliverer(spool, choice))
    pump.run(spool.start())
    for _ in range(8):
        ensureDeferred(commit(spool, choice)).addErrback(lambda failure: failure.printTraceback())
    pump.until(lambda: False, 60)


if __name__ == "__main__":
    main(*sys.argv[1:])
