"""What the tests of DANE and MTA-STS share: we who send by a signed zone, and next hops on addresses of their own.

A next hop that has failed is left alone for a while, so each stands on another loopback address, all at one port.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.instance import Instance, mailsuite, parse
from tests.net.chains import Made
from tests.net.chains import write as write_chain
from tests.peers.process import wait_until
from tests.peers.signed_zone import SignedZone

ZONE = "signed.test"
SENDER = "alice@a.test"


def sender(directory: Path, zone: SignedZone, port: int, **settings: Any) -> Instance:
    """A server of ours that relays by the MX of the zone, to that port."""
    host, resolver_port = zone.resolver
    common = {
        "receive.trust_loopback": True,
        "relay.resolver": f"{host}:{resolver_port}",
        "relay.port": port,
        "relay.dane": "on",
    }
    return Instance(directory / "a", settings={**common, **settings})


def receiver(
    directory: Path,
    domains: Iterable[str],
    port: int,
    *,
    secured: Sequence[str],
    plain: Sequence[str] = (),
    chain: Sequence[Made],
    name: str = "b",
) -> Instance:
    """A server for the mailbox bob in all these domains, with a certificate; on some addresses it has no TLS."""
    certificate, key = write_chain(directory, name, *chain)
    made = Instance(
        directory / name,
        "b.test",
        settings={"tls.certificate": str(certificate), "tls.key": str(key)},
    )
    made.listeners = [
        *made.listeners,
        *({"endpoint": f"tcp:{port}:interface={address}"} for address in secured),
        *({"endpoint": f"tcp:{port}:interface={address}", "tls": "none"} for address in plain),
    ]
    made.configure()
    with made.accounts() as accounts:
        for domain in domains:
            accounts.add_domain(domain)
            accounts.add_alias(f"bob@{domain}", [made.address("alice")])
    return made


def send(server: Instance, domain: str) -> str:
    """Hand in a message for bob in a domain of the zone; its subject is the domain, which is returned whole."""
    full = f"{domain}.{ZONE}"
    with server.client() as client:
        client.sendmail(SENDER, [f"bob@{full}"], f"Subject: {full}\r\n\r\nhello\r\n")
    return full


def arrived(server: Instance, subject: str) -> list[str]:
    """How the messages about something have come: their last Received fields, unfolded."""
    messages = [parse(path) for path in server.messages()]
    return [" ".join(one.get_all("Received")[0].split()) for one in messages if one["Subject"] == subject]


def check_delivered(ours: Instance, theirs: Instance, domain: str, protocol: str) -> dict[str, Any]:
    """Send, and verify that it arrives once by that protocol; return what the history has of the last attempt."""
    full = send(ours, domain)
    wait_until(lambda: arrived(theirs, full), timeout=20, why=lambda: f"{ours.queue()} {ours.log()[-2000:]}")
    (received,) = arrived(theirs, full)
    assert f"with {protocol} " in received, received
    wait_until(lambda: attempts(ours, full), why=ours.log)
    return attempts(ours, full)[-1]


def check_kept(ours: Instance, theirs: Instance, domain: str, why: str) -> None:
    """Send, and verify that it was tried more than once, waits for that reason, and has not arrived."""
    full = send(ours, domain)

    def tried() -> list[str]:
        return [text for address, count, text in ours.queue() if address == f"bob@{full}" and count > 1]

    wait_until(tried, timeout=20, why=lambda: f"{ours.queue()} {ours.log()[-2000:]}")
    (text,) = tried()
    assert why in text, text
    assert arrived(theirs, full) == []


def attempts(server: Instance, domain: str) -> list[dict[str, Any]]:
    """What the history says of the attempts to deliver to bob there, in order."""
    said = mailsuite("--config", server.configuration, "trace", f"bob@{domain}", "--json")
    assert said.returncode == 0, said.stdout
    (story,) = json.loads(said.stdout)
    return [event for event in story["history"] if event["kind"] == "attempt"]


def counted(server: Instance, domain: str) -> Mapping[str, set[str]]:
    """What is counted for the reports of a domain: policies, each with its failures; a success is an empty text."""
    file = server.data / "tls-reports.db"
    found: dict[str, set[str]] = {}
    if file.exists():
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=10.0)) as database:
            for source, kind in database.execute(
                "SELECT source, kind FROM counts JOIN policies ON policies.id = policy WHERE domain = ?",
                (f"{domain}.{ZONE}",),
            ):
                found.setdefault(source, set()).add(kind)
    return found


def check_counted(server: Instance, expected: Mapping[str, tuple[str, set[str]]]) -> None:
    """Send to all these domains, and verify which policy a report will tell of, and with what failures."""
    for domain in expected:
        send(server, domain)

    def missing() -> dict[str, Mapping[str, set[str]]]:
        said = {domain: counted(server, domain) for domain in expected}
        return {
            domain: said[domain] for domain, (source, kinds) in expected.items() if said[domain].get(source) != kinds
        }

    wait_until(lambda: not missing(), timeout=20, why=lambda: f"{missing()}")
