"""MTA-STS with a web server of a local authority: policies are found, enforced, tested, and outlive a restart."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.instance import Instance
from tests.interop.conftest import require
from tests.interop.secured import (
    ZONE,
    arrived,
    check_counted,
    check_delivered,
    check_kept,
    receiver,
    send,
    sender,
)
from tests.net.chains import make, record, write
from tests.peers import policy_server, signed_zone
from tests.peers.certificate import Certificate
from tests.peers.policy_server import PolicyServer
from tests.peers.process import free_port, wait_until
from tests.peers.signed_zone import SignedZone

pytestmark = pytest.mark.interop

WEB, STRANGE_WEB = "127.0.0.30", "127.0.0.31"
# Each domain has a host of its own; those of the first line prove their names.
PROVED = ("enforce", "patterns", "other-mx", "strange-web", "dane")
UNPROVED = ("enforce-wrong", "testing", "none", "kept")
PLAIN = ("enforce-plain",)
DOMAINS = (*PROVED, *UNPROVED, *PLAIN)
ADDRESSES = {domain: f"127.0.0.{number}" for number, domain in enumerate(DOMAINS, 40)}


def policy(mode: str, *hosts: str) -> str:
    return "".join(
        f"{line}\r\n"
        for line in ("version: STSv1", f"mode: {mode}", *(f"mx: {one}" for one in hosts), "max_age: 86400")
    )


def mx(domain: str) -> str:
    return f"mx-{domain}.{ZONE}"


POLICIES = {
    "enforce": policy("enforce", mx("enforce")),
    "patterns": policy("enforce", "mx.elsewhere.test", f"*.{ZONE}"),
    "other-mx": policy("enforce", "mx.elsewhere.test", f"*.mx-other-mx.{ZONE}"),
    "strange-web": policy("enforce", "mx.elsewhere.test"),
    "dane": policy("enforce", "mx.elsewhere.test"),
    "enforce-wrong": policy("enforce", mx("enforce-wrong")),
    "testing": policy("testing", mx("testing")),
    "none": policy("none"),
    "kept": policy("enforce", mx("kept")),
    "enforce-plain": policy("enforce", mx("enforce-plain")),
}


class Place(NamedTuple):
    ours: Instance
    proved: Instance
    unproved: Instance
    web: PolicyServer


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Domains with policies, the hosts that they name, a web server, and us, who trust one authority."""
    require(signed_zone.why_missing(), policy_server.why_missing(WEB), policy_server.why_missing(STRANGE_WEB))
    directory: Path = tmp_path_factory.mktemp("mta-sts")
    port = free_port()
    root, stranger = make("Root", ca=True), make("Stranger", ca=True)
    write(directory, "root", root)
    leaf = make("mx", root, names=[mx(domain) for domain in PROVED])
    unproved = make("mx", stranger, names=[mx(domain) for domain in UNPROVED])
    names = [f"mta-sts.{domain}.{ZONE}" for domain in DOMAINS]
    certificates = [
        Certificate(*write(directory, name, make("web", issuer, names=names), issuer))
        for name, issuer in (("web", root), ("strange-web", stranger))
    ]
    records = []
    for domain in DOMAINS:
        records += [
            f"{domain} MX 10 mx-{domain}",
            f"mx-{domain} A {ADDRESSES[domain]}",
            f'_mta-sts.{domain} TXT "v=STSv1; id=1;"',
            f"mta-sts.{domain} A {STRANGE_WEB if domain == 'strange-web' else WEB}",
        ]
    tlsa = record(3, 1, 1, leaf)
    records.append(f"_{port}._tcp.mx-dane TLSA 3 1 1 {tlsa.data.hex()}")
    pages = {f"mta-sts.{domain}.{ZONE}": text for domain, text in POLICIES.items()}
    full = [f"{domain}.{ZONE}" for domain in DOMAINS]
    settings = {"relay.ca_file": str(directory / "root.pem")}
    with (
        SignedZone(ZONE, records) as zone,
        PolicyServer(WEB, certificates[0], pages) as web,
        PolicyServer(STRANGE_WEB, certificates[1], pages),
        receiver(
            directory, full, port, secured=[ADDRESSES[domain] for domain in PROVED], chain=[leaf, root], name="proved"
        ) as proved,
        receiver(
            directory,
            full,
            port,
            secured=[ADDRESSES[domain] for domain in UNPROVED],
            plain=[ADDRESSES[domain] for domain in PLAIN],
            chain=[unproved, stranger],
            name="unproved",
        ) as theirs,
        sender(directory, zone, port, **settings) as ours,
    ):
        yield Place(ours, proved, theirs, web)
    for instance in (ours, proved, theirs):
        instance.check_log()


