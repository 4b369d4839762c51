"""A name server for the measurements: `python -m bench.zone PORT`, a process of its own.

It has an MX for every domain below `many.test`, each another host, and the address 127.0.0.1 for all of those hosts.
Other names do not exist.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.names import dns, error, server

from bench.burst import DOMAIN
from tests.peers.process import LOOPBACK

HOSTS = "sink.test"
_TTL = 3600
records: Any = dns  # without annotations


class Zone:
    """Answers queries, as a resolver of twisted.names."""

    def query(self, query: Any, timeout: object = None) -> Deferred[Any]:
        """The answer to one query."""
        name = query.name.name.decode()
        record: Any = None
        if query.type == dns.MX and name.endswith(f".{DOMAIN}"):
            record = records.Record_MX(10, f"{name.removesuffix(DOMAIN)}{HOSTS}".encode())
        elif query.type == dns.A and name.endswith(f".{HOSTS}"):
            record = records.Record_A(LOOPBACK)
        if record is not None:
            return succeed(([dns.RRHeader(name.encode(), query.type, ttl=_TTL, payload=record)], [], []))
        if name.endswith((f".{DOMAIN}", f".{HOSTS}")) and not name.startswith("_"):
            return succeed(([], [], []))
        return fail(error.AuthoritativeDomainError(name))


def main(arguments: Sequence[str]) -> None:
    """Serve on the loopback, by UDP and TCP, and say so in one line."""
    port = int(arguments[0])
    factory = server.DNSServerFactory(clients=[Zone()])  # type: ignore[no-untyped-call]
    running: Any = reactor
    running.listenUDP(port, dns.DNSDatagramProtocol(factory), interface=LOOPBACK)  # type: ignore[no-untyped-call]
    running.listenTCP(port, factory, interface=LOOPBACK)
    print("ready", flush=True)
    running.run()


if __name__ == "__main__":
    main(sys.argv[1:])
