"""DANE against a zone that is really signed, served by nsd and asked through unbound: which mail goes, and how."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from mailsuite.net.dane import as_text
from tests.instance import Instance
from tests.interop.conftest import require
from tests.interop.secured import ZONE, check_counted, check_delivered, check_kept, receiver, send, sender
from tests.net.chains import make, record, write
from tests.peers import postfix, signed_zone
from tests.peers.certificate import Certificate
from tests.peers.postfix import Postfix
from tests.peers.process import LOOPBACK, free_port, wait_until
from tests.peers.signed_zone import SignedZone

pytestmark = pytest.mark.interop

DOMAINS = (
    "ee", "ee-wrong", "second", "ta", "ta-name", "ta-stranger", "bogus", "bogus-mx", "plain", "pkix",
    "without", "insecure", "ignored.insecure", "vouched.insecure",
)  # fmt: skip
SECURED = {
    "ee": "127.0.0.10",
    "ee-wrong": "127.0.0.11",
    "ta": "127.0.0.12",
    "ta-name": "127.0.0.13",
    "ta-stranger": "127.0.0.14",
    "bogus": "127.0.0.15",
    "pkix": "127.0.0.16",
    "without": "127.0.0.17",
    "ignored": "127.0.0.18",
    "vouched": "127.0.0.19",
}
PLAIN = {"plain": "127.0.0.20", "open": "127.0.0.21"}


class Place(NamedTuple):
    ours: Instance
    theirs: Instance
    port: int


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A zone with every kind of TLSA records, the hosts that it names, and us."""
    require(signed_zone.why_missing())
    directory: Path = tmp_path_factory.mktemp("dane")
    port = free_port()
    root, stranger = make("Root", ca=True), make("Stranger", ca=True)
    leaf = make("mx", root, names=[f"mx-ta.{ZONE}", f"mx-ta-stranger.{ZONE}"])

    def tlsa(host: str, usage: int, selector: int, made: object) -> str:
        return f"_{port}._tcp.mx-{host} TLSA {as_text(record(usage, selector, 1, made))}"

    records = [
        *(f"mx-{host} A {address}" for host, address in [*SECURED.items(), *PLAIN.items()] if host != "ignored"),
        *(f"{name} MX 10 mx-{name}" for name in SECURED if name not in ("ignored", "vouched")),
        "plain MX 10 mx-plain",
        "second MX 10 mx-ee-wrong",
        "second MX 20 mx-ee",
        "bogus-mx MX 10 mx-ee",
        "postfix MX 10 mx-postfix",
        f"mx-postfix A {LOOPBACK}",
        tlsa("ee", 3, 1, leaf),
        tlsa("ee-wrong", 3, 1, stranger),
        tlsa("ta", 2, 0, root),
        tlsa("ta-name", 2, 1, root),
        tlsa("ta-stranger", 2, 1, stranger),
        tlsa("bogus", 3, 1, leaf),
        tlsa("plain", 3, 1, leaf),
        tlsa("pkix", 1, 1, stranger),
        tlsa("vouched", 3, 1, stranger),
        tlsa("postfix", 3, 1, leaf),
    ]
    insecure = [
        "@ MX 10 mx-open",
        f"mx-open A {PLAIN['open']}",
        "ignored MX 10 mx-ignored",
        f"mx-ignored A {SECURED['ignored']}",
        tlsa("ignored", 3, 1, stranger),
        f"vouched MX 10 mx-vouched.{ZONE}.",
    ]
    broken = [f"_{port}._tcp.mx-bogus TLSA", "bogus-mx MX"]
    domains = [f"{domain}.{ZONE}" for domain in DOMAINS]
    write(directory, "postfix", leaf, root)
    with (
        SignedZone(ZONE, records, insecure=insecure, broken=broken) as zone,
        receiver(
            directory, domains, port, secured=[*SECURED.values()], plain=[*PLAIN.values()], chain=[leaf, root]
        ) as theirs,
        sender(directory, zone, port) as ours,
    ):
        yield Place(ours, theirs, port)
    ours.check_log()
    theirs.check_log()


