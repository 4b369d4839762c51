"""A process to be killed: `python -m tests.spool.keeper DIRECTORY SEED process|thread` keeps parts and resumes them.

What a message consists of follows from its queue id, as with `committer`. One line for each step, written after the
spool has said so: `K name id size` kept, `C id` committed, `N name id` committed with that name; `T name` stands before
a name is touched in any way.
"""

import os
import random
import sys
from pathlib import Path

from twisted.internet.defer import ensureDeferred

from mailsuite.interfaces import IDraft
from mailsuite.mail.address import Address
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.partial import Completed
from mailsuite.spool.sqlite import SqliteSpool
from tests.spool.committer import SPILL, content_of, targets_of
from tests.spool.pump import Pump

ENVELOPE = Envelope(Address("joe", "example.net"))


def own(name: str) -> str:
    """What is kept under a name is somebody's own: nobody else's makes it go."""
    return f"1@client.example account {name}"


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def write(draft: IDraft, octets: bytes) -> None:
    for at in range(0, len(octets), 7000):
        waiting = draft.write(octets[at : at + 7000])
        if waiting is not None:
            await waiting


async def live(spool: SqliteSpool, choice: random.Random, name: str) -> None:
    """Begin messages whose line breaks, and resume them until they are whole."""
    while True:
        say("T", name)
        part = await spool.resume(own(name))
        if isinstance(part, Completed):
            if choice.random() < 0.5:
                await spool.heard([own(name)])
            else:
                name += "x"
            continue
        if part is not None and choice.random() < 0.1:
            part.draft.abort()
            continue
        draft = spool.draft() if part is None else part.draft
        queue_id = draft.queue_id
        content = content_of(queue_id)
        size = draft.size
        end = choice.randint(size, len(content)) if choice.random() < 0.7 else len(content)
        await write(draft, content[size:end])
        if end == len(content):
            named = choice.random() < 0.7
            await draft.commit(ENVELOPE, targets_of(queue_id), name=own(name) if named else None, received=end)
            say("C", queue_id)
            if named:
                say("N", name, queue_id, end)
                if choice.random() < 0.5:
                    name += "y"  # this one stays as it is
            continue
        await spool.keep(draft, own(name), ENVELOPE, targets_of(queue_id), end)
        say("K", name, queue_id, end)
        if choice.random() < 0.1:
            say("T", name)
            await spool.forget(own(name))
        elif choice.random() < 0.2:
            name += "x"  # this one stays as it is


def main(directory: str, seed: str, where: str) -> None:
    pump = Pump()
    spool = SqliteSpool(Path(directory), pump, spill=SPILL, process=where == "process")
    pump.run(spool.start())
    for number in range(6):
        ensureDeferred(live(spool, random.Random(f"{seed} {number}"), f"name{number}")).addErrback(
            lambda failure: failure.printTraceback()
        )
    pump.until(lambda: False, 60)


if __name__ == "__main__":
    main(*sys.argv[1:])
