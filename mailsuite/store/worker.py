"""A process of its own for delivery into maildirs: `python -m mailsuite.store.worker`, started by `store.process`.

Creating files is a system call after the other. In a thread each of them gives the interpreter away and has to win it
back from the reactor, which costs both more than the files do; a process of its own costs the reactor nothing.

It reads batches from its standard input and writes their outcomes to its standard output, each as a frame: four
octets of length, then a pickle. Both ends are one program and one user; nobody else can reach the pipes. It ends when
its input does, and only then: signals that are meant for the server (Ctrl-C in a terminal, a service manager's SIGTERM
to all) would tear a batch apart.
"""

from __future__ import annotations

import os
import pickle
import signal
import struct
import sys
import time
from collections.abc import Sequence
from typing import Any, BinaryIO, Final

from mailsuite.mail.address import Address
from mailsuite.mail.content import MemoryContent
from mailsuite.mail.envelope import Envelope
from mailsuite.mail.queue import Delivery, Message, Recipient
from mailsuite.mail.route import MAILDIR, Destination
from mailsuite.store.maildir import MaildirStore

Packed = tuple[str, float, tuple[str, str] | None, list[tuple[int, str, str, int]], bytes, bool]

LENGTH: Final = struct.Struct("!I")


def frame(value: object) -> bytes:
    """A value as it goes through a pipe."""
    octets = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    return LENGTH.pack(len(octets)) + octets


def unframe(octets: bytes) -> Any:  # noqa: ANN401 - whatever was framed
    """The value within a frame that has lost its length."""
    return pickle.loads(octets)  # noqa: S301 - from our own other half


def pack(delivery: Delivery, octets: bytes) -> Packed:
    """What the store needs of a delivery, as a pickle has it with the least work: the near end has no time to lose."""
    message = delivery.message
    reverse = delivery.reverse_path
    return (
        message.queue_id,
        message.arrived,
        None if reverse is None else (reverse.local_part, reverse.domain),
        [(one.key, one.address.local_part, one.address.domain, one.attempts) for one in delivery.recipients],
        octets,
        delivery.replayed,
    )


def unpack(packed: Packed) -> Delivery:
    """The delivery, as far as it was packed."""
    queue_id, arrived, reverse, recipients, octets, replayed = packed
    envelope = Envelope(None if reverse is None else Address(*reverse))
    return Delivery(
        Message(queue_id, envelope, len(octets), arrived),
        Destination(MAILDIR),
        tuple([Recipient(key, Address(local, domain), attempts=number) for key, local, domain, number in recipients]),
        MemoryContent(octets),
        replayed,
    )


def serve(incoming: BinaryIO, outgoing: BinaryIO) -> None:
    """Deliver batch after batch until the input ends. The first frame holds the arguments of the store."""
    arguments = _read(incoming)
    if arguments is None:
        return
    store = MaildirStore(**arguments, now=time.time)
    try:
        while (batch := _read(incoming)) is not None:
            outcomes: Sequence[object] = store.deliver([unpack(packed) for packed in batch])
            outgoing.write(frame(outcomes))
            outgoing.flush()
    finally:
        store.close()


def _read(incoming: BinaryIO) -> Any:  # noqa: ANN401 - see `unframe`
    """The next value, or None at the end, be it in the midst of a frame."""
    head = incoming.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    octets = incoming.read(length)
    return unframe(octets) if len(octets) == length else None


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.nice(10)  # what is in the queue can wait for a processor; a peer that wants to hand its mail over should not
    serve(sys.stdin.buffer, sys.stdout.buffer)