# ------------------------------------------------------------------------------------------- what goes


@pytest.mark.parametrize("domain", ["ee", "ta"])
def test_host_that_its_records_vouch_for_gets_its_mail_by_tls(place: Place, domain: str) -> None:
    attempt = check_delivered(place.ours, place.theirs, domain, "ESMTPS")
    assert attempt["policy"] == "dane"


def test_next_host_gets_what_the_first_one_is_not_proved_for(place: Place) -> None:
    attempt = check_delivered(place.ours, place.theirs, "second", "ESMTPS")
    assert attempt["host"] == f"mx-ee.{ZONE}"


def test_records_that_cannot_be_used_demand_tls_of_any_kind(place: Place) -> None:
    attempt = check_delivered(place.ours, place.theirs, "pkix", "ESMTPS")
    assert attempt["policy"] == "dane"


def test_signed_zone_without_records_is_opportunistic(place: Place) -> None:
    attempt = check_delivered(place.ours, place.theirs, "without", "ESMTPS")
    assert attempt["policy"] == "opportunistic"


def test_insecure_zone_stays_opportunistic(place: Place) -> None:
    attempt = check_delivered(place.ours, place.theirs, "insecure", "ESMTP")
    assert attempt["policy"] == "opportunistic"


def test_records_in_an_insecure_zone_are_not_heeded(place: Place) -> None:
    attempt = check_delivered(place.ours, place.theirs, "ignored.insecure", "ESMTPS")
    assert attempt["policy"] == "opportunistic"


# ------------------------------------------------------------------------------------------- what waits


@pytest.mark.parametrize(
    ("domain", "why"),
    [
        ("ee-wrong", "no TLSA record matches"),
        ("ta-name", f"not for mx-ta-name.{ZONE}"),
        ("ta-stranger", "no TLSA record matches"),
        ("bogus", f"TLSA of _{{port}}._tcp.mx-bogus.{ZONE}"),
        ("plain", "STARTTLS"),
        ("vouched.insecure", "no TLSA record matches"),
    ],
)
def test_host_that_is_not_proved_gets_nothing(place: Place, domain: str, why: str) -> None:
    check_kept(place.ours, place.theirs, domain, why.format(port=place.port))


def test_mx_of_a_broken_signature_is_not_believed(place: Place) -> None:
    check_kept(place.ours, place.theirs, "bogus-mx", "name servers fail")


# ---------------------------------------------------------------------------------------------- Postfix


def test_postfix_is_proved_by_its_record(place: Place) -> None:
    require(postfix.why_missing())
    directory = place.ours.directory.parent
    certificate = Certificate(directory / "postfix.pem", directory / "postfix.key")
    peer = Postfix(domain=f"postfix.{ZONE}", users=["bob"], certificate=certificate)
    peer.port = place.port  # that of all hosts of the zone
    with peer:
        send(place.ours, "postfix")
        wait_until(lambda: peer.messages("bob"), timeout=20, why=place.ours.log)
        assert b"with ESMTPS id" in peer.messages("bob")[0].read_bytes()


# ---------------------------------------------------------------------------------------------- reports


def test_all_of_it_is_counted_for_reports(place: Place) -> None:
    expected = {
        "ee": ("tlsa", {""}),
        "pkix": ("tlsa", {"", "tlsa-invalid"}),
        "insecure": ("no-policy-found", {"starttls-not-supported"}),
        "ee-wrong": ("tlsa", {"validation-failure"}),
        "ta-name": ("tlsa", {"certificate-host-mismatch"}),
        "bogus": ("tlsa", {"dnssec-invalid"}),
        "plain": ("tlsa", {"starttls-not-supported"}),
    }
    check_counted(place.ours, expected)