# ------------------------------------------------------------------------------------------- what goes


@pytest.mark.parametrize("domain", ["enforce", "patterns"])
def test_host_that_proves_its_name_and_is_in_the_policy_gets_its_mail(place: Place, domain: str) -> None:
    attempt = check_delivered(place.ours, place.proved, domain, "ESMTPS")
    assert attempt["policy"] == "mta-sts"


def test_policy_that_is_tested_keeps_nothing(place: Place) -> None:
    attempt = check_delivered(place.ours, place.unproved, "testing", "ESMTPS")
    assert attempt["policy"] == "mta-sts (testing)"


def test_policy_of_none_demands_nothing(place: Place) -> None:
    attempt = check_delivered(place.ours, place.unproved, "none", "ESMTPS")
    assert attempt["policy"] == "opportunistic"


def test_policy_of_a_web_server_that_nobody_knows_is_none(place: Place) -> None:
    attempt = check_delivered(place.ours, place.proved, "strange-web", "ESMTPS")
    assert attempt["policy"] == "opportunistic"


def test_dane_comes_before(place: Place) -> None:
    attempt = check_delivered(place.ours, place.proved, "dane", "ESMTPS")
    assert attempt["policy"] == "dane"
    assert f"mta-sts.dane.{ZONE}" not in place.web.asked


# ------------------------------------------------------------------------------------------- what waits


@pytest.mark.parametrize(
    ("domain", "why"),
    [
        ("other-mx", f"does not name {mx('other-mx')}"),
        ("enforce-wrong", "TLS"),
        ("enforce-plain", "STARTTLS"),
    ],
)
def test_host_that_does_not_fit_gets_nothing(place: Place, domain: str, why: str) -> None:
    check_kept(place.ours, place.unproved, domain, why)
    assert arrived(place.proved, f"{domain}.{ZONE}") == []


def test_all_of_it_is_counted_for_reports(place: Place) -> None:
    expected = {
        "enforce": ("sts", {""}),
        "testing": ("sts", {"certificate-not-trusted"}),
        "strange-web": ("sts", {"sts-webpki-invalid"}),
        "dane": ("tlsa", {""}),
        "other-mx": ("sts", {"validation-failure"}),
        "enforce-wrong": ("sts", {"certificate-not-trusted"}),
        "enforce-plain": ("sts", {"starttls-not-supported"}),
    }
    check_counted(place.ours, expected)


def test_policy_holds_after_a_restart_without_the_web_server(place: Place) -> None:
    check_kept(place.ours, place.unproved, "kept", "TLS")
    fetched = place.web.asked.count(f"mta-sts.kept.{ZONE}")
    assert fetched == 1
    place.web.stop()
    try:
        place.ours.restart()
        full = send(place.ours, "kept")
        wait_until(
            lambda: [count > 0 for address, count, _ in place.ours.queue() if address == f"bob@{full}"] == [True] * 2,
            timeout=20,
            why=place.ours.log,
        )
        assert arrived(place.unproved, full) == []
    finally:
        place.web.start()
    assert place.web.asked.count(f"mta-sts.kept.{ZONE}") == 1
