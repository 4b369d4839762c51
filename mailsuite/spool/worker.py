"""The database in a process of its own: `python -m mailsuite.spool.worker PATH`, started by `spool.process`.

Its standard input is a socket. A frame is four octets of length, then a pickle: groups of operations come in; for each
a count of transactions, the answers, and what was logged go back. Both ends are one program and one user.

It ends when the socket does: signals that are meant for the server (Ctrl-C in a terminal, a service manager's SIGTERM
to all) would take its commits away from it.
"""

from __future__ import annotations

import pickle
import signal
import socket
import sqlite3
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from twisted.logger import ILogObserver, LogEvent, Logger, formatEvent, globalLogPublisher
from zope.interface import provider

from mailsuite.interfaces import SpoolError
from mailsuite.spool import schema
from mailsuite.spool.frames import READY, receive, send
from mailsuite.spool.transactions import Operation, Transactions

_log = Logger()

_BUFFER: Final = 1024 * 1024  # octets; a whole answer in one write where the system allows


def _answer(operation: Operation) -> tuple[SpoolError | None, Any, Any]:
    """What became of an operation; a defect is logged here, where its traceback is."""
    error = operation.error
    if error is not None and not isinstance(error.__cause__, (sqlite3.Error, OSError, type(None))):
        _log.error("{trace}", trace="".join(traceback.format_exception(error)))
    return error, operation.result, operation.effects()


def serve(connection: socket.socket, path: str) -> None:
    """Run group after group until the socket ends."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
    lines: list[tuple[str, str]] = []

    @provider(ILogObserver)
    def note(event: LogEvent) -> None:
        lines.append((event["log_level"].name, formatEvent(event)))

    globalLogPublisher.addObserver(note)
    try:
        transactions = Transactions(schema.connect(path), path)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told to whoever can do something about it
        with suppress(ConnectionError):  # the server was killed meanwhile
            send(connection, pickle.dumps(str(error)))
        return
    try:
        send(connection, pickle.dumps(READY))
        while (octets := receive(connection)) is not None:
            group: Sequence[Operation] = pickle.loads(octets)  # noqa: S301 - from our own other half
            transactions.run(group)
            answers = [_answer(operation) for operation in group]
            send(connection, pickle.dumps((transactions.count, answers, lines), pickle.HIGHEST_PROTOCOL))
            lines.clear()
    except ConnectionError:
        pass  # the server was killed: what it had given us is done
    finally:
        transactions.close()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with socket.socket(fileno=sys.stdin.fileno()) as standard_input:
        serve(standard_input, sys.argv[1])
